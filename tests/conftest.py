"""Fixtures that every test may use."""

import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger
from hypothesis import settings

# An example's time says nothing on a machine that also trains.
settings.register_profile("ldmseg_d2", deadline=None)
settings.load_profile("ldmseg_d2")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos and fixtures that lies beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the checkout: real photos and fixtures are not here")
    return SHARED


@pytest.fixture(scope="session")
def reference(shared) -> dict:
    """Tensors of the parity fixture, and its metadata under "metadata"."""
    from safetensors import safe_open

    path = shared / "fixtures" / "reference_pipeline.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/fixtures")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = {
            key: json.loads(value) if value[:1] in "[{" else value
            for key, value in file.metadata().items()
        }
    return {**tensors, "metadata": metadata}


@pytest.fixture
def catalogs():
    """Restores Detectron2's catalogs after a test that registers."""
    datasets, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    DatasetCatalog.data, MetadataCatalog.data = datasets, metadata


@pytest.fixture(autouse=True)
def two_threads():
    """The suite must not fight for cores with itself on a small machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, 2))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def restore_loggers():
    """Undo Detectron2's set-up of loggers, which would hide records from other tests' caplog."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "ldmseg_d2")]
    before = [(log.handlers[:], log.propagate, log.level) for log in loggers]
    yield
    for log, (handlers, propagate, level) in zip(loggers, before):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
    setup_logger.cache_clear()

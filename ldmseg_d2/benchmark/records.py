"""What is kept of a phase, and on which machine it was measured."""

import json
import logging
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import detectron2
import torch

from ldmseg_d2.engine.reporting import write_results
from ldmseg_d2.studies.runs import check_same, commit

logger = logging.getLogger(__name__)

PACKAGES = ("torchvision", "diffusers", "transformers", "timm", "numpy")


def once(
    path: Path, settings: dict[str, Any], make: Callable[[], Any], *, models: Any = None
) -> Any:
    """Read what was made before with the same settings, or make and keep it.

    Args:
        path: JSON file where it is kept.
        settings: which it was made with, as JSON.
        make: gives the result, as JSON.
        models: which trained models were measured. With others, such as those of another seed, it
            is made again, whatever the settings.

    Raises:
        ValueError: it was made of the same models with other settings; the message names the key.
    """
    wanted = json.loads(json.dumps({"models": models, "settings": settings}))
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept.get("models") == wanted["models"]:
            check_same(kept["settings"], wanted["settings"], path)
            return kept["result"]
        logger.info("Other models than before: %s is measured again", path)
    write_results(path, {**wanted, "result": make()})
    return json.loads(path.read_text())["result"]


def environment(device: str) -> dict[str, Any]:
    """Commit, versions and machine."""
    versions = {"torch": torch.__version__, "detectron2": detectron2.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    on_gpu = device.startswith("cuda")
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
        "device": torch.cuda.get_device_name() if on_gpu else f"{cpu_name()} (CPU)",
        "threads": torch.get_num_threads(),
        "clock": "wall time" if on_gpu else "CPU time",
        "platform": f"{sys.platform} {platform.machine()}",
    }


def cpu_name() -> str:
    """As the system calls it, or its kind."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()

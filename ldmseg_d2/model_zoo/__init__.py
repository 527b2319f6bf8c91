"""Shipped configs and small trained weights.

``ldmseg://NAME`` in a config stands for a file of this folder, wherever the package is installed.
"""

import json
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from torch import nn

from .. import meta_arch as _  # noqa: F401  registers what build_model builds
from ..config import add_ldmseg_config
from ..config.config_files import merge_config_file
from ..modeling.weights import load_into, load_weights

_HERE = Path(__file__).parent
WEIGHTS_PREFIX = "ldmseg://"


class _ShippedFileHandler(PathHandler):
    """Resolves ``ldmseg://NAME`` to a file of this folder."""

    def _get_supported_prefixes(self) -> list[str]:
        return [WEIGHTS_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        local = _HERE / path[len(WEIGHTS_PREFIX) :]
        if not local.is_file():
            shipped = ", ".join(sorted(p.name for p in _HERE.glob("*.safetensors"))) or "none"
            raise FileNotFoundError(f"{path}: no such shipped file; shipped: {shipped}")
        return str(local)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs):
        return open(self._get_local_path(path), mode, buffering=buffering)

    def _isfile(self, path: str, **kwargs) -> bool:
        return (_HERE / path[len(WEIGHTS_PREFIX) :]).is_file()

    _exists = _isfile


PathManager.register_handler(_ShippedFileHandler(), allow_override=True)


def config_root() -> Path:
    """Folder of the configs: ``configs/`` of a checkout, else the copy inside the package."""
    checkout = _HERE.parents[1] / "configs"
    return checkout if checkout.is_dir() else _HERE / "configs"


def get_config_file(name: str) -> str:
    """Path of a shipped config, given relative to ``configs/``: ``scenes/ldmseg_scenes64.yaml``."""
    root = config_root()
    if not (root / name).is_file():
        known = ", ".join(sorted(str(p.relative_to(root)) for p in root.rglob("*.yaml")))
        raise FileNotFoundError(f"no shipped config {name!r}; there are: {known}")
    return str(root / name)


def get_config(name: str) -> CfgNode:
    """A shipped config, ready to change and to build from; arguments of :func:`get_config_file`."""
    cfg = get_cfg()
    add_ldmseg_config(cfg)
    merge_config_file(cfg, get_config_file(name))
    return cfg


def list_models() -> list[str]:
    """Names of the shipped models; each has a card ``NAME.json`` beside its weights."""
    return sorted(path.stem for path in _HERE.glob("*.json"))


def get_card(name: str) -> dict:
    """What is known of a shipped model: one of :func:`list_models`.

    Returns:
        ``config`` (for :func:`get_config`), ``weights`` (for ``MODEL.WEIGHTS``), ``summary``,
        ``training`` (commands, device, time, seed) and ``results``.
    """
    if name not in list_models():
        raise KeyError(f"no shipped model {name!r}; there are: {', '.join(list_models())}")
    return json.loads((_HERE / f"{name}.json").read_text(encoding="utf-8"))


def get(name: str, *, device: str = "cpu") -> nn.Module:
    """A shipped model with its trained weights, in eval mode.

    Args:
        name: one of :func:`list_models`, e.g. ``"ldmseg_multitask_scenes64"``.
        device: a torch device.

    Returns:
        The META_ARCH; call it with a list of dicts as Detectron2's models are called.

    Example:
        >>> model = get("ldmseg_multitask_scenes64")
        >>> model.training
        False
    """
    card = get_card(name)
    cfg = get_config(card["config"])
    cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    load_into(
        model,
        load_weights(card["weights"]),
        source=card["weights"],
        ignore_missing=getattr(model, "frozen_prefixes", ()),
    )
    return model.eval()

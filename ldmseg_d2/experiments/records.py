"""What is kept of a phase, with which settings, and on which machine it was measured."""

import json
import logging
import platform
import re
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from ldmseg_d2.engine.reporting import write_results

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("torchvision", "diffusers", "transformers", "timm", "numpy")


def once(path: Path, settings: dict[str, Any], make: Callable[[], Any]) -> Any:
    """Read from a JSON file what was measured before with the same settings, or measure it."""
    wanted = as_json(settings)
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["settings"] == wanted:
            return kept["result"]
        logger.info("Other settings than before: %s is measured again", path)
    # What is not finite becomes null.
    write_results(path, {"settings": wanted, "result": make()})
    return json.loads(path.read_text())["result"]


def check_same(there: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raise ValueError, naming the keys, where something at `path` was made with other settings."""
    keys = sorted(there.keys() | wanted.keys())
    there, wanted = as_json(there), as_json(wanted)
    different = [key for key in keys if there.get(key) != wanted.get(key)]
    if different:
        key = different[0]
        raise ValueError(
            f"{path} holds a training with other settings: {key} is {there.get(key)!r} there, "
            f"{wanted.get(key)!r} was asked for (differing keys: {', '.join(different)}). Choose "
            "another --output, or delete it"
        )


def as_json(value: Any) -> Any:
    """As JSON gives it back: a tuple is a list there, a key is a text."""
    return json.loads(json.dumps(value))


def flat_settings(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """All keys of a config with their full names, but for where its output lies."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        flat.update(flat_settings(value, f"{name}.") if isinstance(value, dict) else {name: value})
    flat.pop("OUTPUT_DIR", None)
    return flat


def environment(device: str) -> dict[str, Any]:
    """Commit, versions and machine."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    on_gpu = device.startswith("cuda")
    return {
        "commit": commit(),
        "versions": versions,
        "device": torch.cuda.get_device_name() if on_gpu else f"{cpu_name()} (CPU)",
        "threads": torch.get_num_threads(),
        "clock": "wall time" if on_gpu else "CPU time",
    }


def commit() -> str:
    """The commit of this checkout, with "+changes" where files differ from it; or "unknown"."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu_name() -> str:
    """As Linux calls it, or its kind."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text() if path.is_file() else "")
    return found[1] if found else platform.machine()

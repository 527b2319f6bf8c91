"""What is kept of a measurement, with which settings, and on which machine it was made."""

import json
import logging
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from ldmseg_d2.engine.reporting import write_results

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]


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
    wanted = as_json(wanted)
    keys = sorted(there.keys() | wanted.keys())
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
    """Machine, version and commit ("+changes" where files of the checkout differ from it)."""
    on_gpu = device.startswith("cuda")
    names = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    cpu = names.partition("model name")[2].partition("\n")[0].strip("\t: ") or platform.machine()
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=10", "--exclude=*"]
    try:
        found = subprocess.run([*git, "--dirty=+changes"], capture_output=True, text=True)
        commit = found.stdout.strip()
    except OSError:
        commit = ""
    return {
        "commit": commit or "unknown",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else f"{cpu} (CPU)",
        "threads": torch.get_num_threads(),
        "clock": "wall time" if on_gpu else "CPU time",
    }

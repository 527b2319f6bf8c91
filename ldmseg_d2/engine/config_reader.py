"""Reading a config file and command-line options, with one clear message for each mistake."""

import difflib
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from ldmseg_d2 import config as ldmseg_config
from ldmseg_d2.baselines import add_baseline_config
from ldmseg_d2.baselines.foreign_repositories import add_foreign_config, use_our_mapper
from ldmseg_d2.config.config_files import merge_config_file, merge_options, read_config_file
from ldmseg_d2.data.augmentations import RESIZE_MODES

from .optimizer import LR_SCHEDULERS
from .train_step import PRECISIONS

PACKAGE_ROOT = Path(__file__).resolve().parents[1]

# Keys with a fixed set of values: checked before anything is built.
CHOICES = {
    **ldmseg_config.CHOICES,
    "INPUT.LDMSEG.RESIZE": RESIZE_MODES,
    "SOLVER.AMP.PRECISION": tuple(PRECISIONS),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("full_model",),
    "SOLVER.LR_SCHEDULER_NAME": LR_SCHEDULERS,
}
# What yacs raises for keys and values that do not fit.
YACS_ERRORS = (KeyError, ValueError, AssertionError, TypeError, AttributeError)


class ConfigError(ValueError):
    """A mistake in a config file or in ``KEY VALUE`` options; the message names the key."""


def load_config(config_file: str = "", opts: Sequence[str] = (), *, freeze: bool = True) -> CfgNode:
    """Build a config: Detectron2's defaults, this package's keys, a file, then options.

    Args:
        config_file: YAML, absolute, or relative to the current folder or to the repository (such
            as ``configs/...``); or a URL. Empty: defaults only.
        opts: keys and values in turn, as on the command line.
        freeze: make the result immutable.

    Returns:
        The config. ``MODEL.DEVICE`` is ``cpu`` on a machine without CUDA.

    Raises:
        FileNotFoundError: the file, or one that it inherits from, does not exist.
        ConfigError: an unknown key or a value that does not fit.
    """
    if len(opts) % 2:
        raise ConfigError(
            f"Options come in pairs, KEY VALUE, but there are {len(opts)} words: {' '.join(opts)}"
        )
    path = resolve_config_file(config_file) if config_file else ""
    meta_arch = _meta_architecture(path, opts)
    cfg = default_config(meta_arch)
    if path:
        _merge_file(cfg, path)
    try:
        merge_options(cfg, opts)
    except YACS_ERRORS as error:
        raise ConfigError(_explain(cfg, error)) from error
    use_our_mapper(cfg, meta_arch)
    for key, choices in CHOICES.items():
        value = _lookup(cfg, key)
        if value not in choices:
            raise ConfigError(
                f"Config key {key} cannot be {value!r}: it must be one of "
                f"{', '.join(map(repr, choices))}.{_suggest(str(value), choices)}"
            )
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if freeze:
        cfg.freeze()
    return cfg


def default_config(meta_arch: str = "") -> CfgNode:
    """All keys with their defaults; those of a ``MODEL.META_ARCHITECTURE`` of others as well."""
    cfg = get_cfg()
    ldmseg_config.add_ldmseg_config(cfg)
    add_baseline_config(cfg)
    try:
        add_foreign_config(cfg, meta_arch)
    except ImportError as error:
        raise ConfigError(str(error)) from error
    return cfg


def changed_keys(cfg: CfgNode) -> dict[str, object]:
    """What a config says otherwise than the defaults: dotted key to value."""
    defaults = _leaves(default_config(cfg.MODEL.META_ARCHITECTURE))
    return {key: value for key, value in _leaves(cfg).items() if value != defaults.get(key, cfg)}


def resolve_config_file(config_file: str) -> str:
    """The path of a config file, found from any current folder, see :func:`load_config`."""
    if "://" in config_file:
        return config_file
    given = Path(config_file).expanduser()
    # In a checkout, `configs/` is beside the package; once installed, it is in model_zoo.
    candidates = [given, PACKAGE_ROOT.parent / given, PACKAGE_ROOT / "model_zoo" / given]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    tried = ", ".join(str(candidate) for candidate in dict.fromkeys(candidates))
    raise FileNotFoundError(f"There is no config file {config_file!r}; looked at {tried}.")


def _meta_architecture(path: str, opts: Sequence[str]) -> str:
    """The model that options or a file name, before either is merged; empty: none."""
    options = dict(zip(opts[::2], opts[1::2]))
    if "MODEL.META_ARCHITECTURE" in options:
        return options["MODEL.META_ARCHITECTURE"]
    try:
        content = read_config_file(path) if path else {}
        return str(content.get("MODEL", {}).get("META_ARCHITECTURE", ""))
    except Exception:  # _merge_file tells what is wrong with the file
        return ""


def _merge_file(cfg: CfgNode, path: str) -> None:
    try:
        merge_config_file(cfg, path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Config file {path} inherits from (_BASE_) {error.filename}, which does not exist."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"Config file {path} is not valid YAML: {error}") from error
    except YACS_ERRORS as error:
        raise ConfigError(f"Config file {path}: {_explain(cfg, error)}") from error


def _explain(cfg: CfgNode, error: Exception) -> str:
    """Turn yacs' error about a key or a value into a message for the user."""
    text = str(error.args[0]) if error.args else str(error)
    unknown = re.search(r"Non-existent (?:config )?key: (\S+)", text)
    if unknown:
        return f"There is no config key {unknown[1]}.{_suggest(unknown[1], list(_leaves(cfg)))}"
    mismatch = re.search(r"^Type mismatch .* vs\. (.*)\) for config key: (\S+)", text, re.DOTALL)
    if mismatch:
        value, key = mismatch.groups()
        default = _lookup(cfg, key)
        return (
            f"Config key {key} takes a value of type {type(default).__name__}, such as "
            f"{default!r}, and not {value!r}."
        )
    return text


def _suggest(word: str, choices: Sequence[str]) -> str:
    """' Did you mean ...?', or nothing where no choice is similar."""
    # Upper case: most slips in keys are in the last part, some only in case.
    by_upper = {choice.upper(): choice for choice in choices}
    close = difflib.get_close_matches(word.upper(), list(by_upper), n=3, cutoff=0.6)
    if word.upper() in by_upper:
        close = [word.upper()]
    return f" Did you mean {' or '.join(by_upper[upper] for upper in close)}?" if close else ""


def _leaves(node: CfgNode, prefix: str = "") -> dict[str, object]:
    """Dotted keys and their values."""
    leaves = {}
    for name, value in node.items():
        if isinstance(value, CfgNode):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def _lookup(cfg: CfgNode, key: str) -> object:
    return functools.reduce(lambda node, part: node[part], key.split("."), cfg)

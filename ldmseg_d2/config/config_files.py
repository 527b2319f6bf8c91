"""Config files that inherit from one another, where OPTIONS belong to the class they are for."""

import os
from collections.abc import Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

BASE = "_BASE_"
# (a key that names a class, the node of that class' own options): another class has others, so
# whoever changes the name starts without those that were there.
CLASS_OPTIONS = (("MODEL.LDMSEG.IMAGE_ENCODER.NAME", "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS"),)


def merge_config_file(cfg: CfgNode, path: str) -> None:
    """Merge a YAML file, and those it inherits from, into a config, in place.

    Unlike ``CfgNode.merge_from_file`` it runs no code that a file may hold, and drops inherited
    OPTIONS of a class that the file replaces, see ``CLASS_OPTIONS``.

    Raises:
        FileNotFoundError, yaml.YAMLError, and yacs' errors about keys and values.
    """
    cfg.merge_from_other_cfg(CfgNode(read_config_file(path)))


def merge_options(cfg: CfgNode, opts: Sequence[Any]) -> None:
    """Merge keys and values in turn, as on the command line, with the same rule for OPTIONS."""
    given = dict(zip(opts[::2], opts[1::2]))
    for name_key, options_key in CLASS_OPTIONS:
        options = _find(cfg, options_key)
        if name_key in given and given[name_key] != _find(cfg, name_key):
            options.clear()
        for key, value in given.items():
            # yacs takes new keys from files alone.
            if key.startswith(f"{options_key}."):
                options.setdefault(key.rpartition(".")[2], CfgNode._decode_cfg_value(value))
    cfg.merge_from_list(list(opts))


def read_config_file(path: str) -> dict[str, Any]:
    """The content of a config file over what it inherits, as nested dicts."""
    with PathManager.open(path, "r") as file:
        content = yaml.safe_load(file) or {}
    if not isinstance(content, dict):
        raise ValueError(f"it holds {content!r} instead of keys and values")
    bases = content.pop(BASE, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        base = os.path.expanduser(base)
        if not os.path.isabs(base) and "://" not in base:
            base = os.path.join(os.path.dirname(path), base)
        _merge(read_config_file(base), merged)
    _merge(content, merged)
    return merged


def _merge(new: dict[str, Any], into: dict[str, Any]) -> None:
    """Put a file's content over another's, in place."""
    for name_key, options_key in CLASS_OPTIONS:
        old_name, new_name = _find(into, name_key), _find(new, name_key)
        options = _find(into, options_key)
        if options and new_name is not None and new_name != old_name:
            options.clear()
    _merge_dicts(new, into)


def _merge_dicts(new: dict[str, Any], into: dict[str, Any], prefix: str = "") -> None:
    for key, value in new.items():
        if isinstance(value, dict) and key in into:
            if not isinstance(into[key], dict):
                raise ValueError(f"{prefix}{key} holds further keys here, but not in its _BASE_")
            _merge_dicts(value, into[key], f"{prefix}{key}.")
        else:
            into[key] = value


def _find(node: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; None where it is not there."""
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node

"""transformers' Mask2Former: built from options, or loaded from the hub or a folder."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..modeling.from_hub import load_from_hub

logger = logging.getLogger(__name__)

KEY = "MODEL.MASK2FORMER"
CONFIG_NAME = "config.json"
STAGES = ["stage1", "stage2", "stage3", "stage4"]
# Options of the losses and the matching: they change no weight's shape.
LOSS_OPTIONS = (
    *("class_weight", "mask_weight", "dice_weight", "no_object_weight"),
    *("train_num_points", "oversample_ratio", "importance_sample_ratio"),
)
# What differs where the number of classes does.
DEPENDS_ON_CLASSES = ("class_predictor.", "criterion.")


def import_transformers() -> ModuleType:
    """transformers, which only this baseline needs."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "HFMask2Former needs transformers, which is not installed: run "
            "'tools/install.sh --extras=baselines', or 'pip install transformers'"
        ) from error
    return transformers


def build_mask2former(*, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A Mask2FormerForUniversalSegmentation with random weights.

    Args:
        num_classes: C; "no object" comes on top.
        options: of transformers' ``Mask2FormerConfig``. ``backbone_config`` is a mapping with
            ``model_type`` and arguments of that backbone's configuration; all four stages are used.
            ``feature_size`` and ``mask_feature_size`` default to ``hidden_dim``. What is unknown or
            does not fit raises ValueError.
    """
    transformers = import_transformers()
    options = dict(options)
    backbone = dict(options.pop("backbone_config", {}))
    name = backbone.pop("model_type", "swin")
    if "hidden_dim" in options:
        sizes = dict.fromkeys(("feature_size", "mask_feature_size"), options["hidden_dim"])
        options = {**sizes, **options}
    try:
        _check_options(options, transformers.Mask2FormerConfig())
        _check_options(backbone, default := transformers.AutoConfig.for_model(name))
        config = transformers.Mask2FormerConfig(
            backbone_config=type(default)(**{"out_features": STAGES, **backbone}),
            num_labels=num_classes,
            **options,
        )
        return transformers.Mask2FormerForUniversalSegmentation(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{KEY}.OPTIONS: transformers cannot build a Mask2Former with {options} on the "
            f"backbone {name!r} with {backbone}: {error}"
        ) from error


def load_mask2former(pretrained: str, *, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A Mask2Former that ``save_pretrained`` wrote.

    Args:
        pretrained: a local folder, or the id of a repository on the hub (``owner/name``), which is
            looked up in the local cache first.
        num_classes: C; where the file's differ, the class predictor starts at random, with a
            warning.
        options: as for :func:`build_mask2former`; only LOSS_OPTIONS are read.

    Raises:
        FileNotFoundError: it cannot be had.
        ValueError: the folder holds no Mask2Former, or not all of its weights.
    """
    transformers = import_transformers()
    load = partial(
        transformers.Mask2FormerForUniversalSegmentation.from_pretrained,
        num_labels=num_classes,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **{key: value for key, value in options.items() if key in LOSS_OPTIONS},
    )
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        _check_folder(transformers, folder)
        try:
            network, info = load(str(folder), local_files_only=True)
        except Exception as error:  # transformers raises whatever its parts do
            raise ValueError(
                f"{KEY}.PRETRAINED: {folder} holds no Mask2Former that transformers can load: "
                f"{error}"
            ) from error
    elif pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
        raise FileNotFoundError(f"{KEY}.PRETRAINED: there is no folder {pretrained!r}")
    else:
        files = f"{CONFIG_NAME} and model.safetensors"
        network, info = load_from_hub(load, pretrained, key=f"{KEY}.PRETRAINED", files=files)
    missing = [key for key in info["missing_keys"] if not key.startswith(DEPENDS_ON_CLASSES)]
    if missing:
        raise ValueError(
            f"{KEY}.PRETRAINED {pretrained!r} lacks {len(missing)} tensors, such as "
            f"{min(missing)}: it is no complete Mask2FormerForUniversalSegmentation"
        )
    logger.info("Mask2Former from %s", pretrained)
    return network.float()


def _check_options(options: Mapping[str, Any], default: Any) -> None:
    """transformers keeps unknown arguments without a word."""
    known = default.to_dict().keys()
    for name in options.keys() - known:
        raise ValueError(
            f"{type(default).__name__} has no {name.upper()}; it takes {', '.join(sorted(known))}"
        )


def _check_folder(transformers: ModuleType, folder: Path) -> None:
    """Loading another model's folder would only warn, and leave every weight random."""
    if not (folder / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{KEY}.PRETRAINED: {folder} has no {CONFIG_NAME}")
    found = transformers.Mask2FormerConfig.get_config_dict(str(folder), local_files_only=True)[0]
    if found.get("model_type") != "mask2former":
        raise ValueError(
            f"{KEY}.PRETRAINED: {folder} holds a model of type {found.get('model_type')!r}; "
            "expected one that Mask2FormerForUniversalSegmentation.save_pretrained wrote"
        )

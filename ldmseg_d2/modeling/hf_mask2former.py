"""transformers' Mask2Former: from the hub, from a folder, or built from sizes."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from .from_hub import CONFIG_NAME, load_from_hub

logger = logging.getLogger(__name__)

KEY = "MODEL.MASK2FORMER"
NUM_STAGES = 4
# What differs where the number of classes does.
DEPENDS_ON_CLASSES = ("class_predictor.", "criterion.")


def import_transformers() -> ModuleType:
    """transformers, which only this baseline needs.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "HFMask2Former needs transformers, which is not installed: run "
            "'tools/install.sh --extras=baselines', or 'pip install transformers'"
        ) from error
    return transformers


def build_mask2former(
    *,
    num_classes: int,
    backbone: str,
    backbone_options: Mapping[str, Any],
    feature_strides: Sequence[int],
    hidden_dim: int,
    losses: Mapping[str, float],
    **sizes: Any,
) -> nn.Module:
    """A Mask2FormerForUniversalSegmentation with random weights.

    Args:
        num_classes: C; "no object" comes on top.
        backbone: transformers' ``model_type`` of a backbone with four stages.
        backbone_options: arguments of its configuration.
        feature_strides: of the four stages, pixels.
        hidden_dim: channels of pixel decoder, mask embeddings and queries.
        losses: see :func:`loss_arguments`.
        sizes: further arguments of transformers' ``Mask2FormerConfig``.

    Raises:
        ValueError: an unknown backbone, or sizes that do not fit.
    """
    transformers = import_transformers()
    if hidden_dim % 32:
        raise ValueError(f"{KEY}.HIDDEN_DIM is {hidden_dim}; its norms need a multiple of 32")
    if len(feature_strides) != NUM_STAGES:
        raise ValueError(
            f"{KEY}.FEATURE_STRIDES is {list(feature_strides)}: one for each of the {NUM_STAGES} "
            "stages of the backbone"
        )
    stages = [f"stage{i}" for i in range(1, NUM_STAGES + 1)]
    try:
        backbone_config = transformers.AutoConfig.for_model(
            backbone, out_features=stages, **backbone_options
        )
        config = transformers.Mask2FormerConfig(
            backbone_config=backbone_config,
            feature_size=hidden_dim,
            mask_feature_size=hidden_dim,
            hidden_dim=hidden_dim,
            feature_strides=list(feature_strides),
            num_labels=num_classes,
            **losses,
            **sizes,
        )
        return transformers.Mask2FormerForUniversalSegmentation(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{KEY}: transformers cannot build a Mask2Former on the backbone {backbone!r} with "
            f"BACKBONE_OPTIONS {dict(backbone_options)}: {error}"
        ) from error


def load_mask2former(
    pretrained: str, *, num_classes: int, losses: Mapping[str, float]
) -> nn.Module:
    """A Mask2Former that ``save_pretrained`` wrote.

    Args:
        pretrained: a local folder, or the id of a repository on the hub (``owner/name``), which is
            looked up in the local cache first.
        num_classes: C; where the file's differ, the class predictor starts at random, with a
            warning.
        losses: see :func:`loss_arguments`.

    Raises:
        FileNotFoundError: no such folder, or the hub's repository cannot be had.
        ValueError: the folder holds no Mask2Former, or not all of its weights.
    """
    transformers = import_transformers()
    arguments = {"num_labels": num_classes, "ignore_mismatched_sizes": True, **losses}
    arguments["output_loading_info"] = True
    load = transformers.Mask2FormerForUniversalSegmentation.from_pretrained
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise FileNotFoundError(f"{KEY}.PRETRAINED: {folder} has no {CONFIG_NAME}")
        _check_type(transformers, folder)
        try:
            network, info = load(str(folder), local_files_only=True, **arguments)
        except Exception as error:  # transformers raises whatever its parts do
            raise ValueError(
                f"{KEY}.PRETRAINED: {folder} holds no Mask2Former that transformers can load: "
                f"{error}"
            ) from error
    elif pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
        raise FileNotFoundError(f"{KEY}.PRETRAINED: there is no folder {pretrained!r}")
    else:
        network, info = load_from_hub(
            partial(load, **arguments),
            pretrained,
            key=f"{KEY}.PRETRAINED",
            files=f"{CONFIG_NAME} and model.safetensors",
        )
    missing = [key for key in info["missing_keys"] if not key.startswith(DEPENDS_ON_CLASSES)]
    if missing:
        raise ValueError(
            f"{KEY}.PRETRAINED {pretrained!r} lacks {len(missing)} tensors, such as "
            f"{min(missing)}: it is no complete Mask2FormerForUniversalSegmentation"
        )
    logger.info("Mask2Former from %s", pretrained)
    return network.float()


def loss_arguments(
    *,
    class_weight: float,
    mask_weight: float,
    dice_weight: float,
    no_object_weight: float,
    num_points: int,
    oversample_ratio: float,
    importance_ratio: float,
) -> dict[str, float]:
    """The keys of ``MODEL.MASK2FORMER.LOSS`` under transformers' names."""
    return {
        "class_weight": class_weight,
        "mask_weight": mask_weight,
        "dice_weight": dice_weight,
        "no_object_weight": no_object_weight,
        "train_num_points": num_points,
        "oversample_ratio": oversample_ratio,
        "importance_sample_ratio": importance_ratio,
    }


def _check_type(transformers: ModuleType, folder: Path) -> None:
    """Loading another model's folder would only warn, and leave every weight random."""
    found = transformers.Mask2FormerConfig.get_config_dict(str(folder), local_files_only=True)[0]
    if found.get("model_type") != "mask2former":
        raise ValueError(
            f"{KEY}.PRETRAINED: {folder} holds a model of type {found.get('model_type')!r}; "
            "expected one that Mask2FormerForUniversalSegmentation.save_pretrained wrote"
        )

"""transformers' Mask2Former: built from options, or loaded from the hub or a folder."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from ..modeling.from_hub import load_pretrained

KEY = "MODEL.MASK2FORMER"
# Options of the losses and the matching: they change no weight's shape.
LOSS_OPTIONS = (
    *("class_weight", "mask_weight", "dice_weight", "no_object_weight"),
    *("train_num_points", "oversample_ratio", "importance_sample_ratio"),
)


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
        options: of transformers' ``Mask2FormerConfig``, see ``MODEL.MASK2FORMER.OPTIONS``; what is
            unknown or does not fit raises ValueError.
    """
    transformers = import_transformers()
    options = dict(options)
    backbone = dict(options.pop("backbone_config", {}))
    name = backbone.pop("model_type", "swin")
    if "hidden_dim" in options:
        sizes = dict.fromkeys(("feature_size", "mask_feature_size"), options["hidden_dim"])
        options = {**sizes, **options}
    stages = ["stage1", "stage2", "stage3", "stage4"]
    try:
        _check_options(options, transformers.Mask2FormerConfig())
        _check_options(backbone, default := transformers.AutoConfig.for_model(name))
        config = transformers.Mask2FormerConfig(
            backbone_config=type(default)(**{"out_features": stages, **backbone}),
            num_labels=num_classes,
            **options,
        )
        return transformers.Mask2FormerForUniversalSegmentation(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{KEY}.OPTIONS: transformers cannot build a Mask2Former with {options} on the "
            f"backbone {name!r} with {backbone}: {error}"
        ) from error


def _check_options(options: Mapping[str, Any], default: Any) -> None:
    """transformers keeps unknown arguments without a word."""
    known = default.to_dict().keys()
    for name in options.keys() - known:
        raise ValueError(
            f"{type(default).__name__} has no {name.upper()}; it takes {', '.join(sorted(known))}"
        )


def load_mask2former(pretrained: str, *, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A Mask2Former that ``save_pretrained`` wrote; errors: see :func:`load_pretrained`.

    Where its classes are others than `num_classes`, the class predictor starts at random. Of the
    options only LOSS_OPTIONS are read.
    """
    network, missing = load_pretrained(
        import_transformers().Mask2FormerForUniversalSegmentation,
        pretrained,
        key=f"{KEY}.PRETRAINED",
        num_labels=num_classes,
        ignore_mismatched_sizes=True,
        **{key: value for key, value in options.items() if key in LOSS_OPTIONS},
    )
    missing = [key for key in missing if not key.startswith(("class_predictor.", "criterion."))]
    if missing:
        raise ValueError(
            f"{KEY}.PRETRAINED {pretrained!r} lacks {len(missing)} tensors, such as "
            f"{min(missing)}: it is no complete Mask2FormerForUniversalSegmentation"
        )
    return network.float()

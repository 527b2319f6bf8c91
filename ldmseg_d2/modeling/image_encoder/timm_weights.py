"""timm's models with weights from a local file, or from the hub that timm takes them from."""

from functools import partial
from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from torch import nn

from ..from_hub import load_from_hub
from ..weights import load_weights

OPTION = "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED"
# The value of PRETRAINED that takes timm's own weights of MODEL_NAME.
HUB = "hub"
FILE_NAME = "model.safetensors"


def create_timm_model(model_name: str, pretrained: str, **kwargs) -> nn.Module:
    """``timm.create_model`` with weights from a place of the user's choice.

    `pretrained` is "": random weights; "hub": timm's own weights of that name (their copy in the
    local cache first); else a local file (.safetensors, or .pth without pickled objects), or a
    folder with a model.safetensors.

    Raises:
        ValueError: timm has no such model, or the file's weights are not this model's.
        FileNotFoundError: no such file, or the hub is out of reach.
    """
    if not timm.is_model(model_name):
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.MODEL_NAME: timm {timm.__version__} has no model "
            f"{model_name!r}; see timm.list_models()"
        )
    if not pretrained:
        return timm.create_model(model_name, pretrained=False, **kwargs)
    path = _weights_file(model_name, pretrained)
    state, problem = load_weights(path), f"{OPTION}: {path} has not the weights of {model_name}"
    # timm resamples position embeddings and renames the keys of the authors' own files.
    overlay = {"state_dict": dict(state)}
    try:
        model = timm.create_model(
            model_name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
        )
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{problem}: {error}") from error
    # Where timm drops a classifier it ignores missing weights too: a wrong file would go unnoticed.
    if kwargs.get("features_only") or model.pretrained_cfg["num_classes"] != model.num_classes:
        # `features_only` flattens names ("stages.0" -> "stages_0") or puts "model." before them.
        given = {key.replace(".", "_") for key in state}
        own = [key.removeprefix("model.") for key, _ in model.named_parameters()]
        missing = [key for key in own if key.replace(".", "_") not in given]
        if missing:
            raise ValueError(
                f"{problem}: {len(missing)} of {len(own)} are missing, such as {missing[0]}"
            )
    for module in model.modules():  # else the file's tensors would stay in memory
        if isinstance(getattr(module, "pretrained_cfg", None), dict):
            module.pretrained_cfg["state_dict"] = None
    return model


def _weights_file(model_name: str, pretrained: str) -> str:
    """Path of the weights that ``PRETRAINED`` means, downloaded where it is "hub"."""
    if pretrained == HUB:
        published = timm.get_pretrained_cfg(model_name)
        if not published.hf_hub_id:
            raise ValueError(f"{OPTION} {HUB!r}: timm has no weights of {model_name} on the hub")
        name = published.hf_hub_filename or FILE_NAME
        download = partial(hf_hub_download, filename=name)
        return load_from_hub(download, published.hf_hub_id, key=OPTION, files=name)
    path = Path(pretrained).expanduser()
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{OPTION} {pretrained!r}: there is no file {path}. Allowed: {HUB!r} (timm's own "
            f"weights of MODEL_NAME), a local file, a folder with a {FILE_NAME}, or '' for random "
            "weights"
        )
    return str(path)

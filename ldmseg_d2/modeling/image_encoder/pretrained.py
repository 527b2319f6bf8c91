"""Pretrained parts of image encoders: a local file or folder, or a model hub that answers."""

import functools
import logging
from pathlib import Path

import timm
import torch
from diffusers import ModelMixin
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from ..from_hub import is_reachable
from ..weights import load_weights

logger = logging.getLogger(__name__)

OPTION = "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED"
# The value of PRETRAINED that takes timm's own weights of MODEL_NAME.
HUB = "hub"
# In timm's folders, the preferred one first.
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")


def load_diffusers_model(
    model_class: type[ModelMixin], source: str, *, subfolder: str
) -> ModelMixin:
    """Load a network that diffusers' ``save_pretrained`` wrote; every weight must be there.

    Args:
        model_class: such as AutoencoderKL.
        source: a local folder, or the id of a repository on the hub (its copy in the local cache
            first, so that a run needs no network after the first one).
        subfolder: where in it the network lies; a local folder may also be the network's own.

    Raises:
        FileNotFoundError: the folder or repository has no such network, or the hub is out of reach.
        ValueError: the file lacks weights.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / subfolder / "config.json").is_file():
            if not (folder / "config.json").is_file():
                raise FileNotFoundError(
                    f"{OPTION} {source!r}: neither the folder nor its subfolder {subfolder!r} has "
                    f"a config.json; {model_class.__name__}.save_pretrained writes one"
                )
            subfolder = ""
        source = str(folder)
    elif source.startswith(("/", ".", "~")) or source.count("/") > 1:  # no id of the hub
        raise FileNotFoundError(f"{OPTION} {source!r}: there is no such folder")
    load = functools.partial(
        model_class.from_pretrained,
        source,
        subfolder=subfolder or None,
        torch_dtype=torch.float32,
        low_cpu_mem_usage=False,
        output_loading_info=True,
    )
    try:
        model, info = load(local_files_only=True)
    except OSError as error:
        if folder.is_dir():
            raise FileNotFoundError(f"{OPTION} {source!r} cannot be loaded: {error}") from error
        _require_hub(source, f"a local folder that {model_class.__name__}.save_pretrained wrote")
        model, info = load(local_files_only=False)
    if info["missing_keys"]:
        raise ValueError(
            f"{OPTION} {source!r} lacks weights of {model_class.__name__}: "
            f"{', '.join(sorted(info['missing_keys'])[:8])}"
        )
    return model


def create_timm_model(model_name: str, pretrained: bool | str, **kwargs) -> nn.Module:
    """``timm.create_model`` with weights from a place of the user's choice.

    Args:
        model_name: timm's name, with or without the tag of its weights.
        pretrained: "" or False: random weights. "hub" or True: timm's own weights of that name
            (their copy in the local cache first). Else a local file (.safetensors, or .pth without
            pickled objects), or a folder with a model.safetensors or pytorch_model.bin.
        kwargs: of ``timm.create_model``.

    Raises:
        ValueError: timm has no such model, or the file's weights are not this model's.
        FileNotFoundError: no such file, or the hub is out of reach.
    """
    if not timm.is_model(model_name):
        near = ", ".join(timm.list_models(f"*{model_name.split('.')[0]}*")[:8])
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.MODEL_NAME: timm {timm.__version__} has no model "
            f"{model_name!r}" + (f"; it has {near}" if near else "; see timm.list_models()")
        )
    if not pretrained:
        return timm.create_model(model_name, pretrained=False, **kwargs)
    if pretrained in (True, HUB):
        path = _cached_timm_weights(model_name)
        if path is None:
            _require_hub(f"timm/{model_name}", "a local file of weights in timm's format")
            return timm.create_model(model_name, pretrained=True, **kwargs)
    else:
        path = _timm_file(pretrained)
    state = load_weights(str(path))
    # timm resamples position embeddings and renames the keys of the authors' own files.
    try:
        model = timm.create_model(
            model_name,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": dict(state)},
            **kwargs,
        )
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{OPTION}: {path} has not the weights of {model_name}: {error}"
        ) from error
    # Where timm drops a classifier it ignores missing weights too: a wrong file would go unnoticed.
    if kwargs.get("features_only") or model.pretrained_cfg["num_classes"] != model.num_classes:
        _check_all_loaded(model, state, model_name, str(path))
    for module in model.modules():  # else the file's tensors would stay in memory
        if isinstance(getattr(module, "pretrained_cfg", None), dict):
            module.pretrained_cfg["state_dict"] = None
    return model


def _check_all_loaded(
    model: nn.Module, state: dict[str, Tensor], model_name: str, path: str
) -> None:
    """
    Raises:
        ValueError: a weight of the model is not in the file, which must be in timm's own format.
    """
    # `features_only` flattens names ("stages.0" -> "stages_0") or puts "model." before them.
    given = {key.replace(".", "_") for key in state}
    own = [key.removeprefix("model.") for key, _ in model.named_parameters()]
    missing = [key for key in own if key.replace(".", "_") not in given]
    if missing:
        raise ValueError(
            f"{OPTION}: {path} has not the weights of {model_name}: {len(missing)} of "
            f"{len(own)} are missing, such as {', '.join(missing[:4])}"
        )


def _timm_file(pretrained: str) -> Path:
    path = Path(pretrained).expanduser()
    if path.is_dir():
        for name in TIMM_FILES:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"{OPTION} {pretrained!r} is a folder without {TIMM_FILES[0]}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{OPTION} {pretrained!r}: there is no such file or folder. Allowed: {HUB!r} (timm's "
            "own weights of MODEL_NAME), a local file or folder, or '' for random weights"
        )
    return path


def _cached_timm_weights(model_name: str) -> str | None:
    """Path of timm's weights in the local cache of the hub, if they are there."""
    repository = timm.get_pretrained_cfg(model_name).hf_hub_id
    if not repository:
        return None
    found = (try_to_load_from_cache(repository, name) for name in TIMM_FILES)
    return next((path for path in found if isinstance(path, str)), None)


def _require_hub(what: str, alternative: str) -> None:
    """Check before a download: the hub's client repeats a failed one for half a minute.

    Raises:
        FileNotFoundError: the hub does not answer.
    """
    if hub.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif not is_reachable(hub.ENDPOINT):
        reason = f"{hub.ENDPOINT} cannot be reached"
    else:
        logger.info("Downloading %s from %s", what, hub.ENDPOINT)
        return
    raise FileNotFoundError(
        f"{OPTION}: {what} is neither a local folder nor in the hub's local cache, and {reason}. "
        f"Set {OPTION} to {alternative}, copied from a machine that has it, or to '' for random "
        "weights"
    )

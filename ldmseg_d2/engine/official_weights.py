"""The published LDMSeg checkpoints: read without pickle, checked, renamed to our state-dict keys.

Two formats are known, both dicts of state dicts, whose keys may start with ``module.``:

* an autoencoder file with ``vae``, the mask autoencoder;
* a diffusion file with ``vae_semseg`` (the mask autoencoder), ``unet``, and ``vae_image`` (Stable
  Diffusion's AutoencoderKL, of which only the encoder is used).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ldmseg_d2.modeling.weights import NeedsPickleError, check_fits, read_checkpoint

from .analysis import build_without_weights
from .config_reader import load_config

DEFAULT_CONFIG = "configs/coco/ldmseg_official.yaml"
# Part of a published file -> prefix of its keys in our models.
AUTOENCODER_PARTS = {"vae": "autoencoder."}
DIFFUSION_PARTS = {
    "vae_semseg": "autoencoder.",
    "unet": "denoiser.unet.",
    "vae_image": "image_encoder.vae.",
}
# Of Stable Diffusion's VAE the photo needs these only.
IMAGE_ENCODER_KEYS = ("encoder.", "quant_conv.")
# diffusers renamed the attention of its VAE in version 0.15; published files are older.
OLD_ATTENTION_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}

PICKLE_HELP = """\
If you trust where {path!r} comes from, write its tensors alone to a new file, in a container or \
on a machine with nothing to lose:
  python -c "import torch; c = torch.load({path!r}, map_location='cpu', weights_only=False); \
torch.save({{k: v for k, v in c.items() if k in {parts}}}, 'tensors.pt')"
Then convert tensors.pt."""


def convert_official_weights(
    source: str,
    output: str | Path,
    *,
    config_file: str = DEFAULT_CONFIG,
    opts: Sequence[str] = (),
    skip_unknown: bool = False,
) -> list[str]:
    """Convert a published checkpoint to a safetensors file.

    A converted autoencoder serves as ``MODEL.LDMSEG.AUTOENCODER.WEIGHTS`` and as ``MODEL.WEIGHTS``
    of LDMSegAutoencoder; a converted diffusion file, which holds the frozen networks as well,
    serves as ``MODEL.WEIGHTS`` of LDMSeg.

    Args:
        output: ends in ``.safetensors``; its folder is made if need be.
        config_file, opts: the model whose names and shapes the tensors must have.
        skip_unknown: leave out tensors that this model has no place for, instead of an error.

    Returns:
        What was mapped and what was left out, a line each.

    Raises:
        FileNotFoundError: there is no such file or config.
        ValueError: the file is none of the two formats, needs pickle, or does not fit the model.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"The output must end in .safetensors, got {str(output)!r}.")
    content = read_parts(source)
    prefixes = choose_format(content, source)
    model = build_without_weights(load_config(config_file, opts))
    weights: dict[str, Tensor] = {}
    report, problems = [], []
    for name, prefix in prefixes.items():
        try:
            network = model.get_submodule(prefix[:-1])
        except AttributeError as error:
            raise ValueError(
                f"The config's model has no {prefix[:-1]}: the published vae_image needs "
                "MODEL.LDMSEG.IMAGE_ENCODER.NAME 'VAEImageEncoder'."
            ) from error
        state = our_names(name, content[name])
        if skip_unknown:
            known = network.state_dict()
            state = {key: value for key, value in state.items() if key in known}
        try:
            check_fits(network, state, source=f"{source}, part {name}")
        except ValueError as error:
            problems.append(str(error))
        # Copies, since safetensors refuses tensors that share memory.
        weights |= {f"{prefix}{key}": value.clone().contiguous() for key, value in state.items()}
        millions = sum(value.numel() for value in state.values()) / 1e6
        report.append(
            f"{name} -> {prefix}*: {len(state)} of {len(content[name])} tensors, "
            f"{millions:.2f}M values"
        )
    if problems:
        raise ValueError("\n".join(problems))
    output.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "source": Path(source).name, "parts": ", ".join(prefixes)}
    save_file(weights, output, metadata=metadata)
    ignored = sorted(set(content) - set(prefixes))
    return [*report, *([f"not looked at: {', '.join(ignored)}"] if ignored else [])]


def read_parts(path: str) -> dict[str, Any]:
    """The entries of a published file, without ``module.``; NeedsPickleError says what to do."""
    try:
        checkpoint = read_checkpoint(path)
    except NeedsPickleError as error:
        parts = (*AUTOENCODER_PARTS, *DIFFUSION_PARTS)
        raise NeedsPickleError(f"{error}\n{PICKLE_HELP.format(path=path, parts=parts)}") from error
    # read_checkpoint puts files that are no training checkpoints under "model".
    entries = checkpoint["model"] if set(checkpoint) == {"model"} else checkpoint
    return {str(key).removeprefix("module."): value for key, value in entries.items()}


def choose_format(content: dict[str, Any], source: str) -> dict[str, str]:
    """AUTOENCODER_PARTS or DIFFUSION_PARTS; ValueError where parts are missing."""
    known = [name for name in (*AUTOENCODER_PARTS, *DIFFUSION_PARTS) if name in content]
    prefixes = AUTOENCODER_PARTS if known == list(AUTOENCODER_PARTS) else DIFFUSION_PARTS
    missing = [name for name in prefixes if name not in content]
    if missing:
        raise ValueError(
            f"{source!r} is no published LDMSeg checkpoint: an autoencoder file has 'vae', a "
            f"diffusion file has {', '.join(map(repr, DIFFUSION_PARTS))}; this one lacks "
            f"{', '.join(map(repr, missing))} and has {', '.join(map(repr, content)) or 'nothing'}"
        )
    return prefixes


def our_names(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One published state dict as our network calls its keys, without what we have no use for."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if part == "unet":
        return _without_second_name(state)
    if part != "vae_image":
        return state
    renamed = {}
    for key, value in state.items():
        for old, new in OLD_ATTENTION_NAMES.items():
            key = key.replace(old, new) if ".attentions." in key else key
        if key.startswith(IMAGE_ENCODER_KEYS):
            renamed[key] = value
    return renamed


def _without_second_name(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's tensors without ``new_conv``, under which its input conv was saved once more.

    Raises ValueError where the two differ: it is not known then which one was used.
    """
    for key in [key for key in state if key.startswith("new_conv.")]:
        own = key.replace("new_conv.", "conv_in.")
        if own not in state or not state[key].equal(state[own]):
            raise ValueError(
                f"part unet: {key} should be {own} under a second name, but differs from it: this "
                "file was not written by the method's first implementation as it is published"
            )
        del state[key]
    return state

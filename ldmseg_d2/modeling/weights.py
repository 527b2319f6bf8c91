"""Reading and loading weight files: strict, without pickle, with errors that say what to do."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# Keys listed per kind of mismatch before the error message says "and N more".
MAX_KEYS_SHOWN = 8


class NeedsPickleError(ValueError):
    """The file cannot be read without running whatever code it names."""


def load_weights(path: str, *, prefer_ema: bool = True) -> dict[str, Tensor]:
    """The weights of one network, see :func:`read_checkpoint` and :func:`select_weights`."""
    return select_weights(read_checkpoint(path), source=path, prefer_ema=prefer_ema)


def read_checkpoint(path: str) -> dict[str, Any]:
    """All that a ``.safetensors`` or ``torch.save`` file holds, on the CPU.

    A training checkpoint is as it was saved (``model``, ``ema``, ``trainer``, ``iteration``), bare
    weights are ``{"model": state_dict}``. Detectron2's ``PathManager`` resolves the path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged; NeedsPickleError: it is not made of tensors and plain
            values alone.
    """
    local_path = Path(PathManager.get_local_path(path))
    if not local_path.is_file():
        raise FileNotFoundError(f"No weights at {path!r}: there is no such file.")
    try:
        if local_path.suffix == ".safetensors":
            return {"model": load_file(local_path)}
        content = torch.load(local_path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NeedsPickleError(
            f"{path!r} is not a plain torch checkpoint: it needs pickle, which can run any code, "
            "or it is another kind of file. Convert it to .safetensors where it comes from. "
            f"torch.load(weights_only=True) says: {str(error).splitlines()[0]}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{path!r} cannot be read; was its copy or download cut short? ({error})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path!r} holds a {type(content).__name__}, not a dict of weights.")
    return content if "model" in content or "ema" in content else {"model": content}


def select_weights(
    checkpoint: dict[str, Any], *, source: str, prefer_ema: bool = True
) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` returned, by state-dict key.

    The averaged ones, where there are any and `prefer_ema`; ValueError, which names the `source`,
    where something else than tensors is found.
    """
    if "ema" in checkpoint and (prefer_ema or "model" not in checkpoint):
        state = checkpoint["ema"].get("model", checkpoint["ema"])
    else:
        state = checkpoint["model"]
    # torch's AveragedModel keeps its counter beside the weights.
    state = {key: value for key, value in state.items() if key != "n_averaged"}
    strangers = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strangers or not state:
        found = f"{strangers[0]!r} is no tensor" if strangers else "it is empty"
        raise ValueError(f"{source!r} holds no weights of a network: {found}.")
    if all(key.startswith("module.") for key in state):  # DistributedDataParallel's
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def load_into(
    module: nn.Module,
    state: dict[str, Tensor],
    *,
    source: str,
    ignore_missing: tuple[str, ...] = (),
) -> None:
    """Copy weights into a network, in place and only if all fit, see :func:`check_fits`."""
    check_fits(module, state, source=source, ignore_missing=ignore_missing)
    module.load_state_dict(state, strict=False)


def check_fits(
    module: nn.Module,
    state: dict[str, Tensor],
    *,
    source: str,
    ignore_missing: tuple[str, ...] = (),
) -> None:
    """Check that weights are those of a network: every key and every shape.

    Keys under a prefix of `ignore_missing`, such as ``"autoencoder."``, may be missing all at once.
    ValueError, which names the `source`, lists keys that are missing, unknown or of another shape.
    """
    ignored = tuple(p for p in ignore_missing if not any(k.startswith(p) for k in state))
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    missing = [k for k in own if k not in given and not k.startswith(ignored)]
    wrong = [k for k in given if given[k] != own.get(k, given[k])]
    problems = {
        "missing": [f"{k} {own[k]}" for k in missing],
        "not in the model": [f"{k} {given[k]}" for k in given if k not in own],
        "of another shape": [f"{k} {given[k]}, the model has {own[k]}" for k in wrong],
    }
    lines = []
    for kind, keys in problems.items():
        if keys:
            lines += [f"  {len(keys)} {kind}:", *(f"    {key}" for key in keys[:MAX_KEYS_SHOWN])]
        if len(keys) > MAX_KEYS_SHOWN:
            lines.append(f"    and {len(keys) - MAX_KEYS_SHOWN} more")
    if lines:
        raise ValueError(
            f"The weights in {source!r} do not fit the {type(module).__name__}: "
            "does the config match the checkpoint?\n" + "\n".join(lines)
        )


def without_prefixes(state: dict[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """Leave out the keys that start with one of `prefixes`."""
    return {key: value for key, value in state.items() if not key.startswith(tuple(prefixes))}

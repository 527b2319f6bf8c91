"""Pretrained models from a local folder, or by their id on the Hugging Face hub."""

import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants as hub
from torch import nn

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
# Seconds to decide whether the hub can be reached; its own client retries for half a minute.
HUB_TIMEOUT = 3.0

T = TypeVar("T")


def load_pretrained(
    model_class: Any, pretrained: str, *, key: str, subfolder: str = "", **options: Any
) -> tuple[nn.Module, list[str]]:
    """A network that ``save_pretrained`` of diffusers or transformers wrote, on the CPU.

    Args:
        pretrained: a local folder, or the id of a repository on the hub (``owner/name``), which is
            looked up in the local cache first; the config's `key` names it.
        subfolder: where in it the network lies; a local folder may also be the network's own.

    Returns:
        The network, and the names of the weights that the file lacks.

    Raises:
        FileNotFoundError: no such folder, or the hub's repository cannot be had.
        ValueError: the folder's files cannot be loaded.
    """
    load = partial(model_class.from_pretrained, output_loading_info=True, **options)
    root = Path(pretrained).expanduser()
    if root.is_dir():
        folders = [f for f in (root / subfolder, root) if (f / CONFIG_NAME).is_file()]
        if not folders:
            raise FileNotFoundError(
                f"{key} {pretrained!r}: neither the folder nor its subfolder {subfolder!r} has a "
                f"{CONFIG_NAME}; {model_class.__name__}.save_pretrained writes one"
            )
        try:
            network, info = load(str(folders[0]), local_files_only=True)
        except Exception as error:  # these libraries raise whatever their parts do
            raise ValueError(
                f"{key}: {folders[0]} holds no {model_class.__name__} that can be loaded: {error}"
            ) from error
    else:
        # The hub's ids are "name" or "owner/name".
        if pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
            raise FileNotFoundError(f"{key} {pretrained!r}: there is no such folder")
        files = f"{Path(subfolder) / CONFIG_NAME} and the .safetensors beside it"
        load = partial(load, subfolder=subfolder)
        network, info = load_from_hub(load, pretrained, key=key, files=files)
    logger.info("%s from %s", model_class.__name__, pretrained)
    return network, list(info["missing_keys"])


def load_from_hub(load: Callable[..., T], repository: str, *, key: str, files: str) -> T:
    """From the hub's cache, else from the hub, else FileNotFoundError that says what to do instead.

    `load` is a library's function, of the repository and ``local_files_only``; the config's `key`
    names the repository, and a folder in its place would have `files`.
    """
    try:
        return load(repository, local_files_only=True)
    except Exception as error:  # not in the cache, or only half of it
        cause: Exception = error
    if hub.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set and it is not in the local cache"
    elif not is_reachable(hub.ENDPOINT):
        reason = f"it is not in the local cache and {hub.ENDPOINT} cannot be reached"
    else:
        logger.info("Downloading %s from %s", repository, hub.ENDPOINT)
        try:
            return load(repository)
        except Exception as error:
            cause, reason = error, str(error).splitlines()[0]
    raise FileNotFoundError(
        f"{key} {repository!r} is no local folder, and as an id on the Hugging Face hub it cannot "
        f"be loaded: {reason}. Without network, copy the repository from a machine that has it and "
        f"give the local folder instead, the one that contains {files}"
    ) from cause


def is_reachable(url: str) -> bool:
    """Whether any answer comes from ``url`` within HUB_TIMEOUT; honours proxy variables."""
    try:
        urllib.request.urlopen(url, timeout=HUB_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True  # an answer as well
    except (OSError, ValueError):
        return False
    return True

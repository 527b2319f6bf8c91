"""Pretrained models by their id on the Hugging Face hub; without a network, one clear error."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from huggingface_hub import constants as hub
from torch import nn

# Seconds to decide whether the hub can be reached; its own client retries for half a minute.
HUB_TIMEOUT = 3.0


def load_from_hub(
    load: Callable[..., tuple[nn.Module, dict[str, Any]]], repository: str, *, key: str, files: str
) -> tuple[nn.Module, dict[str, Any]]:
    """From the hub's cache, else from the hub, else one error that says what to do instead.

    Args:
        load: a library's ``from_pretrained`` with ``output_loading_info``; takes the repository and
            ``local_files_only``.
        repository: ``owner/name``.
        key: of the config, that names the repository.
        files: that a folder in its place would have.

    Raises:
        FileNotFoundError: it cannot be had.
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
        try:
            return load(repository)
        except Exception as error:
            cause, reason = error, str(error).splitlines()[0]
    raise FileNotFoundError(
        f"{key} {repository!r} is no local folder, and as an id on the Hugging Face hub it cannot "
        f"be loaded: {reason}. Without network, copy the repository from a machine that has it and "
        f"give the local folder instead, the one that contains {files}"
    ) from cause


def is_reachable(url: str, timeout: float = HUB_TIMEOUT) -> bool:
    """Whether any answer comes from ``url`` within ``timeout`` seconds; honours proxy variables."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=timeout).close()
            answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError):
            pass

    # A thread, because no timeout limits the look-up of the name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()

"""What a frozen image encoder gives, kept on disk: later epochs read it instead of computing it."""

import contextlib
import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class LatentCache:
    """A folder of image conditions, one file for each picture as it was augmented.

    A file's name is a hash of the picture's name, of its pixels after augmentation, of the
    encoder's weights and of its settings: with random flips a picture has two files, with random
    crops more than are ever used again, and a changed encoder finds none of the old ones. Values
    are rounded to float16, also when they have just been computed, and every picture is encoded by
    itself: a training does not depend on what happens to be in the folder.
    """

    def __init__(self, folder: str, *, settings: str = "") -> None:
        """
        Args:
            folder: is made where it does not exist; several processes may share it.
            settings: whatever decides the condition besides the pixels and the encoder's weights.
        """
        self.folder = Path(folder)
        self.settings = settings
        self._fingerprint = ""

    def __call__(
        self,
        batched_inputs: Sequence[dict],
        images: Tensor,
        model: nn.Module,
    ) -> Tensor:
        """The condition of a batch.

        Args:
            batched_inputs: dicts with ``image``, uint8 (3, h, w), and perhaps ``file_name``.
            images: (B, 3, S, S), the same pictures as ``image_features`` takes them.
            model: with ``image_encoder``, whose weights name the files, and ``image_features``.

        Returns:
            (B, C', h, w) float32 on the device of `images`, without gradient.

        Raises:
            ValueError: the encoder is trained.
        """
        if not self._fingerprint:
            self._fingerprint = self._identify(model.image_encoder)
        return torch.stack(
            [
                self._get(entry, image, model.image_features)
                for entry, image in zip(batched_inputs, images, strict=True)
            ]
        )

    def _get(self, entry: dict, image: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        path = self._path(entry)
        cached = read_tensor(path)
        if cached is None:
            with torch.no_grad():
                cached = to_half(encode(image.unsqueeze(0))[0]).cpu()
            write_tensor(path, cached)
        return cached.to(image.device, torch.float32)

    def _path(self, entry: dict) -> Path:
        pixels = entry["image"].cpu().contiguous()
        key = hashlib.sha1(f"{entry.get('file_name', '')}/{tuple(pixels.shape)}".encode())
        key.update(pixels.numpy())
        name = key.hexdigest()
        # Folders of at most some thousand files.
        return self.folder / self._fingerprint / name[:2] / f"{name[2:]}.safetensors"

    def _identify(self, encoder: nn.Module) -> str:
        trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
        if trained or encoder.training:
            raise ValueError(
                "MODEL.LDMSEG.IMAGE_ENCODER.CACHE_DIR needs an image encoder that is frozen as a "
                f"whole, but {type(encoder).__name__} is trained"
                + (f" ({trained[0]} and {len(trained) - 1} more)" if trained else "")
                + ": set CACHE_DIR to '' or FREEZE to True"
            )
        digest = hashlib.sha1(f"{type(encoder).__name__}/{self.settings}".encode())
        for name, value in encoder.state_dict().items():
            digest.update(f"{name}/{value.dtype}/{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        fingerprint = digest.hexdigest()[:16]
        logger.info("Image conditions are cached in %s.", self.folder / fingerprint)
        return fingerprint


def build_latent_cache(cfg: CfgNode) -> LatentCache | None:
    """The cache of ``MODEL.LDMSEG.IMAGE_ENCODER.CACHE_DIR``; None where that is empty.

    Raises:
        ValueError: the image encoder is not frozen.
    """
    encoder = cfg.MODEL.LDMSEG.IMAGE_ENCODER
    if not encoder.CACHE_DIR:
        return None
    if not encoder.FREEZE:
        raise ValueError(
            "MODEL.LDMSEG.IMAGE_ENCODER.CACHE_DIR is set, but FREEZE is False: only what a frozen "
            "image encoder gives can be kept"
        )
    node = encoder.clone()
    node.defrost()
    node.CACHE_DIR = ""
    parts = (
        node.dump(),
        cfg.INPUT.LDMSEG.IMAGE_SIZE,
        cfg.MODEL.PIXEL_MEAN,
        cfg.MODEL.PIXEL_STD,
        cfg.MODEL.LDMSEG.AUTOENCODER.DOWNSAMPLE_FACTOR,
        cfg.MODEL.LDMSEG.DENOISER.get("CONDITIONING", "concat"),
    )
    return LatentCache(encoder.CACHE_DIR, settings="/".join(map(str, parts)))


def to_half(values: Tensor) -> Tensor:
    """float16, or float32 where the values are too large for it."""
    half = values.detach().to(torch.float16)
    return half if half.isfinite().all() else values.detach().float()


def write_tensor(path: Path, values: Tensor) -> None:
    """Write a CPU tensor and its checksum, all of it or nothing.

    A full disk is no reason to end a training: then a warning is logged and nothing is kept.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    values = values.contiguous()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"condition": values}, temporary, metadata={"crc32": _checksum(values)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        logger.warning("Cannot write %s: %s", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_tensor(path: Path) -> Tensor | None:
    """What :func:`write_tensor` wrote; None where there is no such file, or a damaged one."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            values, expected = file.get_tensor("condition"), (file.metadata() or {}).get("crc32")
        if _checksum(values) == expected:
            return values
        error = "its checksum differs"
    except (SafetensorError, OSError) as caught:
        error = str(caught)
    logger.warning("%s is damaged (%s) and will be made again.", path, error)
    return None


def _checksum(values: Tensor) -> str:
    return str(zlib.crc32(values.contiguous().view(torch.uint8).numpy()))

"""Geometric augmentations of photos and their annotations, made of Detectron2's transforms."""

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

RESIZE_MODES = ("square", "longest_side", "large_scale_jitter")
# Of photos; annotations are resized by nearest neighbour.
INTERPOLATIONS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
FLIPS = ("horizontal", "vertical", "none")


class ResizeLongestSide(T.Augmentation):
    """Resizes so that the longer side becomes `size` pixels times a random scale.

    `T.ResizeScale` does the same, but rounds the shorter side of a long, thin picture to 0 pixels.
    The scale is drawn uniformly from `scale_range`; (1, 1) draws no random number.
    """

    def __init__(
        self,
        size: int,
        scale_range: tuple[float, float] = (1.0, 1.0),
        interp: int = Image.BILINEAR,
    ):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        low, high = self.scale_range
        longest = self.size * (low if low == high else self._rand_range(low, high))
        h, w = image.shape[:2]
        new_h, new_w = (max(1, round(side * longest / max(h, w))) for side in (h, w))
        return T.ResizeTransform(h, w, new_h, new_w, self.interp)


def build_augmentations(
    *,
    image_size: int,
    resize: str,
    jitter_scale: tuple[float, float],
    random_flip: str,
    is_train: bool,
    train_size: int = 0,
    interpolation: str = "bilinear",
) -> list[T.Augmentation]:
    """Builds Detectron2 augmentations whose result is at most image_size x image_size.

    The arguments are the keys of the same names in `config/data_keys.py`; False for `is_train`
    leaves out whatever is random.
    """
    if resize not in RESIZE_MODES:
        raise ValueError(f"INPUT.LDMSEG.RESIZE is {resize!r}, allowed are {RESIZE_MODES}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"INPUT.LDMSEG.INTERPOLATION is {interpolation!r}, allowed are {tuple(INTERPOLATIONS)}"
        )
    if random_flip not in FLIPS:
        raise ValueError(f"INPUT.RANDOM_FLIP is {random_flip!r}, allowed are {FLIPS}")
    crop = train_size or image_size
    if crop > image_size or (crop < image_size and resize != "large_scale_jitter"):
        raise ValueError(
            f"INPUT.LDMSEG.TRAIN_SIZE {train_size} is for random crops: it must be at most "
            f"INPUT.LDMSEG.IMAGE_SIZE {image_size}, and needs INPUT.LDMSEG.RESIZE "
            f"'large_scale_jitter', which is {resize!r}"
        )
    interp = INTERPOLATIONS[interpolation]
    augmentations: list[T.Augmentation] = []
    if resize == "square":
        augmentations.append(T.Resize((image_size, image_size), interp))
    elif resize == "large_scale_jitter" and is_train:
        augmentations.append(ResizeLongestSide(image_size, tuple(jitter_scale), interp))
        # Not T.FixedSizeCrop: it draws one number for both offsets, so that its crops lie on the
        # diagonal, and it pads segmentations with 255. RandomCrop keeps smaller sides as they are.
        augmentations.append(T.RandomCrop("absolute", (crop, crop)))
    else:
        augmentations.append(ResizeLongestSide(image_size, interp=interp))
    if is_train and random_flip != "none":
        vertical = random_flip == "vertical"
        augmentations.append(T.RandomFlip(horizontal=not vertical, vertical=vertical))
    return augmentations

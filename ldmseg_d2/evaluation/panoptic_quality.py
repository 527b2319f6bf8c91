"""What the panoptic evaluators share: id PNGs, and the calls of panopticapi.

It is the reference implementation of panoptic quality (Kirillov et al., arXiv 1801.00868):
https://github.com/cocodataset/panopticapi
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from panopticapi.evaluation import PQStat, pq_compute_multi_core, pq_compute_single_core
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image

# An id PNG holds id = R + 256 G + 65536 B.
MAX_ID = 2**24 - 1
# panopticapi needs about 0.2 s a megapixel and core; starting its pool of processes costs a second.
_POOL_FROM_PIXELS = 30_000_000


def encode_id_map(ids: np.ndarray) -> bytes:
    """An id map (H, W) as the bytes of an RGB PNG; ValueError unless ids are in 0..2^24 - 1."""
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_ID:
        raise ValueError(f"segment ids {ids.min()}..{ids.max()}: allowed are 0 (void)..{MAX_ID}")
    out = io.BytesIO()
    # Level 1 is three times faster than the default; id maps compress well at any level.
    Image.fromarray(id2rgb(ids)).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def decode_id_map(png: bytes) -> np.ndarray:
    """Undo :func:`encode_id_map`: (H, W) int64."""
    return rgb2id(np.asarray(Image.open(io.BytesIO(png)))).astype(np.int64)


def compute_stat(
    annotation_pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    gt_folder: str,
    pred_folder: str,
    categories: dict[int, dict[str, Any]],
    num_pixels: int,
) -> PQStat:
    """Count matches with panopticapi, whose progress is not printed.

    Pairs are each image's ground truth and prediction, in COCO panoptic format; categories are by
    id; the number of all pixels decides whether a pool of processes is worth its start.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        if num_pixels < _POOL_FROM_PIXELS:
            return pq_compute_single_core(0, annotation_pairs, gt_folder, pred_folder, categories)
        return pq_compute_multi_core(annotation_pairs, gt_folder, pred_folder, categories)


def average_quality(
    stat: PQStat, categories: dict[int, dict[str, Any]], isthing: bool | None = None
) -> dict[str, float]:
    """PQ, SQ and RQ in percent: panopticapi's average, but 0 where no category occurs."""
    try:
        found, _ = stat.pq_average(categories, isthing)
    except ZeroDivisionError:
        found = dict.fromkeys(("pq", "sq", "rq"), 0.0)
    return {key: 100 * float(found[key.lower()]) for key in ("PQ", "SQ", "RQ")}

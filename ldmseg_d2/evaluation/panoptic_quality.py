"""What the panoptic evaluators share: id PNGs, the call of panopticapi, and its averages.

Numbers come from panopticapi, the reference implementation of panoptic quality (Kirillov et al.,
arXiv 1801.00868): https://github.com/cocodataset/panopticapi
"""

import contextlib
import io
import os
from collections.abc import Iterable, Sequence
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
    """Encode an id map (H, W) of integers in 0..2^24 - 1, 0 is void, as the bytes of an RGB PNG.

    Raises:
        ValueError: if an id is outside that range.
    """
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_ID:
        raise ValueError(
            f"segment ids {int(ids.min())}..{int(ids.max())} do not fit an id PNG; allowed are "
            f"0 (void)..{MAX_ID}"
        )
    with io.BytesIO() as out:
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
    """Count matches with panopticapi, which prints its progress: that is dropped here.

    Args:
        annotation_pairs: (ground truth, prediction) of each image, in COCO panoptic format.
        gt_folder, pred_folder: folders of the id PNGs that the annotations name.
        categories: COCO categories by id.
        num_pixels: pixels of all images; decides whether a pool of processes is worth its start.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        if num_pixels < _POOL_FROM_PIXELS or (os.cpu_count() or 1) < 2:
            return pq_compute_single_core(0, annotation_pairs, gt_folder, pred_folder, categories)
        return pq_compute_multi_core(annotation_pairs, gt_folder, pred_folder, categories)


def average_quality(stat: PQStat, category_ids: Iterable[int]) -> dict[str, float]:
    """PQ, SQ and RQ in percent, averaged over the ``n`` categories that occur.

    As panopticapi's ``PQStat.pq_average``, which divides by zero where no category occurs: that
    is 0 here.
    """
    qualities = []
    for category_id in category_ids:
        sums = stat[category_id]
        denominator = sums.tp + 0.5 * sums.fp + 0.5 * sums.fn
        if denominator > 0:
            sq = float(sums.iou) / sums.tp if sums.tp else 0.0
            qualities.append((float(sums.iou) / denominator, sq, sums.tp / denominator))
    if not qualities:
        return {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 0}
    pq, sq, rq = 100 * np.mean(qualities, axis=0)
    return {"PQ": float(pq), "SQ": float(sq), "RQ": float(rq), "n": len(qualities)}

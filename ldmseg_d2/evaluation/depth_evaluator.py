"""Depth: the usual error measures, with or without alignment to the ground truth."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator

from ..data import load_dataset_dicts
from ..data.annotations import read_gray_png
from .gather import gather_by_image

ALIGNMENTS = ("none", "scale_and_shift")
# Metres: ground truth below is invalid, aligned predictions are clipped to it, since the measures
# need them above 0.
LEAST = 1e-3
METRICS = ("AbsRel", "RMSE", "delta1", "delta2", "delta3", "SILog")


def align_depth(
    prediction: np.ndarray, depth: np.ndarray, valid: np.ndarray, alignment: str
) -> np.ndarray:
    """Bring one image's prediction to the ground truth's scale, as the valid pixels say.

    Args:
        prediction, depth: (H, W) float64, of any scale and metres.
        valid: (H, W) bool with at least one pixel: where ``depth`` counts.
        alignment: "none"; "scale_and_shift": ``s * prediction + t`` with the least squared error
            (MiDaS, arXiv 1907.01341, equation 4; here of depth, not of its inverse).

    Returns:
        (H, W) float64; NaN where the prediction is not finite, and, aligned, everywhere where that
        is so at a valid pixel.
    """
    result = np.where(np.isfinite(prediction), prediction, np.nan)
    seen, truth = result[valid], depth[valid]
    if alignment == "none":
        return result
    if not np.isfinite(seen).all():
        return np.full_like(result, np.nan)
    columns = np.stack([seen, np.ones_like(seen)], axis=1)
    # The shortest solution where there are many, as for a constant prediction.
    scale, shift = np.linalg.lstsq(columns, truth, rcond=None)[0]
    return scale * result + shift


def depth_metrics(prediction: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """The measures of one image's (N,) metres above 0 (Eigen et al., arXiv 1406.2283, section 4.3).

    "AbsRel": mean of |p - d| / d; "RMSE": metres; "delta1" to "delta3": share of pixels in [0, 1]
    with max(p / d, d / p) < 1.25^n; "SILog": 100 x the standard deviation of log p - log d (KITTI).
    All are NaN if a prediction is not finite.
    """
    if not np.isfinite(prediction).all():
        return dict.fromkeys(METRICS, float("nan"))
    error = prediction - depth
    ratio = np.maximum(prediction / depth, depth / prediction)
    values = (
        np.mean(np.abs(error) / depth),
        np.sqrt(np.mean(error**2)),
        *(np.mean(ratio < 1.25**n) for n in (1, 2, 3)),
        100 * np.std(np.log(prediction) - np.log(depth)),
    )
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


class DepthEvaluator(DatasetEvaluator):
    """Errors of predicted depth over the pixels that have ground truth.

    Each measure is taken over an image's pixels and then averaged over images, as usual. Only
    images that were processed and have a valid pixel count. A prediction that is not finite there
    makes the averages NaN; the number of such images is among the results.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        alignment: str = "none",
        dataset_dicts: Sequence[dict[str, Any]] | None = None,
    ):
        """``dataset_dicts``: of the data set, where they have depth that it lacks itself."""
        if alignment not in ALIGNMENTS:
            raise ValueError(f"depth alignment {alignment!r}; allowed: {', '.join(ALIGNMENTS)}")
        self._alignment = alignment
        records = load_dataset_dicts([dataset_name]) if dataset_dicts is None else dataset_dicts
        self._records = {r["image_id"]: r for r in records}
        if not any("depth_file_name" in r for r in records):
            raise ValueError(
                f"no image of {dataset_name!r} has depth: dicts need 'depth_file_name' (16-bit "
                "PNG) and 'depth_scale' (its value per metre, or in the metadata)"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._entries: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take predictions: ``image_id``, and ``depth``, (H, W) at the ground truth's size."""
        for entry, output in zip(inputs, outputs):
            record = self._records[entry["image_id"]]
            if "depth_file_name" in record:
                self._entries.append(self._compare(record, output.get("depth")))

    def _compare(self, record: dict[str, Any], prediction: Any) -> dict[str, Any]:
        depth = load_depth(record)
        if prediction is None or tuple(prediction.shape) != depth.shape:
            given = "no depth" if prediction is None else f"depth of {tuple(prediction.shape)}"
            raise ValueError(
                f"the model gave {given} for image_id {record['image_id']!r}, expected "
                f"{depth.shape} as in {record['depth_file_name']}"
            )
        valid = depth >= LEAST
        metrics = None
        if valid.any():
            prediction = prediction.detach().cpu().numpy().astype(np.float64)
            aligned = np.maximum(align_depth(prediction, depth, valid, self._alignment), LEAST)
            metrics = depth_metrics(aligned[valid], depth[valid])
        return {"image_id": record["image_id"], "metrics": metrics}

    def evaluate(self) -> OrderedDict | None:
        """On the main process ``{"depth": metrics}``, else None. Call it from every process.

        Metrics are those of :func:`depth_metrics`, NaN without an image that has depth; and the
        numbers of "images" and "non_finite_images".
        """
        entries = gather_by_image(self._entries)
        if entries is None:
            return None
        measured = [e for e in entries.values() if e["metrics"] is not None]
        # By image id: the sum's rounding must not depend on the number of processes.
        measured.sort(key=lambda e: str(e["image_id"]))
        metrics = {
            name: float(np.mean([e["metrics"][name] for e in measured])) if measured else np.nan
            for name in METRICS
        }
        broken = sum(not np.isfinite(e["metrics"]["AbsRel"]) for e in measured)
        metrics.update({"images": len(measured), "non_finite_images": broken})
        return OrderedDict({"depth": metrics})


def load_depth(record: dict[str, Any]) -> np.ndarray:
    """Read one image's ground truth: (H, W) float64 metres, 0 is invalid.

    Its dict has ``depth_file_name`` and ``depth_scale``, the PNG's value per metre.
    """
    if "depth_scale" not in record:
        raise ValueError(
            f"the dataset dict of {record['depth_file_name']} has no depth_scale (the PNG's value "
            "per metre); set it there or in the data set's metadata"
        )
    return read_gray_png(record["depth_file_name"], "depth PNG") / float(record["depth_scale"])

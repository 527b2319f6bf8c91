"""Depth: the usual error measures, with or without alignment to the ground truth."""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.file_io import PathManager
from PIL import Image
from tabulate import tabulate

from ..data import load_dataset_dicts
from ..data.annotations import read_gray_png
from .gather import gather_by_image

logger = logging.getLogger(__name__)

ALIGNMENTS = ("none", "scale_and_shift", "median")
METRICS = ("AbsRel", "RMSE", "delta1", "delta2", "delta3", "SILog")


def align_depth(
    prediction: np.ndarray, depth: np.ndarray, valid: np.ndarray, alignment: str
) -> np.ndarray:
    """Bring one image's prediction to the ground truth's scale, as the valid pixels say.

    Args:
        prediction: (H, W) float64, of any scale.
        depth: (H, W) float64 metres.
        valid: (H, W) bool with at least one pixel: where ``depth`` is above 0 and counts.
        alignment: "none"; "scale_and_shift": ``s * prediction + t`` with the least squared error
            (MiDaS, arXiv 1907.01341, equation 4; here of depth, not of its inverse); "median":
            times the ratio of the medians (Zhou et al., arXiv 1704.07813, section 4.1).

    Returns:
        (H, W) float64; NaN where the prediction is not finite, and everywhere where no such scale
        exists (a valid pixel that is not finite; a median that is not above 0).
    """
    result = np.where(np.isfinite(prediction), prediction, np.nan)
    seen, truth = result[valid], depth[valid]
    if alignment == "none":
        return result
    if not np.isfinite(seen).all():
        return np.full_like(result, np.nan)
    if alignment == "median":
        median = np.median(seen)
        return result * (np.median(truth) / median if median > 0 else np.nan)
    columns = np.stack([seen, np.ones_like(seen)], axis=1)
    # The shortest solution where there are many, as for a constant prediction.
    scale, shift = np.linalg.lstsq(columns, truth, rcond=None)[0]
    return scale * result + shift


def depth_metrics(prediction: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """The measures of one image (Eigen et al. 2014, arXiv 1406.2283, section 4.3).

    Args:
        prediction: (N,) float64 metres above 0.
        depth: (N,) float64 metres above 0.

    Returns:
        "AbsRel": mean of |p - d| / d; "RMSE": metres; "delta1" to "delta3": share of pixels in
        [0, 1] with max(p / d, d / p) < 1.25^n; "SILog": 100 x the standard deviation of
        log p - log d (KITTI's). All are NaN if a prediction is not finite.
    """
    if not np.isfinite(prediction).all():
        return dict.fromkeys(METRICS, float("nan"))
    error = prediction - depth
    ratio = np.maximum(prediction / depth, depth / prediction)
    log_error = np.log(prediction) - np.log(depth)
    values = (
        np.mean(np.abs(error) / depth),
        np.sqrt(np.mean(error**2)),
        *(np.mean(ratio < 1.25**n) for n in (1, 2, 3)),
        100 * np.std(log_error),
    )
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


class DepthEvaluator(DatasetEvaluator):
    """Errors of predicted depth over the pixels that have ground truth.

    Each measure is taken over an image's pixels and then averaged over images, as usual. (Eigen et
    al. average over the pixels of all images at once; for images of one size with depth everywhere
    that is the same but for RMSE and SILog.)

    Only images that were processed, and whose dict has ``depth_file_name`` with a valid pixel, are
    evaluated. A prediction that is not finite there makes the averages NaN; the number of such
    images is among the results.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        alignment: str = "none",
        valid_range: tuple[float, float] = (1e-3, float("inf")),
        dataset_dicts: Sequence[dict[str, Any]] | None = None,
    ):
        """
        Args:
            dataset_name: a registered data set.
            output_dir: ``depth.json`` (also each image's errors) is written there, and the
                predictions, aligned, as 16-bit PNGs in ``depth/``, of the ground truth's scale.
                None: they are not kept.
            alignment: see :func:`align_depth`.
            valid_range: (least, greatest) metres: ground truth outside counts as invalid; aligned
                predictions are clipped to it, since the measures need them above 0.
            dataset_dicts: of the data set, where they have depth that it lacks itself.

        Raises:
            ValueError: if no image has depth, or for an unknown alignment or an empty range.
        """
        if alignment not in ALIGNMENTS:
            raise ValueError(f"depth alignment {alignment!r}; allowed: {', '.join(ALIGNMENTS)}")
        if not 0 < valid_range[0] < valid_range[1]:
            raise ValueError(f"valid_range is {valid_range}, expected 0 < least < greatest metres")
        self._output_dir = output_dir
        self._alignment = alignment
        self._valid_range = valid_range
        records = load_dataset_dicts([dataset_name]) if dataset_dicts is None else dataset_dicts
        self._dataset_name = dataset_name
        self._records = {r["image_id"]: r for r in records}
        if not any("depth_file_name" in r for r in records):
            raise ValueError(
                f"none of the {len(records)} images of {dataset_name!r} has depth: their dicts "
                "need 'depth_file_name' (16-bit PNG) and 'depth_scale' (its value per metre), or "
                "the data set's metadata 'depth_scale'"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._entries: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the predictions of some images.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``depth``, (H, W) float tensor at the ground truth's size.

        Raises:
            ValueError: for an image id that the data set lacks, no prediction where there is ground
                truth, or one of another size.
        """
        for entry, output in zip(inputs, outputs):
            image_id = entry["image_id"]
            if image_id not in self._records:
                raise ValueError(f"{self._dataset_name!r} has no image_id {image_id!r}")
            record = self._records[image_id]
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
        least, greatest = self._valid_range
        valid = (depth >= least) & (depth <= greatest)
        result: dict[str, Any] = {"image_id": record["image_id"], "metrics": None}
        if not valid.any():
            return result
        prediction = prediction.detach().cpu().numpy().astype(np.float64)
        aligned = np.clip(align_depth(prediction, depth, valid, self._alignment), least, greatest)
        result["metrics"] = depth_metrics(aligned[valid], depth[valid])
        if self._output_dir is not None:
            result["file_name"] = self._write_png(record, aligned)
        return result

    def evaluate(self) -> OrderedDict | None:
        """Average over all processed images. Call it from every process.

        Returns:
            On the main process ``{"depth": metrics}``, else None: those of :func:`depth_metrics`,
            "images" (evaluated ones) and "non_finite_images" (of which predictions are not finite
            at valid pixels). Without an image that has depth, the averages are NaN.
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
        broken = [e["image_id"] for e in measured if not np.isfinite(e["metrics"]["AbsRel"])]
        if not measured:
            logger.warning(f"depth: no processed image of {self._dataset_name!r} has valid depth")
        if broken:
            logger.warning(
                f"depth: predictions are not finite for {len(broken)} images (the first: image_id "
                f"{broken[0]!r}): the averages are NaN"
            )
        metrics.update({"images": len(measured), "non_finite_images": len(broken)})
        table = tabulate([list(metrics.values())], list(metrics), tablefmt="pipe", floatfmt=".4f")
        logger.info(f"Depth evaluation results (alignment: {self._alignment}):\n{table}")
        if self._output_dir is not None:
            self._write_json(metrics, measured)
        return OrderedDict({"depth": metrics})

    def _write_png(self, record: dict[str, Any], metres: np.ndarray) -> str:
        folder = os.path.join(self._output_dir, "depth")
        PathManager.mkdirs(folder)
        name = os.path.splitext(os.path.basename(record["depth_file_name"]))[0] + ".png"
        values = np.clip(np.rint(metres * record["depth_scale"]), 0, np.iinfo(np.uint16).max)
        # 0, invalid, where nothing finite was predicted.
        values = np.nan_to_num(values, nan=0.0).astype(np.uint16)
        with PathManager.open(os.path.join(folder, name), "wb") as file:
            Image.fromarray(values).save(file, format="PNG")
        return f"depth/{name}"

    def _write_json(self, metrics: dict[str, float], entries: list[dict[str, Any]]) -> None:
        path = os.path.join(self._output_dir, "depth.json")
        PathManager.mkdirs(self._output_dir)
        images = [{**{k: e[k] for k in ("image_id", "file_name")}, **e["metrics"]} for e in entries]
        content = {
            "alignment": self._alignment,
            "valid_range": self._valid_range,
            "metrics": metrics,
            "images": images,
        }
        with PathManager.open(path, "w") as file:
            json.dump(_null_if_not_finite(content), file)
        logger.info(f"Depth predictions are in {path} and depth{os.sep} beside it")


def load_depth(record: dict[str, Any]) -> np.ndarray:
    """Read one image's ground truth: (H, W) float64 metres, 0 is invalid.

    Args:
        record: ``depth_file_name`` and ``depth_scale`` (PNG value per metre).

    Raises:
        ValueError: without ``depth_scale``; ValueError, FileNotFoundError: see ``read_gray_png``.
    """
    if "depth_scale" not in record:
        raise ValueError(
            f"the dataset dict of {record['depth_file_name']} has no depth_scale (the PNG's value "
            "per metre); set it there or in the data set's metadata"
        )
    return read_gray_png(record["depth_file_name"], "depth PNG") / float(record["depth_scale"])


def _null_if_not_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_if_not_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_null_if_not_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""Mask inpainting: how well half of a mask is completed, and whether given ids are honoured.

The protocol is the paper's (arXiv 2401.10227: blocks of 16 x 16 pixels are dropped, class-agnostic
PQ of the completed mask), with further patterns and with numbers for the dropped region alone.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.annotations import read_photo
from ..inpainting.patterns import known_mask
from .class_agnostic import SEGMENT, load_ground_truth, matched_ious
from .inpainting_baselines import nearest_fill, random_walker_fill
from .panoptic_quality import average_quality, compute_stat, encode_id_map

BASELINES = ("no_hints", "nearest", "random_walker")
# Names of given segments are drawn from 1..MAX_NAME: no model can have seen them as its own ids.
MAX_NAME = 10_000

# Inputs of a model to its outputs, lists of dicts.
Segment = Callable[[list[dict]], list[dict]]


class Picture(NamedTuple):
    """One picture of the data set."""

    inputs: dict[str, Any]  # the model's, without hints
    photo: np.ndarray  # (H, W, 3) uint8 RGB
    truth: np.ndarray  # (H, W) int64: 0 void, 1..K segments, K + 1 crowd
    num_segments: int  # K


class Hints(NamedTuple):
    """What is given of one picture."""

    known: np.ndarray  # (H, W) bool
    ids: np.ndarray  # (H, W) int64 under random names, 0 where void or unknown
    names: np.ndarray  # (K + 1,) int64: name of each segment, 0 for void


def load_picture(record: dict[str, Any], mapper: Callable[[dict], dict]) -> Picture:
    """Read one picture with its ground truth.

    Args:
        record: of the data set, with ``pan_seg_file_name``.
        mapper: makes the model's inputs.
    """
    truth, segments_info = load_ground_truth(record)
    num_segments = sum(not s["iscrowd"] for s in segments_info)
    photo = read_photo(record["file_name"])
    return Picture(mapper(record), photo, truth, num_segments)


def draw_hints(picture: Picture, pattern: str, drop: float, seed: int, **options) -> Hints:
    """Choose what is given of a picture, and its names.

    Args:
        picture: its image_id, the pattern and ``seed`` decide; the drop rate does not change names.
        pattern, drop, options: see :func:`known_mask`. Crowd regions are never given.
        seed: of the study.
    """
    own_seed = [seed, *str(picture.inputs["image_id"]).encode()]
    own_seed = int(np.random.default_rng(own_seed).integers(2**31))
    truth = np.where(picture.truth <= picture.num_segments, picture.truth, 0)
    known = known_mask(pattern, truth, drop=drop, seed=own_seed, **options)
    known = known & (picture.truth <= picture.num_segments)
    drawn = np.random.default_rng(own_seed).permutation(MAX_NAME)[: picture.num_segments] + 1
    names = np.concatenate([[0], drawn]).astype(np.int64)
    return Hints(known, np.where(known, names[truth], 0), names)


def complete(
    pictures: Sequence[Picture],
    hints: Sequence[Hints] | None,
    segment: Segment,
    *,
    batch_size: int,
    seed: int | None = None,
) -> Iterator[np.ndarray]:
    """Let the model segment pictures, with or without hints.

    Yields:
        (H, W) int64 ids of each picture.
    """
    inputs = [dict(picture.inputs) for picture in pictures]
    for entry, one in zip(inputs, hints or ()):
        entry["known_ids"] = torch.from_numpy(one.ids)
        entry["known_mask"] = torch.from_numpy(one.known)
    for entry in inputs:
        if seed is not None:
            entry["seed"] = seed
    for start in range(0, len(inputs), batch_size):
        for output in segment(inputs[start : start + batch_size]):
            yield output["panoptic_seg"][0].cpu().numpy().astype(np.int64)


def fill(method: str, pictures: Sequence[Picture], hints: Sequence[Hints]) -> Iterator[np.ndarray]:
    """Complete with one of the baselines that need no model; yields as :func:`complete`."""
    for picture, one in zip(pictures, hints):
        if method == "nearest":
            yield nearest_fill(one.ids, one.known)
        else:
            yield random_walker_fill(picture.photo, one.ids, one.known)


def evaluate_completion(
    pictures: Sequence[Picture],
    hints: Sequence[Hints],
    predictions: Sequence[np.ndarray],
) -> dict[str, float]:
    """Compare completed masks with the ground truth.

    Args:
        pictures, hints: as given to the model.
        predictions: (H, W) ids of each picture.

    Returns:
        In percent: "PQ", "SQ", "RQ" and "mIoU" of the whole masks, class-agnostic;
        "dropped_PQ" and "dropped_mIoU" on the dropped pixels alone, where the rest is void; and
        "given_ids", the share of dropped pixels that belong to a partly given segment and have its
        given id. And "dropped", the share of pixels that was dropped.
    """
    whole, part = [], []
    right = wanted = dropped = 0
    for picture, one, ids in zip(pictures, hints, predictions, strict=True):
        whole.append((picture.truth, picture.num_segments, ids))
        part.append(_restrict(picture, ids, ~one.known))
        given = np.unique(picture.truth[one.known])
        asked = ~one.known & np.isin(picture.truth, given[given != 0])
        wanted += int(asked.sum())
        right += int((ids[asked] == one.names[picture.truth[asked]]).sum())
        dropped += int((~one.known).sum())
    on_dropped = partition_quality(part)
    pixels = sum(picture.truth.size for picture in pictures)
    return {
        **partition_quality(whole),
        "dropped_PQ": on_dropped["PQ"],
        "dropped_mIoU": on_dropped["mIoU"],
        "given_ids": 100 * right / max(wanted, 1),
        "dropped": 100 * dropped / max(pixels, 1),
    }


def partition_quality(triples: Sequence[tuple[np.ndarray, int, np.ndarray]]) -> dict[str, float]:
    """Class-agnostic PQ, SQ, RQ (panopticapi) and mIoU in percent.

    Args:
        triples: of each picture the ground truth (0 void, 1..K, then crowd), K and the prediction.
    """
    pairs, ious = [], [np.zeros(0)]
    with tempfile.TemporaryDirectory(prefix="ldmseg_eval_") as folder:
        for index, (truth, num_segments, ids) in enumerate(triples):
            ious.append(matched_ious(truth, ids, num_segments))
            pair = []
            for name, one, last in (("gt", truth, num_segments), ("pred", ids, np.inf)):
                labels, areas = np.unique(one, return_counts=True)
                segments = [
                    {"id": i, "category_id": SEGMENT["id"], "iscrowd": int(i > last), "area": a}
                    for i, a in zip(labels.tolist(), areas.tolist())
                    if i != 0
                ]
                file_name = f"{name}_{index}.png"
                pair.append({"image_id": index, "file_name": file_name, "segments_info": segments})
                with open(os.path.join(folder, file_name), "wb") as f:
                    f.write(encode_id_map(one))
            pairs.append(tuple(pair))
        stat = compute_stat(
            pairs,
            gt_folder=folder,
            pred_folder=folder,
            categories={SEGMENT["id"]: SEGMENT},
            num_pixels=sum(truth.size for truth, _, _ in triples),
        )
    quality = average_quality(stat, [SEGMENT["id"]])
    joined = np.concatenate(ious)
    mean_iou = 100 * float(joined.mean()) if len(joined) else 0.0
    return {**{key: quality[key] for key in ("PQ", "SQ", "RQ")}, "mIoU": mean_iou}


def run_combination(
    method: str,
    pictures: Sequence[Picture],
    hints: Sequence[Hints],
    segment: Segment,
    *,
    batch_size: int,
    without_hints: Sequence[np.ndarray],
    seed: int | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, float]:
    """Complete all pictures with one method, and evaluate.

    Args:
        method: one of BASELINES; any other: ``segment`` is the model with that method.
        pictures, hints: see :func:`evaluate_completion`.
        segment: the model.
        batch_size: pictures that it gets at once.
        without_hints: what it makes of the pictures without hints, for "no_hints".
        seed: of the model's noise; None: its own.
        progress: called with the number of pictures that were done since its last call.

    Returns:
        The numbers of :func:`evaluate_completion`, and "seconds" a picture.
    """
    start = time.perf_counter()
    predictions: list[np.ndarray] = []
    if method == "no_hints":
        source = iter(without_hints)
    elif method in BASELINES:
        source = fill(method, pictures, hints)
    else:
        source = complete(pictures, hints, segment, batch_size=batch_size, seed=seed)
    for prediction in source:
        predictions.append(prediction)
        progress(1)
    seconds = (time.perf_counter() - start) / max(len(pictures), 1)
    return {**evaluate_completion(pictures, hints, predictions), "seconds": seconds}


def _restrict(
    picture: Picture, ids: np.ndarray, region: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray]:
    """Ground truth and prediction inside of a region, void elsewhere, as a consecutive triple."""
    truth = np.where(region, picture.truth, 0)
    labels = np.unique(truth[truth != 0])
    table = np.zeros(picture.num_segments + 2, dtype=np.int64)
    table[labels] = np.arange(1, len(labels) + 1)
    num_segments = int((labels <= picture.num_segments).sum())
    return table[truth], num_segments, np.where(region, ids, 0)

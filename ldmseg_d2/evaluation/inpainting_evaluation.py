"""Mask inpainting: how well half of a mask is completed, and whether given ids are honoured.

The protocol is the paper's (arXiv 2401.10227: blocks of 16 x 16 pixels are dropped, class-agnostic
PQ of the completed mask), with further patterns and with numbers for the dropped region alone.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.segmentation import random_walker

from ..data.annotations import read_photo
from ..inpainting.patterns import known_mask
from .class_agnostic_evaluator import class_agnostic_quality, load_ground_truth, match_segments

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
    """Read one picture of a data set with its ground truth; ``mapper`` makes the model's inputs."""
    return Picture(mapper(record), read_photo(record["file_name"]), *load_ground_truth(record))


def draw_hints(picture: Picture, pattern: str, drop: float, seed: int) -> Hints:
    """Choose what is given of a picture, by its image_id and ``seed``: never crowd regions."""
    own_seed = [seed, *str(picture.inputs["image_id"]).encode()]
    own_seed = int(np.random.default_rng(own_seed).integers(2**31))
    truth = np.where(picture.truth <= picture.num_segments, picture.truth, 0)
    known = known_mask(pattern, truth, drop=drop, seed=own_seed)
    known = known & (picture.truth <= picture.num_segments)
    drawn = np.random.default_rng(own_seed).permutation(MAX_NAME)[: picture.num_segments] + 1
    names = np.concatenate([[0], drawn]).astype(np.int64)
    return Hints(known, np.where(known, names[truth], 0), names)


def complete(
    pictures: Sequence[Picture],
    hints: Sequence[Hints] | None,
    segment: Segment,
    *,
    batch_size: int = 16,
    **keys: Any,
) -> Iterator[dict[str, Any]]:
    """A model's outputs, with or without hints; ``keys`` go into every input dict."""
    inputs = [{**picture.inputs, **keys} for picture in pictures]
    for entry, one in zip(inputs, hints or ()):
        entry["known_ids"] = torch.from_numpy(one.ids)
        entry["known_mask"] = torch.from_numpy(one.known)
    for start in range(0, len(inputs), batch_size):
        with torch.no_grad():
            yield from segment(inputs[start : start + batch_size])


def segment_ids(output: dict[str, Any]) -> np.ndarray:
    """(H, W) int64 ids of a model's output."""
    return output["panoptic_seg"][0].cpu().numpy().astype(np.int64)


def nearest_fill(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Every unknown pixel (H, W) takes the id of the nearest known one; 0 where none is known."""
    if not known.any():
        return np.zeros_like(ids)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return ids[tuple(nearest)]


def random_walker_fill(photo: np.ndarray, ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Every unknown pixel (H, W) takes the id that a random walker from it meets first.

    The walker avoids edges of the photo (H, W, 3) uint8 (Grady, IEEE PAMI 28(11), 2006), as
    scikit-image has it. Known void (0) is a region as any other.
    """
    labels, seeds = np.unique(ids[known], return_inverse=True)
    if len(labels) < 2 or known.all():
        return nearest_fill(ids, known)
    markers = np.zeros(ids.shape, dtype=np.int32)
    markers[known] = seeds.reshape(-1) + 1
    # Factorised where that needs little memory; neither way needs an optional solver.
    mode = "bf" if markers.size <= 40_000 else "cg_j"
    walked = random_walker(photo, markers, mode=mode, tol=1e-4, channel_axis=-1)
    return np.where(known, ids, labels[np.clip(walked, 1, None) - 1])


def completions(
    pictures: Sequence[Picture],
    segment: Segment,
    *,
    patterns: Sequence[str],
    drops: Sequence[float],
    seed: int,
) -> Iterator[tuple[str, float, str, list[Hints], list[np.ndarray]]]:
    """Complete all pictures for every pattern and drop rate, by the model and what it is held to.

    Yields pattern, drop rate, method, what was given, and the completed masks (H, W).
    """
    # All of them first: a wrong share shall not stop an evaluation in the middle.
    pairs = itertools.product(patterns, drops)
    given = [(p, drop, [draw_hints(one, p, drop, seed) for one in pictures]) for p, drop in pairs]
    without = [segment_ids(output) for output in complete(pictures, None, segment)]
    for pattern, drop, hints in given:
        yield pattern, drop, "no_hints", hints, without
        yield pattern, drop, "nearest", hints, [nearest_fill(one.ids, one.known) for one in hints]
        photos = (picture.photo for picture in pictures)
        walked = [random_walker_fill(p, one.ids, one.known) for p, one in zip(photos, hints)]
        yield pattern, drop, "random_walker", hints, walked
        completed = [segment_ids(output) for output in complete(pictures, hints, segment)]
        yield pattern, drop, "model", hints, completed


def evaluate_completion(
    pictures: Sequence[Picture], hints: Sequence[Hints], predictions: Sequence[np.ndarray]
) -> dict[str, float]:
    """Compare completed masks (H, W) with the ground truth.

    Returns:
        In percent: "PQ", "SQ", "RQ" and "mIoU" of the whole masks, class-agnostic;
        "dropped_PQ" and "dropped_mIoU" on the dropped pixels alone, where the rest is void; and
        "given_ids", the share of partly given segments' dropped pixels that have the given id.
    """
    whole, part = [], []
    right = wanted = 0
    for picture, one, ids in zip(pictures, hints, predictions, strict=True):
        whole.append((picture.truth, picture.num_segments, ids))
        part.append(_restrict(picture, ids, ~one.known))
        given = np.unique(picture.truth[one.known])
        asked = ~one.known & np.isin(picture.truth, given[given != 0])
        wanted += int(asked.sum())
        right += int((ids[asked] == one.names[picture.truth[asked]]).sum())
    quality, on_dropped = class_agnostic_quality(whole), class_agnostic_quality(part)
    return {
        **{key: quality[key] for key in ("PQ", "SQ", "RQ", "mIoU")},
        "dropped_PQ": on_dropped["PQ"],
        "dropped_mIoU": on_dropped["mIoU"],
        "given_ids": 100 * right / max(wanted, 1),
    }


def evaluate_draws(
    pictures: Sequence[Picture], segment: Segment, *, num_samples: int
) -> dict[str, Any]:
    """Draw several masks of each picture, without hints: their quality and their disagreement.

    Returns:
        "num_samples"; the PQ of the draws on average, "single", and of their "consensus"; and
        "bins", for each "disagreement" that occurs "pixels" (share of all) and "error" (share of
        those that are wrong: their true segment is matched to another one), in [0, 1].
    """
    if num_samples < 2:
        raise ValueError(f"{num_samples} draw cannot disagree with others: give at least 2")
    draws: list[list] = [[] for _ in range(num_samples)]
    agreed, disagreement, wrong = [], [], []
    outputs = complete(pictures, None, segment, batch_size=4, num_samples=num_samples)
    for picture, output in zip(pictures, outputs):
        truth, num_segments, ids = picture.truth, picture.num_segments, segment_ids(output)
        agreed.append((truth, num_segments, ids))
        for draw, sample in zip(draws, output["samples"], strict=True):
            draw.append((truth, num_segments, sample[0].cpu().numpy().astype(np.int64)))
        counted = (truth > 0) & (truth <= num_segments)
        matches = match_segments(truth, ids, num_segments)[1]
        wrong.append(matches[truth[counted] - 1] != ids[counted])
        disagreement.append(output["uncertainty"].cpu().numpy()[counted].round(4))
    disagreement, wrong = np.concatenate(disagreement), np.concatenate(wrong)
    return {
        "num_samples": num_samples,
        "single": float(np.mean([class_agnostic_quality(draw)["PQ"] for draw in draws])),
        "consensus": class_agnostic_quality(agreed)["PQ"],
        "bins": [
            {
                "disagreement": float(level),
                "pixels": float((disagreement == level).mean()),
                "error": float(wrong[disagreement == level].mean()),
            }
            for level in np.unique(disagreement)
        ],
    }


def _restrict(
    picture: Picture, ids: np.ndarray, region: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray]:
    """Ground truth, its number of segments and prediction inside of a region, void elsewhere."""
    truth = np.where(region, picture.truth, 0)
    labels = np.unique(truth[truth != 0])
    table = np.zeros(picture.num_segments + 2, dtype=np.int64)
    table[labels] = np.arange(1, len(labels) + 1)
    num_segments = int((labels <= picture.num_segments).sum())
    return table[truth], num_segments, np.where(region, ids, 0)

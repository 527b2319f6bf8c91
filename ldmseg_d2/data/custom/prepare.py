"""Reads, checks and writes a custom data set: what `tools/prepare_custom.py` calls."""

import hashlib
import logging
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from .class_list import Classes, read_classes
from .data_checks import check_picture
from .data_report import Report
from .data_writer import Writer, check_output
from .problems import InputError, Problem
from .read_coco import read_coco, read_coco_panoptic, read_prepared
from .read_cvat import read_cvat
from .read_label_studio import read_label_studio
from .read_masks import read_binary_masks, read_id_masks, read_semantic_masks
from .sources import FileIndex, Job, Picture, Source

logger = logging.getLogger(__name__)

READERS = {
    "id-masks": read_id_masks,
    "semantic-masks": read_semantic_masks,
    "binary-masks": read_binary_masks,
    "coco": read_coco,
    "coco-panoptic": read_coco_panoptic,
    "label-studio": read_label_studio,
    "cvat": read_cvat,
    "prepared": read_prepared,
}
PROGRESS_EVERY = 200


def is_validation(name: str, *, fraction: float, seed: int) -> bool:
    """Whether a picture is for validation: the same for a name, whatever else is in the folder."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def prepare(job: Job) -> Report:
    """Checks a data set and, where `output` says so, writes it; the input is never changed.

    Without `fix`, nothing is written if there is an error. `report.failed` says whether the data
    cannot be used as they are; InputError and FileNotFoundError, that the input as a whole cannot
    be read or the options do not fit.
    """
    given = None if job.classes is None else read_classes(job.classes)
    if job.output is not None:
        check_output(job)
    sources, num_photos = _read(job, given)
    classes = Classes(_categories([s.categories for s in sources], given), job.stuff)
    report = Report(classes, job, sources[0].overlap_rule, num_photos)
    report.problems += [problem for source in sources for problem in source.problems]
    pictures = _named([p for source in sources for p in source.pictures], report)
    depth_scale = sources[0].depth_scale
    if job.depth is not None:
        depth_scale = job.depth_scale
        index = FileIndex(job.depth, (".png",))
        for picture, _ in pictures:
            picture.depth = index.find(str(PurePosixPath(picture.name).with_suffix(".png")))
    writer = None if job.output is None else Writer(job, classes, depth_scale)
    try:
        for number, (picture, stem) in enumerate(pictures, start=1):
            checked = check_picture(picture, classes, job, depth=depth_scale is not None)
            val = is_validation(picture.name, fraction=job.val_fraction, seed=job.seed)
            split = picture.split or ("val" if val else "train")
            report.add(checked, split)
            if writer and checked.usable and (job.fix or not report.num_errors):
                writer.add(checked, split, stem)
            if number % PROGRESS_EVERY == 0:
                logger.info("%d of %d pictures", number, len(pictures))
        if job.val_fraction and not report.usable["val"]:
            report.problems.append(Problem("no_validation", "-", "no picture fell into it"))
        report.close()
        if writer and not report.failed:
            report.written = writer.finish()
    finally:
        # After an error or an interruption; a finished one is in its place already.
        if writer:
            writer.discard()
    return report


def _read(job: Job, given: list[dict[str, Any]] | None) -> tuple[list[Source], int]:
    """One source, or one for training and one for validation; and the number of photos."""
    if job.format != "prepared" and job.photos is None:
        raise InputError(f"--format {job.format} needs --photos")
    jobs = [(job, None)]
    if job.val_annotations is not None:
        if job.val_fraction:
            raise InputError("give --val-annotations or --val-fraction, not both")
        val_photos = job.val_photos or job.photos
        val = replace(job, annotations=job.val_annotations, photos=val_photos, masks=None)
        jobs = [(job, "train"), (val, "val")]
    indexes = {j.photos: FileIndex(j.photos) for j, _ in jobs if j.photos is not None}
    sources = []
    for part, split in jobs:
        read = READERS[job.format]
        source = read(part.annotations, indexes.get(part.photos), part, given)
        for picture in source.pictures:
            picture.split = picture.split or split
        sources.append(source)
    told = {p.file for s in sources for p in s.problems if p.code == "photo_unannotated"}
    used = {p.photo for s in sources for p in s.pictures}
    for name, path in (item for index in indexes.values() for item in index.files.items()):
        if path not in used and name not in told:
            problem = Problem("photo_unannotated", name, "there is no annotation of it")
            sources[0].problems.append(problem)
    if job.photos is None:
        return sources, len(used - {None})
    return sources, sum(len(index.files) for index in indexes.values())


def _categories(
    found: list[list[dict[str, Any]] | None], given: list[dict[str, Any]] | None
) -> list[dict[str, Any]] | None:
    """The classes: those of `--classes`, completed from the sources; else the sources' by name."""
    if any(categories is None for categories in found):
        if given is not None:
            raise InputError("--classes, but the masks have no classes: see --class-from")
        return None
    by_name: dict[str, dict[str, Any]] = {}
    for category in (c for categories in found for c in categories):
        by_name.setdefault(category["name"], category)
    if given is None:
        return list(by_name.values())
    # The file decides on names, order and ids; what it does not say comes from the source.
    return [{k: v for k, v in by_name.get(c["name"], {}).items() if k != "id"} | c for c in given]


def _named(pictures: list[Picture], report: Report) -> list[tuple[Picture, str]]:
    """Pictures with the stem of their files in the output: flat, unique, sorted.

    Evaluators know a picture by its file's name without folder, so folders become part of it.
    """
    taken: set[str] = set()
    seen: set = {None}
    named = []
    for picture in sorted(pictures, key=lambda p: p.name):
        if picture.photo in seen - {None}:
            text = f"another annotation: {picture.where}"
            report.problems.append(Problem("photo_twice", picture.name, text))
            continue
        seen.add(picture.photo)
        whole = picture.name.replace("\\", "/").strip("/").replace("/", "__")
        stem = base = whole.rsplit(".", 1)[0]
        number = 1
        # Lower case: some file systems do not tell cases apart.
        while stem.lower() in taken:
            number += 1
            stem = f"{base}_{number}"
        if number > 1:
            text = f"another photo is named {base!r}, too"
            report.problems.append(Problem("name_clash", picture.name, text))
        taken.add(stem.lower())
        named.append((picture, stem))
    return named

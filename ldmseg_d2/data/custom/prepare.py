"""Reads, checks and writes a custom data set: what `tools/prepare_custom.py` calls."""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .check import Limits, check_picture
from .classes import Classes, read_classes
from .pictures import FileIndex, Picture, Source
from .problems import InputError, Problem
from .read_coco import read_coco, read_coco_panoptic, read_prepared
from .read_cvat import read_cvat
from .read_label_studio import read_label_studio
from .read_masks import read_binary_masks, read_id_masks, read_semantic_masks
from .report import Report
from .write import Writer, check_output

__all__ = ["READERS", "Job", "is_validation", "prepare"]

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


@dataclass(frozen=True)
class Job:
    """What to do.

    Args:
        format: a key of `READERS`.
        annotations: file or folder of the annotations.
        photos: folder of the photos; None only for "prepared".
        val_annotations, val_photos: those of the validation split; None: there are none.
        output: folder to write; None: check only.
        overwrite: replace a data set that this tool wrote.
        link: link to the photos instead of copying them.
        classes: file for `read_classes`; None: the classes of the source.
        stuff: names of stuff classes.
        limits: see `Limits`; its `fix` decides whether problems are mended.
        val_fraction: share of pictures, by a hash of seed and name, that become validation.
        seed: see `val_fraction`.
        depth: folder of depth PNGs with the photos' names; None: no depth.
        depth_scale: their value per metre.
        reader: further arguments of the reader: `masks`, `class_from`, `divisor`, `void`,
            `overlap`.
    """

    format: str
    annotations: Path
    photos: Path | None = None
    val_annotations: Path | None = None
    val_photos: Path | None = None
    output: Path | None = None
    overwrite: bool = False
    link: bool = False
    classes: Path | None = None
    stuff: tuple[str, ...] = ()
    limits: Limits = Limits()
    val_fraction: float = 0.0
    seed: int = 0
    depth: Path | None = None
    depth_scale: float = 256.0
    reader: dict[str, Any] = field(default_factory=dict)


def is_validation(name: str, *, fraction: float, seed: int) -> bool:
    """Whether a picture is for validation: the same for a name, whatever else is in the folder.

    Args:
        name: the photo's name.
        fraction: the share of names for which it is so, 0..1.
        seed: another one gives another split.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def prepare(job: Job) -> Report:
    """Checks a data set and, where `output` says so, writes it.

    Without `limits.fix`, nothing is written if there is an error. The input is never changed.

    Args:
        job: what to do.

    Returns:
        The report; `report.failed` says whether the data cannot be used as they are.

    Raises:
        InputError, FileNotFoundError: if the input as a whole cannot be read, or the options do not
            fit.
    """
    given = None if job.classes is None else read_classes(job.classes)
    inputs = [job.annotations, job.photos, job.val_annotations, job.val_photos, job.depth]
    inputs.append(job.reader.get("masks"))
    if job.output is not None:
        check_output(
            job.output, [Path(p) for p in inputs if p is not None], overwrite=job.overwrite
        )
    sources, num_photos = _read(job, given)
    classes = Classes(_categories([s.categories for s in sources], given), job.stuff)
    report = Report(
        classes,
        num_bits=job.limits.num_bits,
        fix=job.limits.fix,
        overlap_rule=sources[0].overlap_rule,
    )
    report.num_photos = num_photos
    for source in sources:
        report.problems += source.problems
    depth_scale = sources[0].depth_scale
    if job.depth is not None:
        depth_scale = job.depth_scale
        index = FileIndex(job.depth, (".png",))
        for picture in (p for source in sources for p in source.pictures):
            picture.depth = index.find(str(PurePosixPath(picture.name).with_suffix(".png")))
    _check_and_write(job, sources, classes, depth_scale, report)
    return report


def _read(job: Job, given: list[dict[str, Any]] | None) -> tuple[list[Source], int]:
    """One source, or one for training and one for validation; and the number of photos."""
    if job.format != "prepared" and job.photos is None:
        raise InputError(f"--format {job.format} needs --photos")
    pairs = [(job.annotations, job.photos, None)]
    if job.val_annotations is not None:
        if job.val_fraction:
            raise InputError("give --val-annotations or --val-fraction, not both")
        pairs = [
            (job.annotations, job.photos, "train"),
            (job.val_annotations, job.val_photos or job.photos, "val"),
        ]
    sources, indexes = [], {}
    for annotations, photos, split in pairs:
        if photos is not None and photos not in indexes:
            indexes[photos] = FileIndex(photos)
        options = {k: v for k, v in job.reader.items() if v is not None}
        if split == "val":
            options.pop("masks", None)
        source = READERS[job.format](annotations, indexes.get(photos), given=given, **options)
        for picture in source.pictures:
            picture.split = picture.split or split
        sources.append(source)
    if len(indexes) == 1 and len(sources) == 2:
        _one_folder(sources)
    if job.photos is None:
        return sources, len({p.photo for s in sources for p in s.pictures} - {None})
    return sources, sum(len(index.files) for index in indexes.values())


def _one_folder(sources: list[Source]) -> None:
    """Photos of both splits in one folder: without annotation are those that neither is of."""
    lists = [{p for p in s.problems if p.code == "photo_unannotated"} for s in sources]
    for source in sources:
        source.problems = [p for p in source.problems if p.code != "photo_unannotated"]
    sources[0].problems += sorted(lists[0] & lists[1], key=lambda p: p.file)


def _categories(
    found: list[list[dict[str, Any]] | None], given: list[dict[str, Any]] | None
) -> list[dict[str, Any]] | None:
    """The classes: those of `--classes`, completed from the sources; else the sources' by name."""
    if any(categories is None for categories in found):
        if given is not None:
            raise InputError("--classes, but the masks have no classes: see --class-from")
        return None
    by_name: dict[str, dict[str, Any]] = {}
    for categories in found:
        for category in categories:
            by_name.setdefault(category["name"], category)
    if given is None:
        return list(by_name.values())
    # The file decides on names, order and ids; what it does not say comes from the source.
    return [{k: v for k, v in by_name.get(c["name"], {}).items() if k != "id"} | c for c in given]


def _named(sources: list[Source], report: Report) -> list[tuple[Picture, str]]:
    """Pictures with the stem of their files in the output: flat, unique, sorted.

    Evaluators know a picture by its file's name without folder, so folders become part of it.
    """
    taken: set[str] = set()
    seen: set[Path] = set()
    named = []
    pictures = [p for source in sources for p in source.pictures]
    for picture in sorted(pictures, key=lambda p: p.name):
        if picture.photo in seen:
            report.problems.append(
                Problem("photo_twice", picture.name, f"another annotation: {picture.where}")
            )
            continue
        if picture.photo is not None:
            seen.add(picture.photo)
        whole = picture.name.replace("\\", "/").strip("/").replace("/", "__")
        stem = base = whole.rsplit(".", 1)[0]
        number = 1
        # Lower case: some file systems do not tell cases apart.
        while stem.lower() in taken:
            number += 1
            stem = f"{base}_{number}"
        if number > 1:
            report.problems.append(
                Problem("name_clash", picture.name, f"another photo is named {base!r}, too")
            )
        taken.add(stem.lower())
        named.append((picture, stem))
    return named


def _check_and_write(
    job: Job, sources: list[Source], classes: Classes, depth_scale: float | None, report: Report
) -> None:
    """Checks every picture; writes as long as nothing forbids it."""
    named = _named(sources, report)
    writer = None
    try:
        if job.output is not None:
            writer = Writer(
                job.output,
                classes=classes,
                depth_scale=depth_scale,
                num_bits=job.limits.num_bits,
                link=job.link,
            )
        for number, (picture, stem) in enumerate(named, start=1):
            checked = check_picture(picture, classes, job.limits, depth=depth_scale is not None)
            split = picture.split
            if split is None:
                val = is_validation(picture.name, fraction=job.val_fraction, seed=job.seed)
                split = "val" if val else "train"
            report.add(checked, split)
            unmended = report.num_errors and not job.limits.fix
            if writer is not None and checked.usable and not unmended:
                writer.add(checked, split, stem)
            if number % PROGRESS_EVERY == 0:
                logger.info("%d of %d pictures", number, len(named))
        if job.val_fraction and not report.usable["val"]:
            report.problems.append(Problem("no_validation", "-", "no picture fell into it"))
        report.close()
        if writer is not None and not report.failed:
            report.written = writer.finish()
    finally:
        # After an error or an interruption; a finished one is in its place already.
        if writer is not None:
            writer.discard()

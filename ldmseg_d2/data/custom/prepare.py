"""Reads, checks and writes a custom data set: what `tools/prepare_custom.py` calls."""

import hashlib
from pathlib import PurePosixPath

from .class_list import Classes, read_classes
from .data_checks import check_picture
from .data_report import Report
from .data_writer import Writer, check_output
from .file_lookup import FileIndex
from .pictures import Categories, Job, Picture
from .read_coco import read_coco, read_coco_panoptic
from .read_cvat import read_cvat
from .read_label_studio import read_label_studio
from .read_masks import read_binary_masks, read_id_masks, read_semantic_masks
from .shapes import OVERLAP_RULES

READERS = {
    "id-masks": read_id_masks,
    "semantic-masks": read_semantic_masks,
    "binary-masks": read_binary_masks,
    "coco": read_coco,
    "coco-panoptic": read_coco_panoptic,
    "label-studio": read_label_studio,
    "cvat": read_cvat,
}


def is_validation(name: str, *, fraction: float, seed: int) -> bool:
    """Whether a picture is for validation: the same for a name, whatever else is in the folder."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def prepare(job: Job) -> Report:
    """Checks a data set and, where `output` says so, writes it; the input is never changed.

    Nothing is written if there is an error. ValueError and FileNotFoundError: the input as a whole
    cannot be read, or the options do not fit.
    """
    given = None if job.classes is None else read_classes(job.classes)
    if job.output is not None:
        check_output(job)
    photos = FileIndex(job.photos)
    report = Report(len(photos.files), OVERLAP_RULES[job.overlap])
    pictures, found = READERS[job.format](job, photos, report)
    report.classes = classes = Classes(_categories(found, given), job.stuff)
    for name in classes.undecided:
        report.add("thing_stuff_undecided", name, "thing (countable) or stuff?")
    _find_files(pictures, photos, job, report)
    named = _named(pictures, report)
    writer = None if job.output is None else Writer(job, classes)
    try:
        for picture, stem in named:
            checked = check_picture(picture, classes, job, report)
            if checked is None:
                continue
            val = is_validation(picture.name, fraction=job.val_fraction, seed=job.seed)
            split = "val" if val else "train"
            report.usable[split] += 1
            report.segments.append(checked[1])
            if writer and not report.num_errors:
                writer.add(picture, *checked, split, stem)
        if not report.usable:
            report.add("nothing_left", "-", "no picture can be used")
        if writer and not report.num_errors:
            report.written = writer.finish()
    finally:
        # After an error or an interruption; a finished one is in its place already.
        if writer:
            writer.discard()
    return report


def _categories(found: Categories, given: Categories) -> Categories:
    """The classes: those of `--classes`, completed from the source's; else the source's."""
    if given is None:
        return found
    if found is None:
        raise ValueError("--classes, but the masks have no classes: see --class-from")
    by_name = {c["name"]: c for c in found}
    # The file decides on names, order and ids; what it does not say comes from the source.
    return [{k: v for k, v in by_name.get(c["name"], {}).items() if k != "id"} | c for c in given]


def _find_files(pictures: list[Picture], photos: FileIndex, job: Job, report: Report) -> None:
    """Reports photos without annotation, and finds the pictures' depth PNGs."""
    used = {p.photo for p in pictures}
    for name, path in photos.files.items():
        if path not in used:
            report.add("photo_unannotated", name, "there is no annotation of it")
    if job.depth is not None:
        index = FileIndex(job.depth, (".png",))
        for picture in pictures:
            picture.depth = index.find(str(PurePosixPath(picture.name).with_suffix(".png")))


def _named(pictures: list[Picture], report: Report) -> list[tuple[Picture, str]]:
    """Pictures with the stem of their files in the output: flat, unique, sorted.

    Evaluators know a picture by its file's name without folder, so folders become part of it.
    """
    named: list[tuple[Picture, str]] = []
    photos: set = set()
    stems: dict[str, str] = {}
    for picture in sorted(pictures, key=lambda p: p.name):
        stem = picture.name.replace("\\", "/").strip("/").replace("/", "__").rsplit(".", 1)[0]
        # Lower case: some file systems do not tell cases apart.
        other = stems.setdefault(stem.lower(), picture.name)
        if picture.photo is not None and picture.photo in photos:
            report.add("photo_twice", picture.name, f"another annotation: {picture.where}")
        elif other != picture.name:
            report.add("name_clash", picture.name, f"{other} has the same name, {stem!r}")
        photos.add(picture.photo)
        named.append((picture, stem))
    return named

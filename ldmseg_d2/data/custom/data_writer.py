"""Writes the folder that `registration.py` registers: complete, or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets.panoptic_files import write_ids, write_json
from ..datasets.register_panoptic import IGNORE_LABEL
from .class_list import Classes
from .pictures import Job, Picture
from .registration import DATASET_FILE, FORMAT_NAME, SPLITS, read_dataset_file


def check_output(job: Job) -> None:
    """ValueError for an output that is, contains or lies in an input, or holds something."""
    target = job.output.resolve()
    for path in filter(None, (job.annotations, job.photos, job.masks, job.depth)):
        given = path.resolve()
        if given == target or target in given.parents or given in target.parents:
            raise ValueError(
                f"--output {job.output} and the input {path} contain one another; the input is "
                "never changed: choose another folder"
            )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        read_dataset_file(target)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--output {job.output} exists and is no data set of this tool: choose another folder"
        ) from error
    if not job.overwrite:
        raise ValueError(f"--output {job.output} holds a data set already: --overwrite replaces it")


class Writer:
    """Writes beside `job.output`, and puts the whole in its place at the end."""

    def __init__(self, job: Job, classes: Classes):
        self.job, self.classes = job, classes
        self.output = job.output.resolve()
        # More classes do not fit beside 255, void.
        self.semantic = not classes.agnostic and len(classes.categories) <= IGNORE_LABEL
        self.partial = self.output.with_name(f".{self.output.name}.partial")
        self._index = {c["id"]: i for i, c in enumerate(classes.categories)}
        self._entries: dict[str, list[tuple[dict, dict]]] = {split: [] for split in SPLITS}
        self.discard()
        self.partial.mkdir(parents=True)

    def discard(self) -> None:
        """Removes what is not complete, of this run or of one that was interrupted."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def add(
        self, picture: Picture, ids: np.ndarray, segments: list[dict], split: str, stem: str
    ) -> None:
        """Writes the files of one picture; `stem`: the name of all of them, without suffix."""
        photo_name, png_name = stem + picture.photo.suffix, stem + ".png"
        photo = self._folder(split) / photo_name
        if self.job.link_photos:
            photo.symlink_to(picture.photo.resolve())
        else:
            shutil.copyfile(picture.photo, photo)
        write_ids(self._folder(f"panoptic_{split}") / png_name, ids)
        if self.semantic:
            table = [IGNORE_LABEL, *(self._index[s["category_id"]] for s in segments)]
            semantic = np.array(table, dtype=np.uint8)[ids]
            Image.fromarray(semantic).save(self._folder(f"semantic_{split}") / png_name)
        if self.job.depth is not None:
            shutil.copyfile(picture.depth, self._folder(f"depth_{split}") / png_name)
        height, width = ids.shape
        image = {"file_name": photo_name, "height": height, "width": width}
        annotation = {"file_name": png_name, "segments_info": segments}
        self._entries[split].append((image, annotation))

    def _folder(self, name: str) -> Path:
        folder = self.partial / name
        folder.mkdir(exist_ok=True)
        return folder

    def finish(self) -> dict[str, int]:
        """Writes the JSON files and puts the folder in its place; returns pictures by split."""
        categories = self.classes.categories
        counts = {split: len(entries) for split, entries in self._entries.items() if entries}
        for split in counts:
            ordered = sorted(self._entries[split], key=lambda entry: entry[0]["file_name"])
            numbered = list(enumerate(ordered, start=1))
            content = {
                "images": [{"id": i, **image} for i, (image, _) in numbered],
                "annotations": [{"image_id": i, **a} for i, (_, a) in numbered],
                "categories": categories,
            }
            write_json(self.partial / f"panoptic_{split}.json", content, indent=1)
        described: dict[str, Any] = {
            "format": FORMAT_NAME,
            "class_agnostic": self.classes.agnostic,
            "categories": categories,
            "splits": counts,
            "semantic": self.semantic,
            "num_bits": self.job.num_bits,
        }
        if self.job.depth is not None:
            described["depth_scale"] = self.job.depth_scale
        write_json(self.partial / DATASET_FILE, described, indent=1)
        # An older data set goes away only when the new one is in its place.
        old = self.output.with_name(f".{self.output.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.output.exists():
            os.replace(self.output, old)
        os.replace(self.partial, self.output)
        shutil.rmtree(old, ignore_errors=True)
        return counts

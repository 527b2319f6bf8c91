"""Writes the folder that `registration.py` registers: complete, or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..annotations import split_bytes
from .check import Checked
from .classes import Classes
from .problems import InputError
from .registration import DATASET_FILE, FORMAT_NAME, SPLITS, read_dataset_file

__all__ = ["Writer", "check_output"]

IGNORE_LABEL = 255


def check_output(output: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuses an output folder that could damage anything.

    Args:
        output: where the data set shall be.
        inputs: files and folders that are read.
        overwrite: a data set that this tool wrote may be replaced.

    Raises:
        InputError: if `output` is, contains or lies in an input, or holds something already.
    """
    target = output.resolve()
    for path in inputs:
        given = path.resolve()
        inside = given.is_dir() and given in target.parents
        if given == target or target in given.parents or inside:
            raise InputError(
                f"--output {output} and the input {path} contain one another; the input is never "
                "changed: choose another folder"
            )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        read_dataset_file(target)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--output {output} exists and is no data set of this tool: choose another folder"
        ) from error
    if not overwrite:
        raise InputError(f"--output {output} holds a data set already: --overwrite replaces it")


class Writer:
    """Writes beside the output folder, and puts the whole in its place at the end.

    Args:
        output: the folder of the data set.
        classes: its classes.
        depth_scale: depth PNG value per metre; None: no depth.
        num_bits: see `Limits`; for the description only.
        link: photos become symbolic links to the originals instead of copies.
    """

    def __init__(
        self,
        output: Path,
        *,
        classes: Classes,
        depth_scale: float | None,
        num_bits: int,
        link: bool = False,
    ):
        self.output = output.resolve()
        self.classes = classes
        self.depth_scale = depth_scale
        self.num_bits = num_bits
        self.link = link
        # More classes do not fit beside 255, void.
        self.semantic = not classes.agnostic and len(classes.categories) <= IGNORE_LABEL
        self.partial = self.output.with_name(f".{self.output.name}.partial")
        self._index = {c["id"]: i for i, c in enumerate(classes.categories)}
        self._entries: dict[str, list[tuple[dict, dict]]] = {}
        self.discard()
        self.partial.mkdir(parents=True)

    def discard(self) -> None:
        """Removes what is not complete, of this run or of one that was interrupted."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def add(self, checked: Checked, split: str, stem: str) -> None:
        """Writes the files of one picture.

        Args:
            checked: it.
            split: "train" or "val".
            stem: the name of all its files, without suffix.
        """
        source = checked.picture.photo
        photo_name, png_name = stem + source.suffix, stem + ".png"
        photo = self._folder(split) / photo_name
        if self.link:
            photo.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, photo)
        pixels = split_bytes(checked.ids)
        Image.fromarray(pixels).save(self._folder(f"panoptic_{split}") / png_name)
        if self.semantic:
            table = [IGNORE_LABEL, *(self._index[s["category_id"]] for s in checked.segments)]
            semantic = np.array(table, dtype=np.uint8)[checked.ids]
            Image.fromarray(semantic).save(self._folder(f"semantic_{split}") / png_name)
        if self.depth_scale is not None:
            depth = self._folder(f"depth_{split}") / png_name
            if checked.depth is None:
                shutil.copyfile(checked.picture.depth, depth)
            else:
                Image.fromarray(checked.depth.astype(np.uint16)).save(depth)
        height, width = checked.size
        image = {"file_name": photo_name, "height": height, "width": width}
        annotation = {"file_name": png_name, "segments_info": checked.segments}
        self._entries.setdefault(split, []).append((image, annotation))

    def _folder(self, name: str) -> Path:
        folder = self.partial / name
        folder.mkdir(exist_ok=True)
        return folder

    def finish(self) -> dict[str, int]:
        """Writes the JSON files and puts the folder in its place.

        Returns:
            Pictures of each split.
        """
        counts = {}
        categories = self.classes.categories
        for split in SPLITS:
            entries = sorted(self._entries.get(split, []), key=lambda e: e[0]["file_name"])
            if not entries:
                continue
            counts[split] = len(entries)
            self._dump(
                f"panoptic_{split}.json",
                {
                    "images": [{"id": i, **e[0]} for i, e in enumerate(entries, start=1)],
                    "annotations": [
                        {"image_id": i, **e[1]} for i, e in enumerate(entries, start=1)
                    ],
                    "categories": categories,
                },
            )
        described: dict[str, Any] = {
            "format": FORMAT_NAME,
            "class_agnostic": self.classes.agnostic,
            "categories": categories,
            "splits": counts,
            "semantic": self.semantic,
            "num_bits": self.num_bits,
        }
        if self.depth_scale is not None:
            described["depth_scale"] = self.depth_scale
        self._dump(DATASET_FILE, described)
        self._publish()
        return counts

    def _dump(self, name: str, content: dict[str, Any]) -> None:
        (self.partial / name).write_text(json.dumps(content, indent=1), encoding="utf-8")

    def _publish(self) -> None:
        """Moves the folder; an older data set goes away only when the new one is in its place."""
        old = self.output.with_name(f".{self.output.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.output.exists():
            os.replace(self.output, old)
        os.replace(self.partial, self.output)
        shutil.rmtree(old, ignore_errors=True)

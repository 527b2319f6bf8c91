"""Everything that can be wrong with a user's data, how to mend it, and what a check found."""

import statistics
from collections import Counter, defaultdict
from typing import Any

from .class_list import Classes

ERRORS = {
    "photo_missing": "put it into --photos under this name, relative and without '..'",
    "photo_unreadable": "copy or export the photo again",
    "photo_twice": "keep one annotation of each photo",
    "name_clash": "rename one: they must differ in more than suffix and case",
    "annotation_orphan": "list its picture under 'images'",
    "annotation_unreadable": "write or export the file again",
    "bad_shape": "draw or export this segment again",
    "size_mismatch": "export annotations at the photo's size; pair the right files",
    "id_mismatch": "write mask and JSON together, as PNG; ids: 1 to 2^24 - 1, each once",
    "unknown_class": "correct its name, or add it to --classes",
    "too_many_segments": "raise NUM_BITS and --num-bits, or cut the picture up",
    "depth_unusable": "put a 16-bit gray PNG of the photo's name and size into --depth",
    "nothing_left": "mend the problems above, or check --photos",
}
WARNINGS = {
    "photo_unannotated": "annotate it, or ignore this: it is left out",
    "mask_unused": "put its photo into --photos",
    "empty": "annotate it, or ignore this",
    "tiny_segment": "lower --min-area, or ignore this: training makes it void",
    "no_pixels": "outside the picture or covered: try --overlap area",
    "shape_ignored": "draw polygons or masks: it is left out",
    "box_as_segment": "a rectangle is a poor mask, taken as it is: draw polygons",
    "several_annotations": "mark the ground truth; else the first is taken",
    "thing_stuff_undecided": "taken as a thing; name stuff classes by --stuff",
}
MAX_EXAMPLES = 5  # that the text names for each kind of problem


class Report:
    """Problems (key of ERRORS or WARNINGS -> messages) and the pictures that can be used."""

    def __init__(self, num_photos: int, overlap_rule: str):
        self.num_photos, self.overlap_rule = num_photos, overlap_rule
        self.classes = Classes(None)
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.usable: Counter = Counter()  # pictures of each split
        self.segments: list[list[dict[str, Any]]] = []  # COCO's segments_info of each picture
        self.overlaps: list[int] = []  # of each picture: pixels that more than one segment claimed
        self.written: dict[str, int] | None = None  # pictures of each split

    def add(self, code: str, file: str, message: str) -> None:
        """Adds a problem: the file and the place in it, and what was found."""
        self.problems[code].append(f"{file}: {message}")

    @property
    def num_errors(self) -> int:
        """Problems without whose mending nothing is written."""
        return sum(len(messages) for code, messages in self.problems.items() if code in ERRORS)

    def text(self) -> str:
        """For people: the numbers, then the problems by kind."""
        usable = ", ".join(f"{n} {split}" for split, n in sorted(self.usable.items())) or "none"
        counts = [sum(not s["iscrowd"] for s in segments) for segments in self.segments] or [0]
        lines = [
            f"photos: {self.num_photos}; pictures to use: {usable}",
            f"segments a picture: min {min(counts)}, median {statistics.median(counts):g}, "
            f"max {max(counts)}",
        ]
        if any(self.overlaps):
            pictures = sum(pixels > 0 for pixels in self.overlaps)
            pixels = f"{sum(self.overlaps)} pixels in {pictures} pictures"
            lines.append(f"overlaps: {pixels}; rule: {self.overlap_rule}")
        agnostic = self.classes.agnostic
        lines.append("classes: none (class-agnostic)" if agnostic else "classes:")
        for c in [] if agnostic else self.classes.categories:
            of_class = [sum(s["category_id"] == c["id"] for s in found) for found in self.segments]
            kind = "thing" if c["isthing"] else "stuff"
            pictures = sum(n > 0 for n in of_class)
            lines.append(f"  {c['name']} ({kind}): {sum(of_class)} segments in {pictures} pictures")
        for code, mend in {**ERRORS, **WARNINGS}.items():
            messages = self.problems.get(code, [])
            if messages:
                level = "error" if code in ERRORS else "warning"
                lines.append(f"{level}: {code} ({len(messages)}); to mend it: {mend}")
                lines += [f"    {message}" for message in messages[:MAX_EXAMPLES]]
            if len(messages) > MAX_EXAMPLES:
                lines.append(f"    ... and {len(messages) - MAX_EXAMPLES} more")
        num_warnings = sum(map(len, self.problems.values())) - self.num_errors
        lines.append(f"{self.num_errors} errors, {num_warnings} warnings")
        return "\n".join(lines)

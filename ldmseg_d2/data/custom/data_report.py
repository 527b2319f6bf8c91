"""What a check found: numbers and problems, as text and as JSON."""

import statistics
from collections import Counter
from typing import Any

from .class_list import Classes
from .data_checks import Checked
from .problems import CODES, Problem
from .sources import Job

MAX_EXAMPLES = 5  # files that the text names for each kind of problem


class Report:
    """Collects checked pictures; `overlap_rule`: how overlaps were resolved, None: there are none.

    `problems` lists what was found, `usable` and `written` count the pictures of each split.
    """

    def __init__(self, classes: Classes, job: Job, overlap_rule: str | None, num_photos: int):
        self.classes = classes
        self.fix, self.num_bits = job.fix, job.num_bits
        self.num_photos = num_photos
        self.problems: list[Problem] = []
        self.usable: Counter = Counter()
        self.written: dict[str, int] | None = None
        self._segments: list[int] = []
        keys = ("segments", "pictures", "pixels")
        self._classes = {
            c["id"]: {"name": c["name"], "isthing": c["isthing"], **dict.fromkeys(keys, 0)}
            for c in classes.categories
        }
        self._overlaps: dict[str, Any] = {"rule": overlap_rule, "pictures": 0, "pixels": 0}
        self._merged = 0

    def add(self, checked: Checked, split: str) -> None:
        """Counts a picture."""
        self.problems += checked.problems
        if not checked.usable:
            return
        self.usable[split] += 1
        self._segments.append(checked.num_found)
        for number in {s["category_id"] for s in checked.segments}:
            self._classes[number]["pictures"] += 1
        for segment in checked.segments:
            self._classes[segment["category_id"]]["segments"] += 1
            self._classes[segment["category_id"]]["pixels"] += segment["area"]
        self._overlaps["pictures"] += checked.overlap > 0
        self._overlaps["pixels"] += checked.overlap
        self._merged += checked.merged

    def close(self) -> None:
        """Adds what only shows at the end."""
        if not self.usable:
            self.problems.append(Problem("nothing_left", "-", "no picture can be used"))
        elif not self.classes.agnostic:
            for found in self._classes.values():
                if not found["segments"]:
                    self.problems.append(
                        Problem("class_unused", found["name"], "no segment has it")
                    )
            self.problems += [
                Problem("thing_stuff_undecided", name, "thing (countable) or stuff?")
                for name in self.classes.undecided
            ]

    @property
    def num_errors(self) -> int:
        """Problems of level "error"."""
        return sum(p.level == "error" for p in self.problems)

    @property
    def failed(self) -> bool:
        """Whether the data cannot be used: errors that nothing mended."""
        return bool(self.num_errors and not self.fix) or not self.usable

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        counts, codes = self._segments or [0], Counter(p.code for p in self.problems)
        return {
            "photos": self.num_photos,
            "photos_unannotated": codes["photo_unannotated"],
            "pictures_usable": dict(self.usable),
            "segments": {
                "total": sum(self._segments),
                "min": min(counts),
                "median": statistics.median(counts),
                "max": max(counts),
                "limit": 2**self.num_bits - 1,
                "pictures_over_limit": codes["too_many_segments"],
            },
            "classes": list(self._classes.values()),
            "class_agnostic": self.classes.agnostic,
            "overlaps": self._overlaps,
            "stuff_segments_merged": self._merged,
            "problems": [p.as_dict(self.fix) for p in self.problems],
            "errors": self.num_errors,
            "warnings": len(self.problems) - self.num_errors,
            "fixed": self.fix,
            "written": self.written,
        }

    def text(self) -> str:
        """For people: the numbers, then the problems by kind."""
        found = self.as_dict()
        usable = ", ".join(f"{n} {split}" for split, n in sorted(self.usable.items())) or "none"
        lines = [
            f"photos: {found['photos']} ({found['photos_unannotated']} without annotation); "
            f"pictures to use: {usable}",
            "segments a picture: min {min}, median {median:g}, max {max}; {pictures_over_limit} "
            "pictures have more than {limit}".format(**found["segments"]),
            "classes: none (class-agnostic)" if self.classes.agnostic else "classes:",
        ]
        for c in [] if self.classes.agnostic else found["classes"]:
            kind = "thing" if c["isthing"] else "stuff"
            lines.append(
                f"  {c['name']} ({kind}): {c['segments']} segments in {c['pictures']} pictures"
            )
        if self._overlaps["rule"] is not None:
            text = "overlaps: {pixels} pixels in {pictures} pictures; rule: {rule}"
            lines.append(text.format(**self._overlaps))
        if self._merged:
            lines.append(f"stuff: {self._merged} segments became part of the one of their class")
        for code, kind in CODES.items():
            problems = [p for p in self.problems if p.code == code]
            if not problems:
                continue
            change = problems[0].as_dict(self.fix)["change"]
            lines.append(f"{kind.level}: {code} ({len(problems)})")
            lines += [f"    {p.file}: {p.message}" for p in problems[:MAX_EXAMPLES]]
            if len(problems) > MAX_EXAMPLES:
                lines.append(f"    ... and {len(problems) - MAX_EXAMPLES} more (see --report)")
            lines.append(f"  to mend it: {kind.mend}" + (f". Done: {change}" if change else ""))
        lines.append(f"{found['errors']} errors, {found['warnings']} warnings")
        return "\n".join(lines)

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
        self.overlap_rule = overlap_rule
        self.num_photos = num_photos
        self.problems: list[Problem] = []
        self.usable: Counter = Counter()
        self.written: dict[str, int] | None = None
        self._segments: list[int] = []
        self._by_class: dict[int, Counter] = {c["id"]: Counter() for c in classes.categories}
        self._overlap: Counter = Counter()

    def add(self, checked: Checked, split: str) -> None:
        """Counts a picture."""
        self.problems += checked.problems
        if not checked.usable:
            return
        self.usable[split] += 1
        self._segments.append(checked.num_found)
        for number in {s["category_id"] for s in checked.segments}:
            self._by_class[number]["pictures"] += 1
        for segment in checked.segments:
            self._by_class[segment["category_id"]]["segments"] += 1
            self._by_class[segment["category_id"]]["pixels"] += segment["area"]
        self._overlap["pictures"] += checked.overlap > 0
        self._overlap["pixels"] += checked.overlap
        self._overlap["merged"] += checked.merged

    def close(self) -> None:
        """Adds what only shows at the end."""
        if not self.usable:
            self.problems.append(Problem("nothing_left", "-", "no picture can be used"))
        elif not self.classes.agnostic:
            unused = [c["name"] for c in self.classes.categories if not self._by_class[c["id"]]]
            for code, names, text in (
                ("class_unused", unused, "it has no segment"),
                ("thing_stuff_undecided", self.classes.undecided, "thing (countable) or stuff?"),
            ):
                self.problems += [Problem(code, name, text) for name in names]

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
        keys = ("segments", "pictures", "pixels")
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
            "classes": [
                {k: c[k] for k in ("name", "isthing")}
                | {k: self._by_class[c["id"]][k] for k in keys}
                for c in self.classes.categories
            ],
            "class_agnostic": self.classes.agnostic,
            "overlaps": {
                "rule": self.overlap_rule,
                "pictures": self._overlap["pictures"],
                "pixels": self._overlap["pixels"],
            },
            "stuff_segments_merged": self._overlap["merged"],
            "problems": [p.as_dict(self.fix) for p in self.problems],
            "errors": self.num_errors,
            "warnings": len(self.problems) - self.num_errors,
            "fixed": self.fix,
            "written": self.written,
        }

    def text(self) -> str:
        """For people: the numbers, then the problems by kind."""
        found = self.as_dict()
        segments, overlaps = found["segments"], found["overlaps"]
        usable = ", ".join(f"{n} {split}" for split, n in sorted(self.usable.items())) or "none"
        lines = [
            f"photos: {found['photos']} ({found['photos_unannotated']} without annotation); "
            f"pictures to use: {usable}",
            f"segments a picture: min {segments['min']}, median {segments['median']:g}, "
            f"max {segments['max']}; {segments['pictures_over_limit']} pictures have more than "
            f"{segments['limit']} ({self.num_bits} bits)",
            "classes: none (class-agnostic)" if self.classes.agnostic else "classes:",
        ]
        lines += [
            f"  {c['name']} ({'thing' if c['isthing'] else 'stuff'}): {c['segments']} segments "
            f"in {c['pictures']} pictures"
            for c in found["classes"]
            if c["segments"] and not self.classes.agnostic
        ]
        if self.overlap_rule is not None:
            lines.append(
                f"overlaps: {overlaps['pixels']} pixels in {overlaps['pictures']} pictures; "
                f"rule: {self.overlap_rule}"
            )
        if merged := found["stuff_segments_merged"]:
            lines.append(f"stuff: {merged} segments became part of the one of their class")
        lines += self._problem_lines()
        lines.append(f"{found['errors']} errors, {found['warnings']} warnings")
        return "\n".join(lines)

    def _problem_lines(self) -> list[str]:
        lines = []
        for code, kind in CODES.items():
            found = [p for p in self.problems if p.code == code]
            if not found:
                continue
            change = found[0].as_dict(self.fix)["change"]
            lines.append(f"{kind.level}: {code} ({len(found)})")
            lines += [f"    {p.file}: {p.message}" for p in found[:MAX_EXAMPLES]]
            if len(found) > MAX_EXAMPLES:
                lines.append(f"    ... and {len(found) - MAX_EXAMPLES} more (--report lists all)")
            lines.append(f"  to mend it: {kind.mend}" + (f". Done: {change}" if change else ""))
        return lines

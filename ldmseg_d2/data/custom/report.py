"""What a check found: numbers and problems, as text and as JSON."""

import statistics
from collections import Counter
from typing import Any

from .check import Checked
from .classes import Classes
from .problems import CODES, Problem

__all__ = ["Report"]

HISTOGRAM_BINS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
BAR_WIDTH = 30


class Report:
    """Collects checked pictures.

    Args:
        classes: those of the data set.
        num_bits: see `Limits`.
        fix: whether problems are mended.
        overlap_rule: how overlaps were resolved; None: the format has none.
    """

    def __init__(self, classes: Classes, *, num_bits: int, fix: bool, overlap_rule: str | None):
        self.classes = classes
        self.num_bits = num_bits
        self.fix = fix
        self.overlap_rule = overlap_rule
        self.problems: list[Problem] = []
        self.num_photos = 0
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
            return
        if not self.classes.agnostic:
            for category in self.classes.categories:
                if not self._by_class[category["id"]]:
                    name = category["name"]
                    self.problems.append(Problem("class_unused", name, "it has no segment"))
            for name in self.classes.undecided:
                self.problems.append(
                    Problem("thing_stuff_undecided", name, "thing (countable) or stuff?")
                )

    @property
    def num_errors(self) -> int:
        """Problems of level "error"."""
        return sum(p.level == "error" for p in self.problems)

    @property
    def failed(self) -> bool:
        """Whether the data cannot be used: errors that nothing mended."""
        unmended = [p for p in self.problems if p.level == "error" and not self.fix]
        return bool(unmended) or not self.usable

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        counts = self._segments or [0]
        bins = [*HISTOGRAM_BINS, None]
        unannotated = sum(p.code == "photo_unannotated" for p in self.problems)
        return {
            "photos": self.num_photos,
            "photos_unannotated": unannotated,
            "pictures_usable": dict(self.usable),
            "segments": {
                "total": sum(self._segments),
                "min": min(counts),
                "median": statistics.median(counts),
                "max": max(counts),
                "limit": 2**self.num_bits - 1,
                "pictures_over_limit": sum(p.code == "too_many_segments" for p in self.problems),
                "histogram": [
                    {
                        "from": low,
                        "below": high,
                        "pictures": sum(low <= n and (high is None or n < high) for n in counts)
                        if self._segments
                        else 0,
                    }
                    for low, high in zip(bins, bins[1:])
                ],
            },
            "classes": [
                {
                    "name": c["name"],
                    "isthing": c["isthing"],
                    **{k: self._by_class[c["id"]][k] for k in ("segments", "pictures", "pixels")},
                }
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

    def text(self, *, max_examples: int = 5) -> str:
        """For people: the numbers, then the problems by kind.

        Args:
            max_examples: files named for each kind of problem.
        """
        content = self.as_dict()
        segments = content["segments"]
        usable = ", ".join(f"{n} {split}" for split, n in sorted(self.usable.items())) or "none"
        lines = [
            f"photos: {content['photos']} ({content['photos_unannotated']} without annotation); "
            f"pictures to use: {usable}",
            f"segments a picture: min {segments['min']}, median {segments['median']:g}, "
            f"max {segments['max']}; {segments['pictures_over_limit']} pictures have more than "
            f"{segments['limit']} ({self.num_bits} bits)",
            *self._histogram(segments["histogram"]),
        ]
        if self.classes.agnostic:
            lines.append("classes: none (class-agnostic)")
        else:
            lines.append("classes:")
            lines += [
                f"  {c['name']} ({'thing' if c['isthing'] else 'stuff'}): {c['segments']} segments "
                f"in {c['pictures']} pictures"
                for c in content["classes"]
                if c["segments"]
            ]
        if self.overlap_rule is not None:
            lines.append(
                f"overlaps: {content['overlaps']['pixels']} pixels in "
                f"{content['overlaps']['pictures']} pictures; rule: {self.overlap_rule}"
            )
        if content["stuff_segments_merged"]:
            lines.append(
                f"stuff: {content['stuff_segments_merged']} segments became part of the one of "
                "their class"
            )
        lines += self._problem_lines(max_examples)
        lines.append(f"{content['errors']} errors, {content['warnings']} warnings")
        return "\n".join(lines)

    @staticmethod
    def _histogram(bins: list[dict[str, Any]]) -> list[str]:
        most = max((b["pictures"] for b in bins), default=0) or 1
        lines = []
        for entry in bins:
            if entry["pictures"]:
                low, high = entry["from"], entry["below"]
                name = f"{low}+" if high is None else str(low)
                name = name if high is None or high == low + 1 else f"{low}-{high - 1}"
                bar = "#" * max(1, round(BAR_WIDTH * entry["pictures"] / most))
                lines.append(f"  {name:>8} {bar} {entry['pictures']}")
        return lines

    def _problem_lines(self, max_examples: int) -> list[str]:
        lines = []
        for code, kind in CODES.items():
            found = [p for p in self.problems if p.code == code]
            if not found:
                continue
            change = found[0].as_dict(self.fix)["change"]
            lines.append(f"{kind.level}: {code} ({len(found)})")
            lines += [f"    {p.file}: {p.message}" for p in found[:max_examples]]
            if len(found) > max_examples:
                lines.append(f"    ... and {len(found) - max_examples} more (--report lists all)")
            lines.append(f"  to mend it: {kind.mend}" + (f". Done: {change}" if change else ""))
        return lines

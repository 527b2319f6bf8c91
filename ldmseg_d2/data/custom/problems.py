"""Everything that can be wrong with a user's data: what it is called, and how it is mended."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

__all__ = ["CODES", "InputError", "Problem"]


class InputError(ValueError):
    """The input as a whole cannot be read: no check of single pictures is possible."""


class Kind(NamedTuple):
    """A kind of problem: `error` or `warning`, what the user can do, what `--fix` does."""

    level: str
    mend: str
    fix: str


CODES = {
    "photo_missing": Kind(
        "error", "put the photo into --photos, or delete its annotation", "picture left out"
    ),
    "photo_unreadable": Kind("error", "copy or export the photo again", "picture left out"),
    "unsafe_name": Kind(
        "error", "name files relative to their folder, without '..'", "picture left out"
    ),
    "photo_twice": Kind("error", "keep one annotation of each photo", "the first one is kept"),
    "stem_twice": Kind(
        "error", "masks belong to photos by name without suffix: rename one", "first photo kept"
    ),
    "name_clash": Kind(
        "error", "rename one: the names must differ in more than suffix and case", "renamed"
    ),
    "annotation_orphan": Kind(
        "error", "list its picture under 'images', or delete it", "annotation left out"
    ),
    "annotation_unreadable": Kind("error", "write or export the file again", "picture left out"),
    "bad_shape": Kind("error", "draw or export this segment again", "segment left out"),
    "size_mismatch": Kind(
        "error", "export annotations at the photo's size", "resized by nearest neighbour"
    ),
    "aspect_mismatch": Kind(
        "error", "pair the right files, or turn the photo upright first", "picture left out"
    ),
    "id_invalid": Kind(
        "error", "give every segment an id of its own, 1 to 2^24 - 1", "segment left out"
    ),
    "id_not_in_mask": Kind(
        "error", "write mask and JSON together, and the mask as PNG", "entry removed"
    ),
    "id_not_in_json": Kind(
        "error",
        "add the id to segments_info",
        "entry added where there is one class, else made void",
    ),
    "unknown_class": Kind(
        "error", "add the class to --classes, or correct its name", "segment made void"
    ),
    "too_many_segments": Kind(
        "error",
        "raise MODEL.LDMSEG.NUM_BITS and --num-bits, or cut the photo up",
        "smallest segments made void",
    ),
    "depth_missing": Kind(
        "error", "put the depth PNG into --depth under the photo's name", "depth all invalid (0)"
    ),
    "depth_unreadable": Kind("error", "write a 16-bit gray PNG", "depth all invalid (0)"),
    "depth_size": Kind(
        "error",
        "write depth at the photo's size",
        "resized by nearest neighbour, or all invalid (0) where the aspect differs",
    ),
    "nothing_left": Kind("error", "mend the problems above, or check --photos", "none possible"),
    "photo_unannotated": Kind("warning", "annotate it, or ignore this", "photo left out"),
    "mask_unused": Kind("warning", "put its photo into --photos", "mask left out"),
    "empty": Kind("warning", "annotate it, or ignore this", "picture left out"),
    "tiny_segment": Kind("warning", "lower --min-area to keep it", "made void"),
    "no_pixels": Kind(
        "warning", "it is outside the picture or covered: try --overlap area", "left out"
    ),
    "shape_ignored": Kind("warning", "draw polygons or masks", "left out"),
    "box_as_segment": Kind(
        "warning", "a filled rectangle is a poor mask: draw polygons", "taken as it is"
    ),
    "several_annotations": Kind(
        "warning", "mark the right one as ground truth", "ground truth, else the first, is taken"
    ),
    "class_unused": Kind("warning", "remove it from --classes, or ignore this", "class kept"),
    "thing_stuff_undecided": Kind("warning", "name stuff classes by --stuff", "taken as things"),
    "no_validation": Kind("warning", "raise --val-fraction", "none possible"),
}
# The tool cannot take such input in any other way, so it always does what `fix` says.
ALWAYS = {
    "box_as_segment",
    "class_unused",
    "mask_unused",
    "no_pixels",
    "photo_unannotated",
    "several_annotations",
    "shape_ignored",
    "thing_stuff_undecided",
}


@dataclass(frozen=True)
class Problem:
    """One problem.

    Args:
        code: a key of `CODES`.
        file: the file, and the place in it, that it is about.
        message: what was found, and what was expected.
    """

    code: str
    file: str
    message: str

    @property
    def level(self) -> str:
        """ "error" or "warning"."""
        return CODES[self.code].level

    def as_dict(self, fix: bool) -> dict[str, Any]:
        """For the report; `change` says what was done about it: None where nothing was.

        Args:
            fix: whether `--fix` was given.
        """
        kind = CODES[self.code]
        change = kind.fix if fix or self.code in ALWAYS else None
        return {"level": kind.level, **asdict(self), "mend": kind.mend, "change": change}

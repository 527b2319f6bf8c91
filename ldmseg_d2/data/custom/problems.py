"""Everything that can be wrong with a user's data: what it is called, and how it is mended."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class InputError(ValueError):
    """The input as a whole cannot be read: no check of single pictures is possible."""


class Kind(NamedTuple):
    """A kind of problem: `error` or `warning`, what the user can do, what `--fix` does."""

    level: str
    mend: str
    fix: str


def _error(mend: str, fix: str) -> Kind:
    return Kind("error", mend, fix)


def _warning(mend: str, fix: str) -> Kind:
    return Kind("warning", mend, fix)


RESIZED = "resized by nearest neighbour"
CODES = {
    "photo_missing": _error("put the photo into --photos", "picture left out"),
    "photo_unreadable": _error("copy or export the photo again", "picture left out"),
    "unsafe_name": _error("name files relative to their folder, without '..'", "picture left out"),
    "photo_twice": _error("keep one annotation of each photo", "the first one is kept"),
    "stem_twice": _error("masks belong to names without suffix: rename one", "first photo kept"),
    "name_clash": _error("rename one: they must differ in more than suffix and case", "renamed"),
    "annotation_orphan": _error("list its picture under 'images'", "annotation left out"),
    "annotation_unreadable": _error("write or export the file again", "picture left out"),
    "bad_shape": _error("draw or export this segment again", "segment left out"),
    "size_mismatch": _error("export annotations at the photo's size", RESIZED),
    "aspect_mismatch": _error("pair the right files, or turn the photo first", "picture left out"),
    "id_invalid": _error("give every segment an id, 1 to 2^24 - 1", "segment left out"),
    "id_not_in_mask": _error("write mask and JSON together, the mask as PNG", "entry removed"),
    "id_not_in_json": _error(
        "add the id to segments_info", "void, or added if there are no classes"
    ),
    "unknown_class": _error("correct its name, or add it to --classes", "segment made void"),
    "too_many_segments": _error(
        "raise NUM_BITS and --num-bits, or cut it up", "smallest made void"
    ),
    "depth_missing": _error("put it into --depth under the photo's name", "depth all invalid (0)"),
    "depth_unreadable": _error("write a 16-bit gray PNG", "depth all invalid (0)"),
    "depth_size": _error("write depth at the photo's size", f"{RESIZED}, or all invalid (0)"),
    "nothing_left": _error("mend the problems above, or check --photos", "none possible"),
    "photo_unannotated": _warning("annotate it, or ignore this", "photo left out"),
    "mask_unused": _warning("put its photo into --photos", "mask left out"),
    "empty": _warning("annotate it, or ignore this", "picture left out"),
    "tiny_segment": _warning("lower --min-area to keep it", "made void"),
    "no_pixels": _warning("outside the picture or covered: try --overlap area", "left out"),
    "shape_ignored": _warning("draw polygons or masks", "left out"),
    "box_as_segment": _warning("a rectangle is a poor mask: draw polygons", "taken as it is"),
    "several_annotations": _warning("mark the ground truth", "ground truth, else the first, taken"),
    "class_unused": _warning("remove it from --classes, or ignore this", "class kept"),
    "thing_stuff_undecided": _warning("name stuff classes by --stuff", "taken as things"),
    "no_validation": _warning("raise --val-fraction", "none possible"),
}
# The tool cannot take such input in any other way, so it always does what `fix` says.
ALWAYS = {
    *("box_as_segment", "class_unused", "mask_unused", "no_pixels", "photo_unannotated"),
    *("several_annotations", "shape_ignored", "thing_stuff_undecided"),
}


@dataclass(frozen=True)
class Problem:
    """One problem: a key of `CODES`, the file and the place in it, and what was found."""

    code: str
    file: str
    message: str

    @property
    def level(self) -> str:
        """ "error" or "warning"."""
        return CODES[self.code].level

    def as_dict(self, fix: bool) -> dict[str, Any]:
        """For the report; `change` says what was done about it (None: nothing), given `--fix`."""
        kind = CODES[self.code]
        change = kind.fix if fix or self.code in ALWAYS else None
        return {"level": kind.level, **asdict(self), "mend": kind.mend, "change": change}

"""Functions on arrays and tensors: bit codes of ids, and panoptic id maps."""

from .bit_codes import code_matrix, decode_bits, encode_bits, gray_code, semantic_codes
from .depth import DepthNormalization
from .matching import PositionPull, match_ids
from .panoptic import assign_ids, keep_largest, pixel_areas, relabel, segment_masks
from .regions import connected_regions

__all__ = [
    "DepthNormalization",
    "PositionPull",
    "assign_ids",
    "code_matrix",
    "connected_regions",
    "decode_bits",
    "encode_bits",
    "gray_code",
    "keep_largest",
    "match_ids",
    "pixel_areas",
    "relabel",
    "segment_masks",
    "semantic_codes",
]

"""Segment ids: bit codes, operations on id maps, and which id a segment gets."""

from .bit_codes import code_matrix, decode_bits, encode_bits, gray_code, semantic_codes
from .connected_regions import connected_regions
from .id_maps import assign_ids, keep_largest, pixel_areas, relabel, segment_masks
from .matching import PositionPull, match_ids

__all__ = [
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

"""Segment ids: bit codes, operations on id maps, and which id a segment gets."""

from .bit_codes import code_matrix, encode_bits, semantic_codes
from .id_maps import keep_largest, pixel_areas, random_id_table, random_ids, relabel
from .matching import matched_id_table

__all__ = [
    "code_matrix",
    "encode_bits",
    "keep_largest",
    "matched_id_table",
    "pixel_areas",
    "random_id_table",
    "random_ids",
    "relabel",
    "semantic_codes",
]

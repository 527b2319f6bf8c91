"""Functions on tensors: bit codes of ids, and panoptic id maps."""

from .bit_codes import code_matrix, decode_bits, encode_bits, gray_code, semantic_codes
from .depth import DepthNormalization
from .panoptic import assign_ids, keep_largest, match_ids, relabel, segment_areas, segment_masks

__all__ = [
    "DepthNormalization",
    "assign_ids",
    "code_matrix",
    "decode_bits",
    "encode_bits",
    "gray_code",
    "keep_largest",
    "match_ids",
    "relabel",
    "segment_areas",
    "segment_masks",
    "semantic_codes",
]

"""Functions that return pictures as uint8 (H, W, 3) RGB arrays; they write no files."""

from .bits import draw_bits, draw_latents
from .layout import add_title, denoising_strip, fit, grid, side_by_side
from .panoptic import align_ids, draw_panoptic, enlarge, segment_colors

__all__ = [
    "add_title",
    "align_ids",
    "denoising_strip",
    "draw_bits",
    "draw_latents",
    "draw_panoptic",
    "enlarge",
    "fit",
    "grid",
    "segment_colors",
    "side_by_side",
]

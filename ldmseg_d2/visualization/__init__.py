"""Functions that return pictures as uint8 (H, W, 3) RGB arrays; they write no files."""

from .bits import draw_bits, draw_latents
from .depth import depth_range, draw_depth
from .layout import add_title, denoising_strip, fit, grid, shrink, side_by_side
from .overlay import enlarge
from .panels import PANELS, Style, draw_annotations, draw_outputs, output_segments
from .panoptic import align_ids, draw_panoptic, segment_colors
from .semantic import class_colors, class_map, draw_legend, draw_semantic

__all__ = [
    "PANELS",
    "Style",
    "add_title",
    "align_ids",
    "class_colors",
    "class_map",
    "denoising_strip",
    "depth_range",
    "draw_annotations",
    "draw_bits",
    "draw_depth",
    "draw_latents",
    "draw_legend",
    "draw_outputs",
    "draw_panoptic",
    "draw_semantic",
    "enlarge",
    "fit",
    "grid",
    "output_segments",
    "segment_colors",
    "shrink",
    "side_by_side",
]

"""Functions that return pictures as uint8 (H, W, 3) RGB arrays; they write no files."""

from .depth_picture import depth_range, draw_depth
from .panoptic_picture import align_ids, draw_panoptic, segment_colors
from .photo_panels import PANELS, Style, draw_annotations, draw_outputs, output_segments
from .picture_layout import enlarge, fit, grid
from .semantic_picture import class_map, draw_semantic

__all__ = [
    "PANELS",
    "Style",
    "align_ids",
    "class_map",
    "depth_range",
    "draw_annotations",
    "draw_depth",
    "draw_outputs",
    "draw_panoptic",
    "draw_semantic",
    "enlarge",
    "fit",
    "grid",
    "output_segments",
    "segment_colors",
]

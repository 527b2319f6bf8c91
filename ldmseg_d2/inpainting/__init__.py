"""Completing masks: given parts, several draws and their consensus, patterns that erase."""

from .consensus import consensus
from .draws import join_draws, repeat_draws
from .given_parts import GivenParts, put_back, read_given_parts, resize_nearest
from .given_segments import GivenSegments, encode_given
from .training_cells import draw_known_latents

__all__ = [
    "GivenParts",
    "GivenSegments",
    "consensus",
    "draw_known_latents",
    "encode_given",
    "join_draws",
    "put_back",
    "read_given_parts",
    "repeat_draws",
    "resize_nearest",
]

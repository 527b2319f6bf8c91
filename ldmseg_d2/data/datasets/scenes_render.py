"""Turns the layout of a scene into pixels: photo, segment ids and depth.

The photo is painted from far to near on a grid twice as fine as the picture and averaged, so
that edges are smooth; labels and depth are read at every second point of that grid. Colours
are integers throughout: rounding differs on no machine, so the bytes can be pinned by a test.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from .scenes_layout import GRASS, MOUNTAIN, ROAD, STUFF, UNITS, Item, Layout
from .scenes_shapes import CIRCLE, Draws, Polygon

FINE = 2  # points a pixel, in each direction
MIN_AREA_AT_64 = 24  # pixels of a 64 x 64 picture
_SHIFT = 4  # cv2's fractional bits


@dataclass(frozen=True)
class Layer:
    """An object in the picture."""

    item: Item
    depth: int  # 1/256 m, the same for the whole object
    top: int  # of the patch, on the fine grid
    left: int
    patch: np.ndarray  # (h, w, 4) uint8: RGB and 255 where the object is
    visible: np.ndarray  # (size, size) bool, not hidden by nearer layers


@dataclass(frozen=True)
class Rendered:
    """`stuff`: (size, size) uint8 index into STUFF of what lies behind the layers."""

    image: np.ndarray  # (size, size, 3) uint8 RGB
    stuff: np.ndarray
    stuff_depth: np.ndarray  # (size, size) int64, 1/256 m; 0 for the sky
    layers: list[Layer]  # nearest first


def min_area(size: int) -> int:
    """Least visible pixels of a segment at this size; below it there is no segment."""
    return -(-MIN_AREA_AT_64 * size * size // (64 * 64))


def render(layout: Layout, draws: Draws, size: int) -> Rendered:
    """Renders at size x size pixels; `draws` gives the sensor noise."""
    fine = size * FINE
    stuff = _stuff_map(layout, fine)
    layers = _visible_layers(layout, size)
    canvas = _background(layout, stuff)
    _paint_shadows(layout, canvas, layers)
    for layer in reversed(layers):
        _paint_layer(layout, canvas, layer)
    blocks = sum(canvas[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE))
    # The difference of two bytes: triangular noise, zero on average.
    plus, minus = draws.bytes(2 * size * size * 3).reshape(2, size, size, 3).astype(np.int32)
    photo = blocks * layout.exposure // (100 * FINE * FINE)
    photo += (plus - minus) * layout.noise >> 8
    sample = slice(FINE - 1, None, FINE)
    labels = stuff[sample, sample]
    rows = _centres(fine)[sample, None] - layout.horizon
    depth = np.where(labels == 0, 0, layout.depth(np.maximum(rows, 1).astype(np.int64)))
    return Rendered(np.clip(photo, 0, 255).astype(np.uint8), labels, depth, layers)


def _centres(fine: int) -> np.ndarray:
    """Positions of the points of the fine grid in units, (fine,) int32."""
    return ((2 * np.arange(fine, dtype=np.int64) + 1) * UNITS // (2 * fine)).astype(np.int32)


def _fixed(points: np.ndarray, fine: int) -> np.ndarray:
    """Points in units as cv2's fixed-point coordinates on the fine grid."""
    # Point i of the grid is at (i + 1/2) of its cells, and at i for cv2.
    return ((points * (fine << _SHIFT)) // UNITS - (1 << (_SHIFT - 1))).astype(np.int32)


def _fill(canvas: np.ndarray, polygon: Polygon | np.ndarray, value: int, fine: int) -> None:
    """Fills a polygon, in units, in a map whose rows are the lowest of the picture."""
    fixed = _fixed(np.array(polygon, np.int64) - [0, (fine - len(canvas)) * UNITS // fine], fine)
    cv2.fillPoly(canvas, [fixed], value, cv2.LINE_8, _SHIFT)


def _stuff_map(layout: Layout, fine: int) -> np.ndarray:
    """(fine, fine) uint8 index into STUFF."""
    stuff = np.zeros((fine, fine), np.uint8)
    for ridge in layout.mountains:
        _fill(stuff, ridge, STUFF.index(MOUNTAIN), fine)
    below = _centres(fine) > layout.horizon
    ground = np.full((int(below.sum()), fine), STUFF.index(GRASS), np.uint8)
    for name, polygon in layout.ground:
        _fill(ground, polygon, STUFF.index(name), fine)
    stuff[below] = ground
    return stuff


@lru_cache(maxsize=1)
def _texture() -> tuple[np.ndarray, np.ndarray]:
    """Two periodic (256, 256) int32 textures of about -128..127: rough, and smooth for clouds."""
    draws = Draws([20240])
    octaves = []
    for cell in (1, 2, 4, 8, 16, 32, 64):
        grid = draws.bytes((256 // cell) ** 2).reshape(256 // cell, -1).astype(np.int32)
        grid = grid.repeat(cell, 0).repeat(cell, 1)
        for axis in (0, 1):
            rolled = [np.roll(grid, shift, axis) for shift in range(cell)]
            grid = sum(rolled[1:], rolled[0]) // cell
        octaves.append(grid - 128)
    rough = octaves[0] // 3 + octaves[1] // 2 + octaves[2] // 2 + octaves[4] // 2
    smooth = octaves[3] // 4 + octaves[4] // 2 + octaves[5] + octaves[6] // 2
    return rough, smooth


def _background(layout: Layout, stuff: np.ndarray) -> np.ndarray:
    """Paints what lies behind the objects, (fine, fine, 3) int32."""
    fine = len(stuff)
    centres = _centres(fine)
    first = int((centres <= layout.horizon).sum())
    light = layout.light
    canvas = np.empty((fine, fine, 3), np.int32)
    canvas[:first] = _sky(layout, centres[:first], centres)
    _paint_mountains(layout, canvas, stuff, first)

    # The texture lies on the ground in perspective, and fades where it would be finer than a point.
    rough, _ = _texture()
    oy, ox = layout.texture_at
    offset = np.maximum(centres[first:] - layout.horizon, 1)[:, None]
    u = (centres[None] - UNITS // 2) * 110 // offset + ox
    v = 200000 // (offset + 60) + oy
    grain = rough[v & 255, u & 255] * np.minimum(offset, 1400) // 1400
    ground = stuff[first:]
    table = np.array([layout.colors.get(name, (0, 0, 0)) for name in STUFF], np.int32)
    strength = np.array([0, 0, 90, 40, 30], np.int32)  # of the texture, per 256
    color = table[ground] + (grain * strength[ground] >> 8)[..., None]
    marks = np.zeros_like(ground)
    for mark in layout.marks:
        _fill(marks, mark, 255, fine)
    color[(marks > 0) & (ground == STUFF.index(ROAD))] = (226, 222, 206)
    color = color * np.array(light.tint, np.int32) >> 8
    canvas[first:] = _in_haze(layout, color, (90 * 260 // (offset + 260))[..., None])
    return canvas


def _in_haze(layout: Layout, color: np.ndarray, haze: np.ndarray | int) -> np.ndarray:
    """Blends `color` by haze / 256 with the sky's lower colour."""
    return color + ((np.array(layout.light.sky_bottom, np.int32) - color) * haze >> 8)


def _paint_mountains(layout: Layout, canvas: np.ndarray, stuff: np.ndarray, first: int) -> None:
    """Paints rock with snow on high peaks; the foot lies in the haze. `first`: ground's top row."""
    rows, cols = (stuff[:first] == STUFF.index(MOUNTAIN)).nonzero()
    if len(rows) == 0:
        return
    centres = _centres(len(canvas))
    rough, _ = _texture()
    oy, ox = layout.texture_at
    above = layout.horizon - centres[rows]
    grain = rough[(oy + centres[rows] // 24) & 255, (ox + centres[cols] // 24) & 255]
    color = np.array(layout.colors[MOUNTAIN], np.int32) + (grain // 4)[:, None]
    snow = above + grain * 2 > 900
    color[snow] = np.array((236, 240, 246), np.int32) + (grain[snow] // 6)[:, None]
    color = color * np.array(layout.light.tint, np.int32) >> 8
    canvas[rows, cols] = _in_haze(layout, color, np.clip(170 - above // 7, 50, 170)[:, None])


def _sky(layout: Layout, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Gradient, sun or moon, clouds or stars; (rows, cols, 3) int32."""
    light = layout.light
    top, bottom = np.array(light.sky_top, np.int32), np.array(light.sky_bottom, np.int32)
    down = np.minimum(rows * 256 // layout.horizon, 256)[:, None]
    sky = np.repeat((top + ((bottom - top) * down >> 8))[:, None], len(cols), 1).astype(np.int32)
    oy, ox = layout.texture_at
    squared = (rows[:, None] - layout.sun_y) ** 2 + (cols[None] - layout.sun_x) ** 2
    glow = 160 * 90000 // (squared + 140000)  # no edge, unlike a cut-off ramp
    glow[squared < 170 * 170] = 256
    _, smooth = _texture()
    cloud = smooth[(oy + rows[:, None] // 14) & 255, (ox + cols[None] // 26) & 255]
    cloud = np.clip((cloud - 45 + layout.clouds // 2) * 4, 0, 190 if layout.clouds else 0)
    white = bottom * 5 // 4 if light.stars else (255 + bottom) // 2
    sky += (np.array(light.sun, np.int32) - sky) * glow[..., None] >> 8
    sky += (white - sky) * cloud[..., None] >> 8
    if light.stars:
        spots = _texture()[0][(oy + rows[:, None] // 32) & 255, (ox + cols[None] // 32) & 255]
        sky[(spots > 128) & (cloud < 40)] = (190, 190, 200)
    return sky


def _visible_layers(layout: Layout, size: int) -> list[Layer]:
    """Draws objects from near to far and leaves out those of which too little can be seen.

    A nearer object is decided before what it hides, so leaving one out uncovers what is decided
    later and never changes an earlier decision.
    """
    layers: list[Layer] = []
    free = np.ones((size, size), bool)
    for item in layout.items:
        layer = _draw_item(layout, item, size)
        if layer is None:
            continue
        visible = layer.visible & free
        if np.count_nonzero(visible) >= min_area(size):
            free &= ~visible
            layers.append(replace(layer, visible=visible))
    return layers


def _draw_item(layout: Layout, item: Item, size: int) -> Layer | None:
    """Draws an object alone; None where it lies outside of the picture."""
    fine = size * FINE
    points = np.array([p for _, polygon in item.parts for p in polygon], np.int64)
    points = points * ((-1 if item.mirrored else 1) * item.height, -item.height) // 1000
    points += (item.x, item.base)
    low, high = points.min(0) * fine // UNITS - 1, points.max(0) * fine // UNITS + 2
    left, top = np.maximum(low, 0).tolist()
    # Nothing is painted at or below the line where the object meets the ground: there the
    # ground is nearer.
    ground_row = int((_centres(fine) < layout.horizon + item.offset).sum())
    right, bottom = min(int(high[0]), fine), min(int(high[1]), fine, ground_row)
    if right <= left or bottom <= top:
        return None
    patch = np.zeros((bottom - top, right - left, 4), np.uint8)
    fixed = _fixed(points, fine) - np.array((left << _SHIFT, top << _SHIFT), np.int32)
    stops = np.cumsum([len(polygon) for _, polygon in item.parts])[:-1]
    for (color, _), polygon in zip(item.parts, np.split(fixed, stops)):
        cv2.fillPoly(patch, [polygon], (*color, 255), cv2.LINE_8, _SHIFT)
    shape = np.zeros((fine, fine), bool)
    shape[top:bottom, left:right] = patch[..., 3] > 0
    depth = int(layout.depth(np.array(item.offset, np.int64)))
    return Layer(item, depth, top, left, patch, shape[FINE - 1 :: FINE, FINE - 1 :: FINE])


def _paint_shadows(layout: Layout, canvas: np.ndarray, layers: list[Layer]) -> None:
    """Darkens the ground under what stands on it."""
    fine = len(canvas)
    shadow = np.zeros((fine, fine), np.uint8)
    for layer in layers:
        item, width = layer.item, layer.patch.shape[1] * UNITS // fine
        if item.base < layout.horizon + item.offset:
            continue
        lean = (item.x - layout.sun_x) * item.height // (4 * UNITS)
        oval = np.array(CIRCLE[1::2], np.int64) * (width * 11 // 20, max(width // 9, 30)) // 1000
        _fill(shadow, oval + (item.x + lean, item.base), 255, fine)
    shadow[_centres(fine) <= layout.horizon] = 0
    dark = shadow > 0
    canvas[dark] = canvas[dark] * 160 >> 8


def _paint_layer(layout: Layout, canvas: np.ndarray, layer: Layer) -> None:
    """Paints an object with light from the sun's side, texture, a dark outline and haze."""
    height, width = layer.patch.shape[:2]
    shape = layer.patch[..., 3]
    color = layer.patch[..., :3].astype(np.int32)
    ramp = np.arange(width, dtype=np.int32) * 72 // width - 36
    if layer.item.x > layout.sun_x:
        ramp = -ramp
    rough, _ = _texture()
    oy, ox = layout.texture_at
    grain = rough[np.arange(oy, oy + height)[:, None] & 255, np.arange(ox, ox + width) & 255]
    shade = 256 + ramp[None] + grain // 6
    inner = cv2.erode(shape, np.ones((3, 3), np.uint8), borderValue=255)
    shade[inner == 0] = shade[inner == 0] * 5 // 8
    color = color * shade[..., None] >> 8
    color = color * np.array(layout.light.tint, np.int32) >> 8
    color = _in_haze(layout, color, 90 * 260 // (layer.item.offset + 260))
    view = canvas[layer.top : layer.top + height, layer.left : layer.left + width]
    np.copyto(view, np.clip(color, 0, 255), where=(shape > 0)[..., None])

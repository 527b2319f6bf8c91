"""Draws the layout of a generated scene: camera, light, ground, objects; independent of pixels.

Lengths in the picture are in units of 1/4096 of its side, x to the right, y down. The camera
looks along a flat ground: a point of the ground at distance z metres lies `offset = FOCAL * h / z`
units below the horizon (h: height of the camera), and an object that stands there is
`offset / h` units tall a metre. So a thing shrinks with distance, by construction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import scenes_shapes as shapes
from .scenes_shapes import Color, Draws, Part, Polygon

UNITS = 4096
FOCAL = 4500  # units; a field of view of 49 degrees
MAX_DEPTH = 240 * 256  # of ground and mountains, in 1/256 m; things are nearer than 150 m
STUFF = SKY, MOUNTAIN, GRASS, ROAD, WATER = "sky", "mountain", "grass", "road", "water"
Range = tuple[int, int]  # least, most

# fmt: off
# Class: shape, height in millimetres, height in the picture in units, how often, colours.
THINGS: dict[str, tuple[Callable, Range, Range, int, list[Color]]] = {
    "person": (shapes.person, (1550, 1900), (660, 1750), 6, [
        (205, 45, 45), (40, 90, 200), (245, 200, 50), (240, 240, 235), (150, 60, 170),
        (30, 160, 150), (240, 130, 40), (235, 120, 165)]),
    "car": (shapes.car, (1400, 1900), (400, 1000), 5, [
        (200, 30, 35), (35, 80, 180), (235, 235, 235), (245, 190, 30), (45, 48, 54),
        (30, 150, 140), (160, 165, 175), (230, 110, 30)]),
    "house": (shapes.house, (4800, 6800), (900, 2100), 4, [
        (236, 222, 190), (214, 150, 110), (190, 200, 210), (240, 240, 235), (200, 110, 90),
        (230, 200, 110), (160, 180, 150)]),
    "tree": (shapes.tree, (4500, 8000), (800, 2400), 5, [
        (40, 105, 50), (90, 140, 45), (25, 80, 70), (190, 120, 40), (140, 150, 50),
        (60, 125, 85), (200, 80, 50)]),
    "cow": (shapes.cow, (1250, 1600), (480, 1050), 4, [
        (100, 62, 40), (235, 230, 222), (48, 42, 42), (170, 105, 60), (205, 170, 125)]),
    "balloon": (shapes.balloon, (12000, 16000), (560, 1500), 4, [
        (215, 40, 50), (40, 110, 205), (250, 170, 30), (120, 60, 160), (30, 150, 110),
        (235, 80, 140)]),
}
# fmt: on
_FREQUENCY = [name for name, thing in THINGS.items() for _ in range(thing[3])]
_STUFF_COLORS = {
    MOUNTAIN: [(110, 112, 130), (124, 108, 98), (86, 104, 96), (96, 92, 120), (146, 128, 116)],
    GRASS: [(88, 142, 60), (112, 152, 66), (140, 150, 80), (72, 122, 66), (168, 156, 92)],
    ROAD: [(104, 104, 110), (128, 124, 120), (150, 132, 108), (84, 86, 94)],
}
_POLE = [(60, 62, 70), (120, 122, 128), (132, 120, 108), (96, 84, 76)]


@dataclass(frozen=True)
class Light:
    """Time of day: colours 0..255; `tint` scales objects and ground by tint / 256."""

    sky_top: Color
    sky_bottom: Color
    tint: Color
    sun: Color
    stars: bool = False


_LIGHTS = [
    Light((62, 124, 214), (186, 216, 246), (264, 260, 250), (255, 250, 225)),
    Light((90, 150, 220), (215, 230, 240), (272, 266, 252), (255, 250, 230)),
    Light((112, 152, 214), (252, 226, 192), (268, 250, 222), (255, 240, 190)),
    Light((82, 68, 140), (252, 156, 96), (272, 214, 178), (255, 214, 130)),
    Light((132, 142, 158), (202, 208, 214), (226, 230, 238), (225, 228, 232)),
    Light((26, 34, 84), (96, 106, 152), (172, 180, 222), (240, 240, 225), stars=True),
]


@dataclass(frozen=True)
class Item:
    """One object; its base line is at (`x`, `base`), a balloon's above its ground point."""

    name: str | None  # None: an unlabelled one
    iscrowd: bool
    offset: int  # units below the horizon of the ground it stands on: gives its depth
    x: int
    base: int
    height: int  # units
    mirrored: bool
    parts: list[Part]  # in 1/1000 of the height


@dataclass
class Layout:
    """Everything about a scene but its pixels; polygons in units."""

    camera_mm: int
    horizon: int
    light: Light
    exposure: int  # percent
    sun_x: int
    sun_y: int
    clouds: int  # 0 (none) .. 100
    texture_at: tuple[int, int]
    noise: int  # amplitude of the sensor noise, grey levels
    colors: dict[str, Color]
    mountains: list[Polygon] = field(default_factory=list)
    ground: list[tuple[str, Polygon]] = field(default_factory=list)  # in paint order
    marks: list[Polygon] = field(default_factory=list)  # paint on the road
    items: list[Item] = field(default_factory=list)  # nearest first

    def depth(self, offset: np.ndarray) -> np.ndarray:
        """Depth in 1/256 m of ground `offset` units (int64, 1 or more) below the horizon."""
        return np.minimum(FOCAL * self.camera_mm * 256 // (1000 * offset), MAX_DEPTH)


def sample_layout(draws: Draws) -> Layout:
    """Draws a scene: mean of about 6.5 segments once it is rendered."""
    light = draws.choice(_LIGHTS)
    layout = Layout(
        camera_mm=draws.between(1700, 3400),
        horizon=draws.between(1500, 2250),
        light=light,
        exposure=draws.between(88, 110),
        sun_x=draws.between(200, UNITS - 200),
        sun_y=draws.between(200, 1300),
        clouds=draws.choice([0, 30, 60, 100]),
        texture_at=(draws.between(0, 255), draws.between(0, 255)),
        noise=draws.between(3, 9),
        colors={name: draws.choice(colors) for name, colors in _STUFF_COLORS.items()},
    )
    layout.colors[WATER] = tuple((a + b) // 2 for a, b in zip(light.sky_top, (50, 120, 150)))
    if draws.chance(60):
        layout.mountains = [_ridge(draws, layout.horizon) for _ in range(draws.between(1, 2))]
    _sample_ground(draws, layout, layout.horizon, UNITS - layout.horizon)
    _sample_items(draws, layout)
    return layout


def _ridge(draws: Draws, horizon: int) -> Polygon:
    """Midpoint displacement: 17 points of a ridge above the horizon, closed along it."""
    heights = [draws.between(60, 700), draws.between(60, 700)]
    for spread in (520, 260, 130, 65):
        finer = []
        for a, b in zip(heights, heights[1:]):
            finer += [a, max(20, (a + b) // 2 + draws.between(-spread, spread))]
        heights = [*finer, heights[-1]]
    top = max(heights)
    limit = max(320, min(top, horizon * 60 // 100))
    ridge = [(i * 256, horizon - h * limit // top) for i, h in enumerate(heights)]
    return [*ridge, (UNITS + 50, horizon), (-50, horizon)]


def _sample_ground(draws: Draws, layout: Layout, horizon: int, deepest: int) -> None:
    """Adds water and a road; what they leave is grass. `deepest`: rows below the horizon."""
    water = draws.choice([None, None, "sea", "lake", "lake"])
    road = draws.choice([None, None, "along", "along", "across"])
    shore = 0
    if water == "sea":
        shore = draws.between(160, deepest * 40 // 100)
        waves = [(x, horizon + shore + draws.between(-40, 60)) for x in range(0, UNITS + 1, 512)]
        layout.ground.append((WATER, [*waves, (UNITS, horizon), (0, horizon)]))
        road = "across" if road else None
    elif water == "lake":
        middle = draws.between(deepest * 30 // 100, deepest * 70 // 100)
        x = draws.choice([draws.between(0, 1200), draws.between(2900, UNITS)])
        half = draws.between(900, 1700), draws.between(middle * 25 // 100, middle * 55 // 100)
        lake = shapes.ellipse(x, horizon + middle, *half)
        wobbly = [(x + draws.between(-90, 90), y + draws.between(-30, 30)) for x, y in lake]
        layout.ground.append((WATER, wobbly))
    if road == "along":
        _road_along(draws, layout, horizon, deepest)
    elif road == "across":
        _road_across(draws, layout, horizon, deepest, shore)


def _road_along(draws: Draws, layout: Layout, horizon: int, deepest: int) -> None:
    """A road to the horizon, with a bend, and a dashed line in its middle."""
    vanishing, bend = draws.between(900, 3200), draws.between(-900, 900)
    slope, half = draws.between(-700, 700), draws.between(260, 480)

    def at(offset: int, side: int) -> tuple[int, int]:
        # The bend grows towards the horizon, as a curve of constant radius does.
        far = deepest - offset
        x = vanishing + slope * offset // 1000 + bend * far * far // (deepest * deepest)
        return x + side * half * offset // 1000, horizon + offset

    steps = [max(2, deepest * s * s // 64) for s in range(9)]
    edge = [at(s, 1) for s in steps] + [at(s, -1) for s in reversed(steps)]
    layout.ground.append((ROAD, edge))
    for z in range(6, 14, 2):
        near, far = deepest * 6 // z, deepest * 6 // (z + 1)
        (x0, y0), (x1, y1) = at(near, 0), at(far, 0)
        a, b = max(24, near // 28), max(16, far // 28)
        layout.marks.append([(x0 - a, y0), (x0 + a, y0), (x1 + b, y1), (x1 - b, y1)])


def _road_across(draws: Draws, layout: Layout, horizon: int, deepest: int, shore: int) -> None:
    """A road from the left to the right, nearer than the shore (units below the horizon)."""
    near = draws.between(max(shore + 500, deepest * 50 // 100), deepest * 90 // 100)
    far = max(shore + 120, near * 62 // 100)
    tilt = draws.between(-100, 100)
    top, bottom = horizon + far, horizon + near
    road = [(0, top), (UNITS, top + tilt), (UNITS, bottom + tilt), (0, bottom)]
    layout.ground.append((ROAD, road))
    for x in range(100, UNITS, 700):
        y = horizon + (far * 53 + near * 47) // 100 + tilt * x // UNITS
        layout.marks.append(shapes.box(x, y - 16, x + 330, y + 22))


def _sample_items(draws: Draws, layout: Layout) -> None:
    """Adds things, now and then a crowd or something unlabelled; nearest first."""
    palettes = {name: draws.shuffled(thing[4]) for name, thing in THINGS.items()}
    for _ in range(draws.choice([1, 1, 2, 2, 3, 3, 4, 4, 6])):
        name = draws.choice(_FREQUENCY)
        shape, height_mm, height_units, _, colors = THINGS[name]
        color = palettes[name].pop() if palettes[name] else draws.choice(colors)
        _place(draws, layout, name, False, shape(draws, color), height_mm, height_units)
    if draws.chance(16):
        parts = shapes.crowd(draws, THINGS["person"][4])
        _place(draws, layout, "person", True, parts, (1700, 1700), (600, 1000))
    if draws.chance(36):
        parts = shapes.unlabelled(draws, draws.choice(_POLE))
        _place(draws, layout, None, False, parts, (1800, 3000), (700, 1700))
    layout.items.sort(key=lambda item: -item.offset)


def _place(
    draws: Draws, layout: Layout, name: str | None, iscrowd: bool,
    parts: list[Part], height_mm: Range, height_units: Range,
) -> None:  # fmt: skip
    """Adds an item where its class may stand, far from the others; none where it may not."""
    size_mm = draws.between(*height_mm)
    horizon, taken = layout.horizon, layout.items
    flying = name == "balloon"
    road = name == "car" and any(ground == ROAD for ground, _ in layout.ground)
    best, best_gap = None, -1
    for _ in range(6):
        wanted = draws.between(*height_units)
        offset = min(wanted * layout.camera_mm // size_mm, UNITS - horizon - 60)
        x = draws.between(100, UNITS - 100)
        if not flying and offset > 8:
            if _ground_at(layout, x, horizon + offset - 8) != (ROAD if road else GRASS):
                continue
        # Depths stay distinct also in steps of 1/256 m: no two objects tie.
        if any(abs(offset - other.offset) < 6 for other in taken):
            continue
        gap = min((abs(x - other.x) for other in taken), default=UNITS)
        if gap > best_gap:
            best, best_gap = (offset, x), gap
    if best is None:
        return
    offset, x = best
    height = size_mm * offset // layout.camera_mm
    base = horizon + offset
    if flying:
        base = min(base, draws.between(height + 120, max(height + 130, horizon - 60)))
    taken.append(Item(name, iscrowd, offset, x, base, height, draws.chance(50), parts))


def _ground_at(layout: Layout, x: int, y: int) -> str:
    """Class of the ground at a point, by the crossing test; the last polygon painted wins."""
    for name, polygon in reversed(layout.ground):
        inside = False
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1]):
            if (y0 > y) != (y1 > y) and x < x0 + (x1 - x0) * (y - y0) // (y1 - y0):
                inside = not inside
        if inside:
            return name
    return GRASS

"""Shapes of the generated scenes: each object is a list of coloured polygons in its own units.

A unit is 1/1000 of the object's height: x to the right from the middle, y up from the ground.
Everything is integer arithmetic on raw PCG64 output, whose stream NumPy guarantees (NEP 19), so
that a scene is the same picture on any NumPy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Color = tuple[int, int, int]
Polygon = list[tuple[int, int]]
Part = tuple[Color, Polygon]

# cos and sin of 16 directions, times 1000.
CIRCLE = [
    (1000, 0), (924, 383), (707, 707), (383, 924), (0, 1000), (-383, 924), (-707, 707),
    (-924, 383), (-1000, 0), (-924, -383), (-707, -707), (-383, -924), (0, -1000), (383, -924),
    (707, -707), (924, -383),
]  # fmt: skip
_SKIN = [(236, 188, 155), (196, 140, 100), (135, 90, 60), (245, 205, 175)]
_GLASS = (70, 95, 120)
_TYRE = (28, 28, 32)


class Draws:
    """Integer draws from a bit generator; independent of NumPy's distribution code."""

    def __init__(self, entropy: Sequence[int]) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(entropy)))
        self._block: list[int] = []

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        if not self._block:
            self._block = (self._bits.random_raw(256) >> np.uint64(16)).tolist()
        return low + self._block.pop() % (high - low + 1)

    def chance(self, percent: int) -> bool:
        """True in `percent` of 100 draws."""
        return self.between(0, 99) < percent

    def choice(self, items: Sequence[Any]) -> Any:
        """One of `items`, all equally likely."""
        return items[self.between(0, len(items) - 1)]

    def shuffled(self, items: Sequence[Any]) -> list[Any]:
        """A permuted copy of `items` (Fisher-Yates)."""
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.between(0, i)
            items[i], items[j] = items[j], items[i]
        return items

    def bytes(self, count: int) -> np.ndarray:
        """`count` independent uniform uint8 values."""
        # "<u8": the bytes of a word come in the same order on any machine.
        return self._bits.random_raw((count + 7) // 8).astype("<u8").view(np.uint8)[:count]


def ellipse(cx: int, cy: int, rx: int, ry: int) -> Polygon:
    """A 16-gon; all in the units of the caller."""
    return [(cx + c * rx // 1000, cy + s * ry // 1000) for c, s in CIRCLE]


def box(x0: int, y0: int, x1: int, y1: int) -> Polygon:
    """An upright rectangle from corner (x0, y0) to (x1, y1)."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def darker(color: Color, percent: int) -> Color:
    """`color` at `percent` of its brightness, clipped to 255."""
    return tuple(min(255, c * percent // 100) for c in color)  # type: ignore[return-value]


def person(draws: Draws, color: Color) -> list[Part]:
    """A standing person; `color` is the shirt's."""
    trousers = draws.choice([(45, 50, 80), (60, 60, 64), (110, 85, 60), (35, 70, 60)])
    hair = draws.choice([(40, 28, 20), (90, 60, 30), (20, 20, 22), (190, 150, 80)])
    skin = draws.choice(_SKIN)
    stride, arm = draws.between(30, 90), draws.between(170, 230)
    legs = [(-30, 480), (-130, 470), (-70 - stride, 0), (-stride + 25, 0), (0, 380)]
    return [
        (darker(color, 80), [(-120, 800), (-arm, 450), (-arm + 70, 430), (-60, 780)]),
        (darker(color, 80), [(120, 800), (arm, 450), (arm - 70, 430), (60, 780)]),
        (trousers, legs),
        (trousers, [(-x, y) for x, y in legs]),
        (color, [(-150, 810), (150, 810), (125, 440), (-125, 440)]),
        (skin, ellipse(0, 895, 88, 100)),
        (hair, [(-92, 900), (-75, 985), (0, 1000), (75, 985), (92, 900), (40, 945), (-50, 945)]),
    ]


def car(draws: Draws, color: Color) -> list[Part]:
    """A car from its side; van or saloon."""
    if draws.chance(35):
        body = [(-1350, 180), (1350, 180), (1350, 520), (1050, 950), (-1300, 1000), (-1380, 700)]
        glass = [box(-1180, 580, -380, 880), [(-250, 580), (1150, 580), (920, 880), (-250, 880)]]
    else:
        body = [(-1420, 180), (1420, 180), (1430, 480), (1350, 580), (760, 650), (420, 980),
                (-560, 1000), (-950, 660), (-1400, 600)]  # fmt: skip
        glass = [[(-760, 640), (-480, 910), (-120, 910), (-120, 640)],
                 [(-10, 640), (-10, 910), (380, 890), (600, 640)]]  # fmt: skip
    parts = [(color, body), (darker(color, 72), box(-1400, 180, 1410, 330))]
    parts += [(_GLASS, g) for g in glass]
    parts.append(((250, 240, 190), box(1300, 430, 1425, 530)))
    parts.append(((190, 30, 30), box(-1400, 430, -1310, 540)))
    for x in (-850, 850):
        parts += [(_TYRE, ellipse(x, 215, 240, 215)), ((170, 172, 178), ellipse(x, 215, 110, 100))]
    return parts


def house(draws: Draws, color: Color) -> list[Part]:
    """A house with a gable or a hipped roof; `color` is the wall's."""
    half, eaves = draws.between(480, 700), draws.between(520, 620)
    roof = draws.choice([(150, 60, 45), (95, 70, 62), (70, 76, 92), (120, 44, 60)])
    top = 0 if draws.chance(50) else half * 55 // 100
    door = draws.choice([-1, 0, 1]) * half // 2
    parts = [
        (color, box(-half, 0, half, eaves)),
        (darker(roof, 75), box(half // 2, eaves, half // 2 + 110, 960)),
        (roof, [(-half - 80, eaves - 20), (half + 80, eaves - 20), (top, 1000), (-top, 1000)]),
        ((88, 58, 40), box(door - 75, 0, door + 75, 300)),
    ]
    glow = (250, 214, 120) if draws.chance(35) else (96, 128, 150)
    for x in (-half * 5 // 8, 0, half * 5 // 8):
        if abs(x - door) > 200:
            parts.append(((240, 238, 230), box(x - 95, 190, x + 95, 420)))
            parts.append((glow, box(x - 70, 215, x + 70, 395)))
    return parts


def tree(draws: Draws, color: Color) -> list[Part]:
    """A conifer or a leafy tree; `color` is the leaves'."""
    trunk = draws.choice([(92, 64, 42), (74, 54, 44), (120, 96, 74)])
    if draws.chance(40):
        parts: list[Part] = [(trunk, box(-45, 0, 45, 220))]
        for i, base in enumerate((130, 370, 610)):
            half = 300 - 70 * i
            shade = darker(color, 84 + 12 * i)
            parts.append((shade, [(-half, base), (half, base), (0, min(1000, base + 470))]))
        return parts
    parts = [(trunk, [(-65, 0), (65, 0), (40, 480), (-40, 480)])]
    side = draws.between(-30, 30)
    for cx, cy, r, shade in ((-160, 520, 190, 78), (170, 540, 190, 84), (side, 790, 210, 96)):
        parts.append((darker(color, shade), ellipse(cx, cy, r, r - 10)))
    parts.append((color, ellipse(side, 630, 230, 220)))
    parts.append((darker(color, 116), ellipse(side - 70, 760, 90, 80)))
    return parts


def cow(draws: Draws, color: Color) -> list[Part]:
    """A grazing animal from its side; `color` is the coat's."""
    spot = (245, 242, 236) if sum(color) < 380 else (60, 44, 38)
    parts = [(darker(color, 70), box(x, 0, x + 95, 420)) for x in (-480, 300)]
    parts += [(color, box(x, 0, x + 100, 420)) for x in (-590, 420)]
    parts.append((color, [(-640, 420), (-660, 820), (560, 850), (620, 700), (540, 400), (0, 360)]))
    parts.append((darker(color, 70), [(-650, 800), (-740, 450), (-700, 440), (-610, 790)]))
    low = draws.chance(40)
    dx, dy = (60, -330) if low else (0, 0)
    parts.append((color, [(430, 560), (560, 850), (760 + dx, 930 + dy), (700 + dx, 700 + dy)]))
    parts.append((darker(color, 88), [
        (620 + dx, 960 + dy), (800 + dx, 1000 + dy), (980 + dx, 760 + dy), (900 + dx, 680 + dy),
        (700 + dx, 740 + dy),
    ]))  # fmt: skip
    parts.append((spot, ellipse(-330 + draws.between(-80, 80), 640, 170, 130)))
    parts.append((spot, ellipse(170 + draws.between(-80, 80), 680, 130, 110)))
    return parts


def balloon(draws: Draws, color: Color) -> list[Part]:
    """A hot-air balloon with stripes."""
    second = draws.choice([(245, 240, 225), (250, 215, 80), (40, 50, 90), (225, 110, 60)])
    envelope = [*ellipse(0, 640, 360, 360)[:9], (-330, 520), (-110, 210), (110, 210), (330, 520)]
    ropes = [(-100, 220), (-60, 60), (-45, 60), (-80, 220)]
    parts: list[Part] = [((70, 56, 46), ropes), ((70, 56, 46), [(-x, y) for x, y in ropes])]
    for stripe, percent in ((color, 100), (second, 60), (color, 22)):
        parts.append((stripe, [(x * percent // 100, y) for x, y in envelope]))
    return [*parts, ((126, 88, 52), box(-75, 0, 75, 110))]


def unlabelled(draws: Draws, color: Color) -> list[Part]:
    """What no class covers: a street lamp, a sign or a rock."""
    kind = draws.between(0, 2)
    if kind == 0:
        lamp = [(-20, 960), (210, 1000), (210, 960), (20, 930)]
        light = ((255, 244, 200), box(120, 930, 210, 965))
        return [(color, box(-22, 0, 22, 970)), (color, lamp), light]
    if kind == 1:
        return [(darker(color, 80), box(-35, 0, 35, 600)), (color, box(-330, 520, 330, 1000)),
                ((238, 236, 226), box(-270, 580, 270, 940))]  # fmt: skip
    rock = [(-560, 0), (-480, 320), (-180, 600), (180, 640), (480, 400), (600, 0)]
    return [(color, rock), (darker(color, 125), [(-420, 300), (-160, 560), (160, 590), (40, 340)])]


def crowd(draws: Draws, colors: Sequence[Color]) -> list[Part]:
    """People in two rows, too close to tell apart; labelled as one segment with iscrowd."""
    parts: list[Part] = []
    members = draws.between(5, 8)
    for i in range(members):
        # Back row first: the front row hides its legs.
        back = i < members // 2
        column = i if back else i - members // 2
        x = column * 330 + (165 if back else 0) + draws.between(-40, 40) - members * 330 // 4
        raised, scale = (190, 78) if back else (0, draws.between(78, 84))
        for color, points in person(draws, draws.choice(colors)):
            placed = [(x + a * scale // 100, raised + b * scale // 100) for a, b in points]
            parts.append((color, placed))
    return parts

"""What the page shows: pictures of a session, and the list of its segments."""

import base64
import html
import io

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..visualization import draw_panoptic, enlarge, fit
from .session import Session

SEGMENTS, PHOTO, UNCERTAINTY = "segments", "photo", "uncertainty"
VIEWS = (SEGMENTS, PHOTO, UNCERTAINTY)
HEAT = "inferno"
# Small photos are enlarged by a whole factor to about the first, large ones reduced to the second.
_MIN_SIDE = 720
_MAX_SIDE = 1024
_SELECTED = (255, 221, 0)


def draw_session(
    session: Session, view: str = SEGMENTS, *, opacity: float = 0.55, names: bool = True
) -> tuple[np.ndarray, dict[int, str]]:
    """Draw a session.

    Segments have colours, outlines and names; kept pixels carry white dots, the selected segment a
    yellow outline, empty pixels dark stripes (unless nothing is segmented yet).

    Args:
        session: what to draw.
        view: one of :data:`VIEWS`.
        opacity: of segments and heat map over the photo, 0 to 1.
        names: write names on the segments that have room for one.

    Returns:
        (h, w, 3) uint8 RGB, of a size for screens; and the colour of each segment, "#rrggbb".
    """
    photo = fit(session.photo, _MAX_SIDE)
    height, width = photo.shape[:2]
    scale = max(1, round(_MIN_SIDE / max(height, width)))
    rows = (np.arange(height) + 0.5) * session.ids.shape[0] / height
    columns = (np.arange(width) + 0.5) * session.ids.shape[1] / width
    shown = np.ix_(rows.astype(np.int64), columns.astype(np.int64))  # nearest neighbours
    ids, given = session.ids[shown], session.given[shown]
    photo = enlarge(photo, scale)
    # The colours alone, which the list needs as well.
    flat = draw_panoptic(
        np.zeros((height, width, 3), np.uint8), ids, alpha=1.0, draw_boundaries=False, scale=scale
    )
    ids, given = _enlarge(ids, scale), _enlarge(given, scale)
    labels, places = np.unique(ids, return_index=True)
    colors = dict(zip(labels.tolist(), map(_to_hex, flat.reshape(-1, 3)[places].tolist())))
    colors.pop(0, None)
    if view == PHOTO or (view == SEGMENTS and not ids.any()):
        return photo, colors
    if view == UNCERTAINTY:
        return _draw_heat(photo, session.uncertainty, opacity), colors
    picture = cv2.addWeighted(photo, 1 - opacity, flat, opacity, 0)
    _draw_borders(picture, ids)
    _dot(picture, given)
    if session.selected is not None:
        mask = (ids == session.selected).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, _SELECTED, thickness=3)
    if names:
        written = {i: session.segment_name(i) for i in colors}
        picture = _write_names(picture, ids, written)
    return picture, colors


def _to_hex(color: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _draw_borders(picture: np.ndarray, ids: np.ndarray) -> None:
    """White lines between segments, in place."""
    border = np.zeros(ids.shape, np.uint8)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    picture[cv2.dilate(border, np.ones((2, 2), np.uint8)) != 0] = 255


def _write_names(picture: np.ndarray, ids: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Each name at the innermost point of its segment, where there is room for a line."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image, "RGBA")
    size = max(11, round(max(ids.shape) / 48))
    font = ImageFont.load_default(size)
    for segment, name in names.items():
        rows, columns = (axis.nonzero()[0] for axis in _projections(ids == segment))
        top, left = int(rows[0]), int(columns[0])
        part = ids[top : rows[-1] + 1, left : columns[-1] + 1] == segment
        # Padded, since the picture's edge is an edge of the segment as well.
        depth = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 3)
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] < size:
            continue
        half = pen.textlength(name, font) / 2 + 4
        x = np.clip(left + x - 1, half, max(half, ids.shape[1] - half))
        y = np.clip(top + y - 1, size, ids.shape[0] - size)
        pen.rounded_rectangle(
            (x - half, y - size * 0.75, x + half, y + size * 0.75), 4, fill=(0, 0, 0, 170)
        )
        pen.text((x, y), name, "white", font, anchor="mm")
    return np.asarray(image)


def _projections(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mask.any(axis=1), mask.any(axis=0)


def _draw_heat(photo: np.ndarray, uncertainty: np.ndarray | None, opacity: float) -> np.ndarray:
    if uncertainty is None:
        return photo
    size = (photo.shape[1], photo.shape[0])
    values = cv2.resize(uncertainty.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    heat = matplotlib.colormaps[HEAT](values.clip(0, 1), bytes=True)[..., :3]
    return cv2.addWeighted(photo, 1 - opacity, np.ascontiguousarray(heat), opacity, 0)


def _enlarge(ids: np.ndarray, scale: int) -> np.ndarray:
    return ids.repeat(scale, axis=0).repeat(scale, axis=1)


def _dot(picture: np.ndarray, mask: np.ndarray) -> None:
    """Put white dots on a mask, in place: they show it without hiding what is under it."""
    step = max(8, round(max(mask.shape) / 64))
    half = step // 2
    for y in range(half, mask.shape[0], step):
        for x in range(half + half * (y // step % 2), mask.shape[1], step):
            if mask[y, x]:
                cv2.circle(picture, (x, y), 2, (255, 255, 255), -1, cv2.LINE_AA)


def to_data_url(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a JPEG in a ``data:`` URL: no file for others to fetch."""
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, format="JPEG", quality=92, subsampling=0)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def list_segments(session: Session | None, colors: dict[int, str]) -> str:
    """The segments as HTML: rows with ``data-id``, colour, name, share of the photo and mark."""
    rows = session.rows() if session is not None else []
    if not rows:
        return '<p class="nothing">No segments yet.</p>'
    lines = []
    for row in rows:
        chosen = ' class="chosen"' if row.id == session.selected else ""
        kept = "✓" if row.kept == 1 else "◐" if row.kept else ""
        # A segment of a few pixels may not be in the reduced picture.
        color = colors.get(row.id, "#888888")
        lines.append(
            f'<li data-id="{row.id}"{chosen}><i style="background:{color}"></i>'
            f"<b>{html.escape(row.name)}</b><span>{row.share:.1%}</span><em>{kept}</em></li>"
        )
    empty = float((session.ids == 0).mean())
    lines.append(f"<li><i class='void'></i><b>empty</b><span>{empty:.1%}</span><em></em></li>")
    return f"<ul>{''.join(lines)}</ul>"

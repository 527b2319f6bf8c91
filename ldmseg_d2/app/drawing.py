"""What the page shows: pictures of a session, and the list of its segments."""

import base64
import html
import io

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import maximum_position

from ..visualization import enlarge, fit, segment_colors
from .annotation_session import Session

VIEWS = SEGMENTS, PHOTO, UNCERTAINTY = ("segments", "photo", "uncertainty")
# Small photos are enlarged by a whole factor to about the first, large ones reduced to the second.
_MIN_SIDE, _MAX_SIDE = 720, 1024


def draw_session(
    session: Session, view: str = SEGMENTS, *, opacity: float = 0.55, names: bool = True
) -> tuple[np.ndarray, dict[int, str]]:
    """(h, w, 3) uint8 RGB, of a size for screens; and the colour of each segment, "#rrggbb".

    Segments have colours, outlines and, where there is room, names; kept pixels carry white dots,
    the selected segment a yellow outline, empty pixels dark stripes.
    """
    photo = fit(session.photo, _MAX_SIDE)
    photo = enlarge(photo, max(1, round(_MIN_SIDE / max(photo.shape))))
    ids, kept = (  # nearest neighbours, about the centres of pixels
        cv2.resize(values, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        for values in (session.ids, session.kept.view(np.uint8))
    )
    # By id: a segment's colour stays when another one is erased.
    labels = session.segment_ids()
    palette = segment_colors([0, *labels])
    colors = {i: "#{:02x}{:02x}{:02x}".format(*color) for i, color in zip(labels, palette[1:])}
    if view == UNCERTAINTY and session.uncertainty is not None:
        values = cv2.resize(session.uncertainty, photo.shape[1::-1], interpolation=cv2.INTER_AREA)
        heat = matplotlib.colormaps["inferno"](values.clip(0, 1), bytes=True)[..., :3].copy()
        return cv2.addWeighted(photo, 1 - opacity, heat, opacity, 0), colors
    if view != SEGMENTS or not colors:
        return photo, colors
    flat = palette[np.searchsorted([0, *labels], ids)]
    stripes = np.add(*np.indices(ids.shape, dtype=np.int32)) // 12 % 2 == 1
    flat[stripes & (ids == 0)] += 28
    picture = cv2.addWeighted(photo, 1 - opacity, flat, opacity, 0)
    border = np.zeros(ids.shape, np.uint8)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    picture[cv2.dilate(border, np.ones((2, 2), np.uint8)) != 0] = 255
    step = max(8, round(max(ids.shape) / 64))
    for y in range(step // 2, ids.shape[0], step):
        for x in range(step // 2 * (1 + y // step % 2), ids.shape[1], step):
            if kept[y, x]:
                cv2.circle(picture, (x, y), 2, (255, 255, 255), -1, cv2.LINE_AA)
    if session.selected is not None:
        mask = (ids == session.selected).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, (255, 221, 0), thickness=3)
    if names:
        written = {i: session.segment_name(i) for i in np.unique(ids).tolist() if i}
        picture = _write_names(picture, ids, border, written)
    return picture, colors


def _write_names(
    picture: np.ndarray, ids: np.ndarray, border: np.ndarray, names: dict[int, str]
) -> np.ndarray:
    """Each name at the innermost point of its segment, where there is room for a line."""
    # Padded, since the picture's edge is an edge of segments as well.
    depth = cv2.distanceTransform(np.pad(1 - border, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image, "RGBA")
    size = max(11, round(max(ids.shape) / 48))
    font = ImageFont.load_default(size)
    for name, (y, x) in zip(names.values(), maximum_position(depth, ids, list(names))):
        if depth[y, x] < size:
            continue
        half = pen.textlength(name, font) / 2 + 4
        x = np.clip(x, half, max(half, ids.shape[1] - half))
        box = (x - half, y - size * 0.75, x + half, y + size * 0.75)
        pen.rounded_rectangle(box, 4, fill=(0, 0, 0, 170))
        pen.text((x, y), name, "white", font, anchor="mm")
    return np.asarray(image)


def to_data_url(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a JPEG in a ``data:`` URL: no file for others to fetch."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=92, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def list_segments(session: Session | None, colors: dict[int, str]) -> str:
    """The segments as HTML, the largest first: ``data-id``, colour, name, share and kept mark."""
    if session is None or not session.ids.any():
        return '<p class="nothing">No segments yet.</p>'
    areas, kept = (
        dict(zip(*(a.tolist() for a in np.unique(ids, return_counts=True))))
        for ids in (session.ids, session.ids[session.kept])
    )
    empty = areas.pop(0, 0)
    lines = []
    for segment in sorted(areas, key=areas.get, reverse=True):
        chosen = ' class="chosen"' if segment == session.selected else ""
        mark = {0: "", areas[segment]: "✓"}.get(kept.get(segment, 0), "◐")
        lines.append(
            f'<li data-id="{segment}"{chosen}><i style="background:{colors[segment]}"></i>'
            f"<b>{html.escape(session.segment_name(segment))}</b>"
            f"<span>{areas[segment] / session.ids.size:.1%}</span><em>{mark}</em></li>"
        )
    share = f"{empty / session.ids.size:.1%}"
    lines.append(f"<li><i class='void'></i><b>empty</b><span>{share}</span><em></em></li>")
    return f"<ul>{''.join(lines)}</ul>"

"""What the page shows: pictures of a session, and the list of its segments."""

import base64
import html
import io

import cv2
import matplotlib
import numpy as np
from PIL import Image

from ..visualization import draw_panoptic, enlarge, fit
from .session import Session

SEGMENTS, PHOTO, UNCERTAINTY = "segments", "photo", "uncertainty"
VIEWS = (SEGMENTS, PHOTO, UNCERTAINTY)
HEAT = "inferno"
# Small photos are enlarged by a whole factor to about the first, large ones reduced to the second.
_MIN_SIDE = 720
_MAX_SIDE = 1280
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
    colors = _colors(ids)
    if view == PHOTO or (view == SEGMENTS and not ids.any()):
        return enlarge(photo, scale), colors
    if view == UNCERTAINTY:
        return _draw_heat(photo, session.uncertainty, scale, opacity), colors
    picture = np.ascontiguousarray(draw_panoptic(photo, ids, alpha=opacity, scale=scale))
    _dot(picture, _enlarge(given, scale))
    if session.selected is not None:
        mask = _enlarge(ids == session.selected, scale).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, _SELECTED, thickness=3)
    return (_write_names(picture, session, _enlarge(ids, scale)) if names else picture), colors


def _write_names(picture: np.ndarray, session: Session, ids: np.ndarray) -> np.ndarray:
    labels = [i for i in np.unique(ids).tolist() if i]
    return draw_panoptic(
        picture,
        ids,
        [{"id": i, "category_id": n} for n, i in enumerate(labels)],
        class_names=[session.segment_name(i) for i in labels],
        alpha=0.0,  # the names alone, over what is drawn already
        draw_boundaries=False,
    )


def _colors(ids: np.ndarray) -> dict[int, str]:
    """The colours that :func:`draw_panoptic` gives the segments of a map."""
    labels, places = np.unique(ids, return_index=True)
    flat = draw_panoptic(
        np.zeros((*ids.shape, 3), np.uint8), ids, alpha=1.0, draw_boundaries=False
    ).reshape(-1, 3)
    return {
        label: "#{:02x}{:02x}{:02x}".format(*flat[place].tolist())
        for label, place in zip(labels.tolist(), places.tolist())
        if label
    }


def _draw_heat(
    photo: np.ndarray, uncertainty: np.ndarray | None, scale: int, opacity: float
) -> np.ndarray:
    photo = enlarge(photo, scale)
    if uncertainty is None:
        return photo
    size = (photo.shape[1], photo.shape[0])
    values = cv2.resize(uncertainty.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    heat = matplotlib.colormaps[HEAT](values.clip(0, 1))[..., :3] * 255
    return np.round(photo * (1 - opacity) + heat * opacity).astype(np.uint8)


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

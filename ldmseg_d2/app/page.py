"""The annotators' page: which of Gradio's components call what of a :class:`Desk`."""

import logging
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from .annotation_session import NO_CLASS, SessionError
from .components import LEGEND, Components, say
from .desk import Desk
from .drawing import UNCERTAINTY, draw_session, list_segments, to_data_url
from .predictor import Predictor
from .uploads import Limits, UploadError

logger = logging.getLogger(__name__)

_HEAT_LEGEND = "all samples agree<i></i>they disagree"
_NO_HEAT = "Segment or Complete with two samples or more to see the uncertainty."


def build_page(predictor: Predictor, limits: Limits) -> gr.Blocks:
    """The page's components, connected to what they do."""
    options = {"analytics_enabled": False, "delete_cache": (600, 600)}
    with gr.Blocks(title="ldmseg_d2: annotate", **options) as blocks:
        parts = Components(predictor)
        _connect(parts, lambda: Desk(predictor, limits))
        new_seed = partial(random.randrange, 10**6)
        parts.new_seed.click(new_seed, None, parts.seed, api_visibility="private")
    return blocks


def _connect(parts: Components, new_desk: Callable[[], Desk]) -> None:
    state = [parts.desk, parts.view, parts.opacity, parts.names]
    shown = [parts.canvas, parts.list, parts.category, parts.legend]

    def on(listen: Callable[..., Any], action: Callable[..., Any], *inputs: Any, slow=False):
        """Let an event run ``action(desk, event, *inputs)`` and show what came of it.

        It returns the sentence for the user, or None; or a tuple of it and a download. While a slow
        one runs, a second click is not taken.
        """

        def run(
            desk: Desk | None, view: str, opacity: float, names: bool, event: gr.EventData, *values
        ) -> tuple[Any, ...]:
            desk = desk or new_desk()
            with desk.lock:
                message, download = _try(action, desk, event, *values)
                return desk, message, download, *_show(desk, view, opacity / 100, names)

        listen(
            run,
            [*state, *inputs],
            [parts.desk, parts.message, parts.saver, *shown],
            api_visibility="private",
            trigger_mode="once" if slow else "multiple",
            show_progress="minimal" if slow else "hidden",
            show_progress_on=parts.message,
        )

    sampling = [parts.steps, parts.seed, parts.samples]
    pointer = [parts.tool, parts.brush, parts.category]
    photo, saved = parts.photo, parts.saved
    on(photo.upload, lambda d, _, path: d.open_photo(*_read(path)), photo, slow=True)
    on(saved.upload, lambda d, _, paths: d.load(dict(map(_read, paths))), saved, slow=True)
    on(parts.example.click, lambda d, _: d.open_example())
    on(parts.save.click, lambda d, _: d.save(), slow=True)
    on(parts.segment.click, lambda d, _, *how: d.draw(None, *how), *sampling, slow=True)
    on(parts.complete.click, lambda d, _, *how: d.draw(*how), parts.redraw, *sampling, slow=True)
    on(parts.canvas.stroke, lambda d, e, *how: d.opened.stroke(e.points, e.drag, *how), *pointer)
    on(parts.list.pick, lambda d, event: d.opened.click(event.id))
    on(parts.new.click, lambda d, _: d.opened.begin_segment())
    on(parts.category.input, lambda d, _, category: d.opened.set_class(category), parts.category)
    on(parts.undo.click, lambda d, _: d.opened.undo())
    on(parts.redo.click, lambda d, _: d.opened.redo())
    for change in (parts.view.change, parts.opacity.release, parts.names.change):
        on(change, lambda d, _: None)


def _try(action: Callable[..., Any], *values: Any) -> tuple[Any, Any]:
    """What an action, or its failure, says; and its download."""
    try:
        result = action(*values)
    except (SessionError, UploadError) as error:
        return say(str(error), is_error=True), gr.skip()
    except Exception as error:
        # What the model says of its input is for the user; all else must not reach the browser.
        logger.exception("a step of the page failed")
        reason = error if isinstance(error, ValueError) else "the terminal says what happened."
        return say(f"That did not work: {reason}", is_error=True), gr.skip()
    said, download = result if isinstance(result, tuple) else (result, gr.skip())
    return (gr.skip() if said is None else say(said)), download


def _show(desk: Desk, view: str, opacity: float, names: bool) -> tuple[Any, ...]:
    """Values of the canvas, the list, the class and the legend."""
    session = desk.session
    if session is None:
        return (gr.skip(),) * 4
    picture, colors = draw_session(session, view, opacity=opacity, names=names)
    alt, (height, width) = f"{session.name} with {session.count()}", session.ids.shape
    canvas = {"src": to_data_url(picture), "width": width, "height": height, "alt": alt}
    # Without a selected segment it stays the class that the next one will get.
    selected = session.selected
    category = session.classes.get(selected, NO_CLASS) if selected is not None else gr.skip()
    legend = LEGEND
    if view == UNCERTAINTY:
        legend = _NO_HEAT if session.uncertainty is None else _HEAT_LEGEND
    return canvas, list_segments(session, colors), category, legend


def _read(path: str) -> tuple[str, bytes]:
    """Name and bytes of an upload, whose file is removed."""
    try:
        return os.path.basename(path), Path(path).read_bytes()
    finally:
        os.unlink(path)


def serve(predictor: Predictor, *, host: str, port: int | None, limits: Limits) -> None:
    """Serve the page until it is stopped; `port` None is the first free one from 7860 on."""
    # Nothing leaves the machine, and nothing is left in the browser.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
    # System fonts: the page asks no other host for anything.
    fonts, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    style = {"primary_hue": "blue", "spacing_size": "sm", "text_size": "sm"}
    blocks = build_page(predictor, limits)
    _, url, _ = blocks.queue(default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=limits.max_bytes,
        quiet=True,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Default(**style, font=fonts, font_mono=mono),
        css_paths=Path(__file__).parent / "page.css",
        prevent_thread_lock=True,
    )
    logger.info("The page is at %s; stop it with Ctrl-C", url)
    blocks.block_thread()

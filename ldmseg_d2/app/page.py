"""The annotators' page: Gradio's components, and which of them call what of :class:`Desk`."""

import base64
import functools
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from .components import LEGEND, NO_CLASS, Components, say
from .desk import Desk
from .drawing import UNCERTAINTY, draw_session, list_segments, to_data_url
from .inference import Predictor
from .safe_image import Limits, UploadError, too_many_bytes
from .session import SessionError

logger = logging.getLogger(__name__)

_HEAT_LEGEND = "all samples agree<i></i>they disagree"
_NO_HEAT = "Segment or Complete with two samples or more to see the uncertainty."


class Page:
    """The page's components connected to what they do.

    Attributes:
        blocks: for Gradio to launch.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self._predictor = predictor
        self._limits = limits
        with gr.Blocks(
            title="ldmseg_d2: annotate", analytics_enabled=False, delete_cache=(600, 600)
        ) as self.blocks:
            self._parts = Components(predictor)
            self._connect()

    def _connect(self) -> None:
        parts = self._parts
        sampling = [parts.steps, parts.seed, parts.samples]
        self._on(parts.photo.upload, self._open_photo, [parts.photo], slow=True)
        self._on(parts.saved.upload, self._load, [parts.saved], slow=True)
        self._on(parts.example.click, lambda desk: desk.open_example())
        pointer = [parts.tool, parts.brush, parts.category]
        self._on(parts.canvas.stroke, _stroke, pointer, with_event=True)
        self._on(parts.list.pick, lambda desk, event: desk.pick(event.id), with_event=True)
        self._on(parts.new.click, lambda desk: desk.begin_segment())
        self._on(parts.category.input, lambda d, c: d.set_class(_class(c)), [parts.category])
        self._on(parts.segment.click, _segment, sampling, slow=True)
        self._on(parts.complete.click, _complete, [parts.redraw, *sampling], slow=True)
        self._on(parts.undo.click, lambda desk: desk.undo())
        self._on(parts.redo.click, lambda desk: desk.redo())
        self._on(parts.save.click, _save, extra=[parts.saver], slow=True)
        for change in (parts.view.change, parts.opacity.release, parts.names.change):
            self._on(change, lambda desk: None)
        parts.new_seed.click(
            lambda: random.randrange(10**6), None, parts.seed, api_visibility="private"
        )

    def _on(
        self,
        listen: Callable[..., Any],
        action: Callable[..., Any],
        inputs: Sequence[Any] = (),
        *,
        with_event: bool = False,
        extra: Sequence[Any] = (),
        slow: bool = False,
    ) -> None:
        """Let an event run `action(desk, *inputs)` and show what came of it.

        Args:
            listen: the component's event.
            action: returns the sentence for the user, or None for none; with `extra` a tuple of it
                and their values.
            inputs: components whose values it gets.
            with_event: it gets the event's data, last.
            extra: outputs besides the page's own.
            slow: show that it runs, and take no second click meanwhile.
        """
        run = functools.partial(self._run, action, len(extra))
        parts = self._parts

        def on_event(event: gr.EventData, *values: Any) -> tuple[Any, ...]:
            return run(*values, event)

        def on_values(*values: Any) -> tuple[Any, ...]:
            return run(*values)

        listen(
            on_event if with_event else on_values,
            [parts.desk, parts.view, parts.opacity, parts.names, *inputs],
            [
                *(parts.desk, parts.canvas, parts.list, parts.message),
                *(parts.category, parts.legend, *extra),
            ],
            api_visibility="private",
            trigger_mode="once" if slow else "multiple",
            show_progress="minimal" if slow else "hidden",
            show_progress_on=parts.message,
        )

    def _run(
        self,
        action: Callable[..., Any],
        num_extra: int,
        desk: Desk | None,
        view: str,
        opacity: float,
        names: bool,
        *values: Any,
    ) -> tuple[Any, ...]:
        desk = desk or Desk(self._predictor, self._limits)
        extra, is_error = [gr.skip()] * num_extra, False
        with desk.lock:
            try:
                said = action(desk, *values)
                if num_extra:
                    said, *extra = said
            except (SessionError, UploadError) as error:
                said, is_error = str(error), True
            # What the model says of its input; and whatever else: it must not reach the browser.
            except ValueError as error:
                logger.warning("%s", error, exc_info=True)
                said, is_error = f"That did not work: {error}", True
            except Exception:
                logger.exception("a step of the page failed")
                said = "That did not work, and it should have: the terminal says what happened."
                is_error = True
            shown = self._show(desk, view, opacity / 100, names)
        canvas, segments, category, legend = shown
        message = gr.skip() if said is None else say(said, is_error=is_error)
        return desk, canvas, segments, message, category, legend, *extra

    def _show(self, desk: Desk, view: str, opacity: float, names: bool) -> tuple[Any, ...]:
        """Values of the canvas, the list, the class and the legend."""
        session = desk.session
        if session is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        picture, colors = draw_session(session, view, opacity=opacity, names=names)
        desk.version += 1
        canvas = {
            "src": to_data_url(picture),
            "width": session.photo.shape[1],
            "height": session.photo.shape[0],
            "version": desk.version,
            "alt": f"{session.name} with {len(session.segment_ids())} segments",
        }
        # The class of the selected segment; without one it stays what the next one will get.
        category = gr.skip()
        if session.selected is not None:
            category = session.classes.get(session.selected, NO_CLASS)
        legend = LEGEND
        if view == UNCERTAINTY:
            legend = _NO_HEAT if session.uncertainty is None else _HEAT_LEGEND
        return canvas, list_segments(session, colors), category, legend

    def _open_photo(self, desk: Desk, path: str) -> str:
        return desk.open_photo(*self._read(path))

    def _load(self, desk: Desk, paths: list[str]) -> str:
        return desk.load(dict(self._read(path) for path in paths))

    def _read(self, path: str) -> tuple[str, bytes]:
        """Name and bytes of an upload, whose file is removed."""
        name = os.path.basename(path)
        try:
            if os.path.getsize(path) > self._limits.max_bytes:
                raise UploadError(too_many_bytes(name, os.path.getsize(path), self._limits))
            return name, Path(path).read_bytes()
        finally:
            os.unlink(path)


# -------------------------------------------------------------------------------------------------
# What the components' values mean
# -------------------------------------------------------------------------------------------------
def _stroke(desk: Desk, tool: str, brush: float, category: int, event: gr.EventData) -> str:
    return desk.stroke(
        event.points, drag=event.drag, tool=tool, brush=brush, category=_class(category)
    )


def _segment(desk: Desk, steps: int, seed: int, samples: int) -> str:
    return desk.segment(steps=steps, seed=seed, num_samples=samples)


def _complete(desk: Desk, redraw: str, steps: int, seed: int, samples: int) -> str:
    return desk.complete(redraw=redraw, steps=steps, seed=seed, num_samples=samples)


def _save(desk: Desk) -> tuple[str, dict[str, Any]]:
    name, content, said = desk.save()
    # Numbered: the browser is only told of values that differ from the last one.
    data = base64.b64encode(content).decode()
    return said, {"name": name, "data": data, "number": time.monotonic_ns()}


def _class(category: int | None) -> int | None:
    return None if category in (None, NO_CLASS) else category


def serve(
    predictor: Predictor, *, host: str, port: int | None, limits: Limits, block: bool = True
) -> str:
    """Serve the page.

    Args:
        predictor: the model.
        host: address to listen at; 127.0.0.1 is this machine alone.
        port: None: the first free one from 7860 on.
        limits: of uploads.
        block: return only when the server is stopped.

    Returns:
        The page's URL.

    Raises:
        OSError: if the port is taken.
    """
    # Nothing leaves the machine, and nothing is left in the browser.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
    blocks = Page(predictor, limits).blocks
    _, url, _ = blocks.queue(default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=limits.max_bytes,
        show_error=False,
        quiet=True,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        # System fonts: the page asks no other host for anything.
        theme=gr.themes.Default(
            primary_hue="blue",
            spacing_size="sm",
            text_size="sm",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css_paths=Path(__file__).parent / "page.css",
        prevent_thread_lock=True,
    )
    logger.info("The page is at %s; stop it with Ctrl-C", url)
    if block:
        blocks.block_thread()
    return url

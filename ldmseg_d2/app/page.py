"""The annotators' page: Gradio's components, and which of them call what of :class:`Desk`."""

import base64
import functools
import html
import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Nothing leaves the machine. Before the import, which reads it.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")

import gradio as gr  # noqa: E402

from .desk import MAX_SAMPLES, TOOLS, Desk  # noqa: E402
from .drawing import (  # noqa: E402
    SEGMENTS,
    UNCERTAINTY,
    VIEWS,
    draw_session,
    list_segments,
    to_data_url,
)
from .inference import Predictor  # noqa: E402
from .safe_image import Limits, UploadError, too_many_bytes  # noqa: E402
from .session import FILL_EMPTY, REDRAW_UNKEPT, SessionError  # noqa: E402

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_NO_CLASS = -1
_WELCOME = "Open a photo, or an example."
_FRAME = (
    '<div class="frame"><img draggable="false" alt=""><canvas></canvas></div>'
    '<p class="hint">Open a photo to begin.</p>'
)
_PICK = """
element.addEventListener("click", (event) => {
  const row = event.target.closest("li[data-id]");
  if (row) trigger("pick", { id: Number(row.dataset.id) });
});
"""
# A file made in the browser: no copy of the annotation stays on the server.
_DOWNLOAD = """
watch("value", () => {
  if (!props.value?.data) return;
  const bytes = Uint8Array.from(atob(props.value.data), (c) => c.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/zip" }));
  link.download = props.value.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
"""
_LEGEND = "White dots: kept. Stripes: empty. Yellow outline: selected."
_HEAT_LEGEND = "all samples agree<i></i>they disagree"
_NO_HEAT = "Segment or Complete with two samples or more to see the uncertainty."
_TOOL_HELP = "A click takes the whole segment, a drag is the brush."


class Page:
    """The components of the page, and their events."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor = predictor
        self.limits = limits
        with gr.Blocks(
            title="ldmseg_d2: annotate", analytics_enabled=False, delete_cache=(600, 600)
        ) as self.blocks:
            # Nothing of a tab is kept once it is closed; gr.State cannot copy locks, hence None.
            self.desk = gr.State(None)
            gr.HTML(
                f"<h1>Annotate with LDMSeg</h1><span>{html.escape(predictor.title)}</span>",
                elem_id="title",
            )
            with gr.Row():
                with gr.Column(scale=3, min_width=260):
                    self._build_controls()
                with gr.Column(scale=8, min_width=420):
                    self._build_canvas()
                with gr.Column(scale=2, min_width=230):
                    self._build_list()
            self.saver = gr.HTML(None, html_template="", js_on_load=_DOWNLOAD, visible="hidden")
            self._connect()

    # ---------------------------------------------------------------------------------------------
    # Components
    # ---------------------------------------------------------------------------------------------
    def _build_controls(self) -> None:
        _title("Photo")
        with gr.Row():
            self.photo = gr.UploadButton(
                "Open photo", file_types=["image"], size="md", elem_id="photo", min_width=96
            )
            self.saved = gr.UploadButton(
                "Load", file_count="multiple", size="md", elem_id="load", min_width=60
            )
            self.example = gr.Button("Example", size="md", elem_id="example", min_width=60)
        _title("Tool")
        self.tool = gr.Radio(
            [(name.capitalize(), name) for name in TOOLS],
            value=TOOLS[0],
            container=False,
            elem_id="tool",
        )
        gr.HTML(_TOOL_HELP, elem_classes="help")
        self.brush = gr.Slider(0.5, 25, value=5, step=0.5, label="Brush, %", elem_id="brush")
        names = [("no class", _NO_CLASS)]
        names += [(c.name, i) for i, c in enumerate(self.predictor.categories)]
        self.category = gr.Dropdown(
            names, value=_NO_CLASS, label="Class of what is selected or painted", elem_id="class"
        )
        self.new = gr.Button("New segment", size="md", elem_id="new-segment")
        _title("Model")
        with gr.Row():
            self.segment = gr.Button("Segment", elem_id="segment", min_width=80, size="md")
            self.complete = gr.Button(
                "Complete", variant="primary", elem_id="complete", min_width=80, size="md"
            )
        self.redraw = gr.Radio(
            [FILL_EMPTY, REDRAW_UNKEPT],
            value=FILL_EMPTY,
            label="Complete draws",
            elem_id="redraw",
        )
        with gr.Accordion("Sampling", open=False, elem_id="sampling"):
            self.steps = gr.Slider(
                1, 100, value=self.predictor.num_steps, step=1, label="Steps", elem_id="steps"
            )
            self.seed = gr.Number(
                self.predictor.seed, label="Seed", precision=0, minimum=0, elem_id="seed"
            )
            self.new_seed = gr.Button("New seed", size="sm", elem_id="new-seed")
            self.samples = gr.Slider(
                1, MAX_SAMPLES, 1, step=1, label="Samples, for uncertainty", elem_id="samples"
            )

    def _build_canvas(self) -> None:
        with gr.Row(elem_id="toolbar"):
            self.undo = gr.Button("Undo", size="sm", elem_id="undo", min_width=60, scale=1)
            self.redo = gr.Button("Redo", size="sm", elem_id="redo", min_width=60, scale=1)
            self.view = gr.Radio(
                [(view.capitalize(), view) for view in VIEWS],
                value=SEGMENTS,
                container=False,
                elem_id="view",
                scale=6,
                min_width=230,
            )
            self.opacity = gr.Slider(
                0, 100, 55, step=5, label="Opacity", elem_id="opacity", scale=3, min_width=150
            )
            self.names = gr.Checkbox(
                True, label="Names", container=False, elem_id="names", scale=1, min_width=84
            )
        self.canvas = gr.HTML(
            None,
            html_template=_FRAME,
            js_on_load=(_HERE / "canvas.js").read_text(encoding="utf-8"),
            elem_id="canvas",
        )
        self.message = gr.HTML(_say(_WELCOME), elem_id="message")
        self.legend = gr.HTML(_LEGEND, elem_id="legend")

    def _build_list(self) -> None:
        self.save = gr.Button("Save", variant="primary", size="md", elem_id="save")
        _title("Segments")
        self.list = gr.HTML(
            list_segments(None, {}), js_on_load=_PICK, elem_id="list", apply_default_css=False
        )

    # ---------------------------------------------------------------------------------------------
    # Events
    # ---------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        sampling = [self.steps, self.seed, self.samples]
        self._on(self.photo.upload, self._open_photo, [self.photo], slow=True)
        self._on(self.saved.upload, self._load, [self.saved], slow=True)
        self._on(self.example.click, lambda desk: desk.open_example())
        pointer = [self.tool, self.brush, self.category]
        self._on(self.canvas.stroke, _stroke, pointer, with_event=True)
        self._on(self.list.pick, lambda desk, event: desk.pick(event.id), with_event=True)
        self._on(self.new.click, lambda desk: desk.begin_segment())
        self._on(self.category.input, lambda d, c: d.set_class(_class(c)), [self.category])
        self._on(self.segment.click, _segment, sampling, slow=True)
        self._on(self.complete.click, _complete, [self.redraw, *sampling], slow=True)
        self._on(self.undo.click, lambda desk: desk.undo())
        self._on(self.redo.click, lambda desk: desk.redo())
        self._on(self.save.click, _save, extra=[self.saver], slow=True)
        for change in (self.view.change, self.opacity.release, self.names.change):
            self._on(change, lambda desk: None)
        self.new_seed.click(
            lambda: random.randrange(10**6), None, self.seed, api_visibility="private"
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

        def on_event(event: gr.EventData, *values: Any) -> tuple[Any, ...]:
            return run(*values, event)

        def on_values(*values: Any) -> tuple[Any, ...]:
            return run(*values)

        listen(
            on_event if with_event else on_values,
            [self.desk, self.view, self.opacity, self.names, *inputs],
            [self.desk, self.canvas, self.list, self.message, self.category, self.legend, *extra],
            api_visibility="private",
            trigger_mode="once" if slow else "multiple",
            show_progress="minimal" if slow else "hidden",
            show_progress_on=self.message,
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
        desk = desk or Desk(self.predictor, self.limits)
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
        message = gr.skip() if said is None else _say(said, is_error=is_error)
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
            category = session.classes.get(session.selected, _NO_CLASS)
        legend = _LEGEND
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
            if os.path.getsize(path) > self.limits.max_bytes:
                raise UploadError(too_many_bytes(name, os.path.getsize(path), self.limits))
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


def _save(desk: Desk) -> tuple[str, dict[str, str]]:
    name, content, said = desk.save()
    return said, {"name": name, "data": base64.b64encode(content).decode()}


def _class(category: int | None) -> int | None:
    return None if category in (None, _NO_CLASS) else category


def _say(message: str, *, is_error: bool = False) -> str:
    kind = ' class="error"' if is_error else ""
    return f'<p role="status" aria-live="polite"{kind}>{html.escape(message)}</p>'


def _title(text: str) -> None:
    gr.HTML(html.escape(text), elem_classes="group-title")


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
        css_paths=_HERE / "page.css",
        prevent_thread_lock=True,
    )
    logger.info("The page is at %s; stop it with Ctrl-C", url)
    if block:
        blocks.block_thread()
    return url

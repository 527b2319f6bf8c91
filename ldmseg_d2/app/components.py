"""What is on the annotators' page: Gradio's components and where they stand."""

import html
from pathlib import Path
from typing import Any

import gradio as gr

from .annotation_session import FILL_EMPTY, NO_CLASS, REDRAW_UNKEPT, TOOLS
from .drawing import VIEWS, list_segments
from .predictor import Predictor

LEGEND = "White dots: kept. Stripes: empty. Yellow outline: selected."
_FRAME = (
    '<div class="frame"><img draggable="false" alt=""><canvas></canvas></div>'
    '<p class="hint">Open a photo to begin.</p>'
)


class Components:
    """The page's components, made in the :class:`gr.Blocks` that is open."""

    def __init__(self, predictor: Predictor):
        # A Desk. Gradio copies what a state begins with, and cannot copy locks: hence None.
        self.desk = gr.State(None)
        title = f"<h1>Annotate with LDMSeg</h1><span>{html.escape(predictor.title)}</span>"
        gr.HTML(title, elem_id="title")
        with gr.Row():
            with gr.Column(scale=3, min_width=260):
                self._build_files()
                self._build_tools(predictor)
                self._build_model(predictor)
            with gr.Column(scale=8, min_width=420):
                self._build_canvas()
            with gr.Column(scale=2, min_width=230):
                self.save = _button("Save", variant="primary")
                _head("Segments")
                rows, script = list_segments(None, {}), _script("list")
                # Its event "pick" has `id`; the canvas' event "stroke" `points` and `drag`.
                self.list = gr.HTML(rows, js_on_load=script, elem_id="list")
        # A value with `name` and `data` (base64) becomes a download.
        script = _script("download")
        self.saver = gr.HTML(None, html_template="", js_on_load=script, visible="hidden")

    def _build_files(self) -> None:
        _head("Photo")
        photo = {"file_types": ["image"], "elem_id": "photo", "min_width": 96}
        saved = {"file_count": "multiple", "elem_id": "load", "min_width": 60}
        with gr.Row():
            self.photo = gr.UploadButton("Open photo", size="md", **photo)
            self.saved = gr.UploadButton("Load", size="md", **saved)
            self.example = _button("Example", min_width=60)

    def _build_tools(self, predictor: Predictor) -> None:
        _head("Tool")
        self.tool = _choice(TOOLS, "tool")
        gr.HTML("A click takes the whole segment, a drag is the brush.", elem_classes="help")
        self.brush = gr.Slider(0.5, 25, value=5, step=0.5, label="Brush, %", elem_id="brush")
        names = [("no class", NO_CLASS), *((c.name, i) for i, c in enumerate(predictor.categories))]
        self.category = gr.Dropdown(
            names, value=NO_CLASS, label="Class of what is selected or painted", elem_id="class"
        )
        self.new = _button("New segment")

    def _build_model(self, predictor: Predictor) -> None:
        _head("Model")
        with gr.Row():
            self.segment = _button("Segment", min_width=80)
            self.complete = _button("Complete", variant="primary", min_width=80)
        options = [FILL_EMPTY, REDRAW_UNKEPT]
        self.redraw = gr.Radio(options, value=FILL_EMPTY, label="Complete draws", elem_id="redraw")
        with gr.Accordion("Sampling", open=False, elem_id="sampling"):
            self.steps = gr.Slider(1, 100, predictor.num_steps, step=1, label="Steps")
            limits = {"minimum": 0, "maximum": 2**31 - 1, "precision": 0}
            self.seed = gr.Number(predictor.seed, label="Seed", **limits)
            self.new_seed = _button("New seed", size="sm")
            self.samples = gr.Slider(1, 16, 1, step=1, label="Samples, for uncertainty")

    def _build_canvas(self) -> None:
        with gr.Row(elem_id="toolbar"):
            self.undo = _button("Undo", size="sm", min_width=60, scale=1)
            self.redo = _button("Redo", size="sm", min_width=60, scale=1)
            self.view = _choice(VIEWS, "view", scale=6, min_width=230)
            self.opacity = gr.Slider(
                0, 100, 55, step=5, label="Opacity", elem_id="opacity", scale=3, min_width=150
            )
            self.names = gr.Checkbox(
                True, label="Names", container=False, elem_id="names", scale=1, min_width=84
            )
        script = _script("canvas")
        self.canvas = gr.HTML(None, html_template=_FRAME, js_on_load=script, elem_id="canvas")
        self.message = gr.HTML(say("Open a photo, or an example."), elem_id="message")
        self.legend = gr.HTML(LEGEND, elem_id="legend")


def say(message: str, *, is_error: bool = False) -> str:
    """A sentence for the user as HTML, which screen readers read out."""
    kind = ' class="error"' if is_error else ""
    return f'<p role="status" aria-live="polite"{kind}>{html.escape(message)}</p>'


def _script(name: str) -> str:
    return (Path(__file__).parent / f"{name}.js").read_text(encoding="utf-8")


def _head(text: str) -> None:
    gr.HTML(text, elem_classes="group-title")


def _button(text: str, *, size: str = "md", **options: Any) -> gr.Button:
    """A button whose HTML id is its text, such as "new-segment"."""
    return gr.Button(text, size=size, elem_id=text.lower().replace(" ", "-"), **options)


def _choice(values: tuple[str, ...], elem_id: str, **options: Any) -> gr.Radio:
    """One of a few values, the first to begin with."""
    names = [(value.capitalize(), value) for value in values]
    return gr.Radio(names, value=values[0], container=False, elem_id=elem_id, **options)

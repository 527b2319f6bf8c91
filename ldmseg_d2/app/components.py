"""What is on the annotators' page: Gradio's components and where they stand."""

import html
from pathlib import Path

import gradio as gr

from .desk import MAX_SAMPLES, TOOLS
from .drawing import SEGMENTS, VIEWS, list_segments
from .inference import Predictor
from .session import FILL_EMPTY, REDRAW_UNKEPT

NO_CLASS = -1
LEGEND = "White dots: kept. Stripes: empty. Yellow outline: selected."
_HERE = Path(__file__).parent
_WELCOME = "Open a photo, or an example."
_TOOL_HELP = "A click takes the whole segment, a drag is the brush."
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


class Components:
    """The page's components, made in the :class:`gr.Blocks` that is open.

    Attributes:
        desk: what the tab works on, a :class:`Desk`; None until something is done.
        canvas: the photo; its event "stroke" has ``points`` and ``drag``.
        list: of the segments; its event "pick" has ``id``.
        saver: a value with ``name`` and ``data`` (base64) becomes a download.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        # Gradio copies what a state begins with, and cannot copy locks: hence None.
        self.desk = gr.State(None)
        gr.HTML(
            f"<h1>Annotate with LDMSeg</h1><span>{html.escape(predictor.title)}</span>",
            elem_id="title",
        )
        with gr.Row():
            with gr.Column(scale=3, min_width=260):
                self._build_files()
                self._build_tools()
                self._build_model()
            with gr.Column(scale=8, min_width=420):
                self._build_canvas()
            with gr.Column(scale=2, min_width=230):
                self._build_list()
        self.saver = gr.HTML(None, html_template="", js_on_load=_DOWNLOAD, visible="hidden")

    def _build_files(self) -> None:
        _title("Photo")
        with gr.Row():
            self.photo = gr.UploadButton(
                "Open photo", file_types=["image"], size="md", elem_id="photo", min_width=96
            )
            self.saved = gr.UploadButton(
                "Load", file_count="multiple", size="md", elem_id="load", min_width=60
            )
            self.example = gr.Button("Example", size="md", elem_id="example", min_width=60)

    def _build_tools(self) -> None:
        _title("Tool")
        self.tool = gr.Radio(
            [(name.capitalize(), name) for name in TOOLS],
            value=TOOLS[0],
            container=False,
            elem_id="tool",
        )
        gr.HTML(_TOOL_HELP, elem_classes="help")
        self.brush = gr.Slider(0.5, 25, value=5, step=0.5, label="Brush, %", elem_id="brush")
        names = [("no class", NO_CLASS)]
        names += [(c.name, i) for i, c in enumerate(self._predictor.categories)]
        self.category = gr.Dropdown(
            names, value=NO_CLASS, label="Class of what is selected or painted", elem_id="class"
        )
        self.new = gr.Button("New segment", size="md", elem_id="new-segment")

    def _build_model(self) -> None:
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
                1, 100, value=self._predictor.num_steps, step=1, label="Steps", elem_id="steps"
            )
            self.seed = gr.Number(
                self._predictor.seed, label="Seed", precision=0, minimum=0, elem_id="seed"
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
        self.message = gr.HTML(say(_WELCOME), elem_id="message")
        self.legend = gr.HTML(LEGEND, elem_id="legend")

    def _build_list(self) -> None:
        self.save = gr.Button("Save", variant="primary", size="md", elem_id="save")
        _title("Segments")
        self.list = gr.HTML(
            list_segments(None, {}), js_on_load=_PICK, elem_id="list", apply_default_css=False
        )


def say(message: str, *, is_error: bool = False) -> str:
    """A sentence for the user as HTML, which screen readers read out."""
    kind = ' class="error"' if is_error else ""
    return f'<p role="status" aria-live="polite"{kind}>{html.escape(message)}</p>'


def _title(text: str) -> None:
    gr.HTML(html.escape(text), elem_classes="group-title")

"""What the documents show runs, and what they link to is there."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config

from ldmseg_d2.meta_arch.tasks import TASK_REGISTRY
from ldmseg_d2.modeling.image_encoder import IMAGE_ENCODER_REGISTRY, build_image_encoder

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_files_exist(page):
    for path in re.findall(r"\b(?:tools|configs)/[\w/.-]+\.(?:py|sh|yaml)", page.read_text()):
        assert (REPOSITORY / path).is_file(), f"{page.name} names {path}"


def test_the_readme_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["panoptic_seg"].shape == (480, 640)
    assert {s["id"] for s in names["segments_info"]} <= set(names["panoptic_seg"].unique().tolist())


def example(name: str) -> str:
    """The example of docs/EXTENDING.md whose first line names a file."""
    source = (REPOSITORY / "docs" / "EXTENDING.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", source, re.DOTALL)
    (code,) = [block for block in blocks if block.startswith(f"# {name}\n")]
    return code


def test_the_task_of_the_documents_works():
    try:
        exec(compile(example("my_task.py"), "my_task.py", "exec"), {})
        opts = ["MODEL.LDMSEG.TASKS", ["instance", "things"], "MODEL.LDMSEG.TASK_MODE", "joint"]
        model = build_model(tiny_config("scenes/ldmseg_scenes64.yaml", *opts))
        batch = tiny_batch()
        for entry in batch:
            ids = range(1, int(entry["segment_ids"].max()) + 1)
            entry["segments_info"] = [{"id": i, "isthing": i > 1} for i in ids]
        losses = model.train()(batch)
        assert set(losses) == {"loss_instance", "loss_things"}
        assert all(float(loss.detach()) > 0 for loss in losses.values())
        (output, _) = model.eval()(tiny_batch(annotated=False))
        assert output["things"].shape == (64, 64) and output["things"].dtype == torch.bool
    finally:
        TASK_REGISTRY._obj_map.pop("ThingsTask", None)


def test_the_image_encoder_of_the_documents_works():
    try:
        exec(compile(example("my_encoder.py"), "my_encoder.py", "exec"), {})
        encoder = build_image_encoder(
            "TimmStage", out_channels=5, options={"model": "resnet18", "stage": 2}
        )
        assert encoder.stride == 8
        assert encoder(torch.randn(1, 3, 64, 64)).shape == (1, 5, 8, 8)
    finally:
        IMAGE_ENCODER_REGISTRY._obj_map.pop("TimmStage", None)

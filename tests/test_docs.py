"""What the documents show runs, and what they link to is there."""

import re
from pathlib import Path

import pytest
import torch

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


def test_the_image_encoder_of_the_documents_works():
    source = (REPOSITORY / "docs" / "EXTENDING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", source, re.DOTALL)
    try:
        exec(compile(code, "my_encoder.py", "exec"), {})
        encoder = build_image_encoder(
            "TimmStage", out_channels=5, options={"model": "resnet18", "stage": 2}
        )
        assert encoder.stride == 8
        assert encoder(torch.randn(1, 3, 64, 64)).shape == (1, 5, 8, 8)
    finally:
        IMAGE_ENCODER_REGISTRY._obj_map.pop("TimmStage", None)

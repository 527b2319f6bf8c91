import ast
import inspect
import re
from pathlib import Path

import pytest
import torch

from ldmseg_d2.modeling.image_encoder import IMAGE_ENCODER_REGISTRY, build_image_encoder


def test_conv_encoder_has_the_stride_of_its_widths():
    encoder = build_image_encoder(
        "ConvImageEncoder", out_channels=5, options={"widths": [8, 16, 16], "num_blocks": 1}
    )
    assert encoder.stride == 4
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 5, 8, 8)


def test_unknown_name_and_option_raise():
    with pytest.raises(ValueError, match="known: .*ConvImageEncoder"):
        build_image_encoder("ResNet", out_channels=4, options={})
    with pytest.raises(ValueError, match="OPTIONS \\['DEPTH'\\].*It takes WIDTHS, NUM_BLOCKS"):
        build_image_encoder("ConvImageEncoder", out_channels=4, options={"depth": 3})
    with pytest.raises(ValueError, match="multiple of 8"):
        build_image_encoder("ConvImageEncoder", out_channels=4, options={"widths": [10]})


def test_the_documents_list_every_encoder_and_option():
    page = (Path(__file__).resolve().parents[2] / "docs" / "EXTENDING.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+Encoder)` \|.*\| ([^|]+) \|$", page, re.MULTILINE))
    for name, encoder in IMAGE_ENCODER_REGISTRY:
        parameters = dict(inspect.signature(encoder).parameters)
        del parameters["out_channels"]
        listed = dict(re.findall(r"`(\w+)` (\"[^\"]*\"|\[[^\]]*\]|\{\}|[\d.]+)", rows.pop(name)))
        assert set(listed) == {key.upper() for key in parameters}, name
        for key, parameter in parameters.items():
            default = parameter.default
            default = list(default) if isinstance(default, tuple) else default
            assert ast.literal_eval(listed[key.upper()].rstrip(".")) == default, f"{name}: {key}"
    assert not rows, "encoders that do not exist"

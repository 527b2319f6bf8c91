import pytest
import torch

from ldmseg_d2.modeling.image_encoder import (
    IMAGE_ENCODER_REGISTRY,
    ImageEncoder,
    build_image_encoder,
)


def test_conv_encoder_has_the_stride_of_its_widths():
    encoder = build_image_encoder(
        "ConvImageEncoder", out_channels=5, options={"widths": [8, 16, 16], "num_blocks": 1}
    )
    assert encoder.stride == 4
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 5, 8, 8)


def test_unknown_name_and_option_raise():
    with pytest.raises(ValueError, match="known: .*ConvImageEncoder"):
        build_image_encoder("ResNet", out_channels=4, options={})
    with pytest.raises(ValueError, match="OPTIONS \\['depth'\\] do not fit ConvImageEncoder"):
        build_image_encoder("ConvImageEncoder", out_channels=4, options={"depth": 3})
    with pytest.raises(ValueError, match="multiple of 8"):
        build_image_encoder("ConvImageEncoder", out_channels=4, options={"widths": [10]})


def test_a_users_encoder_plugs_in():
    @IMAGE_ENCODER_REGISTRY.register()
    class PoolImageEncoder(ImageEncoder):
        def __init__(self, *, out_channels, stride=4):
            super().__init__(out_channels=out_channels, stride=stride)
            self.project = torch.nn.Conv2d(3, out_channels, 1)

        def forward(self, images):
            return self.project(torch.nn.functional.avg_pool2d(images, self.stride))

    encoder = build_image_encoder("PoolImageEncoder", out_channels=7, options={"stride": 2})
    assert encoder(torch.randn(1, 3, 8, 8)).shape == (1, 7, 4, 4)
    IMAGE_ENCODER_REGISTRY._obj_map.pop("PoolImageEncoder")

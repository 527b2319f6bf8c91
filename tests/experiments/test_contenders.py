"""What can be compared, and what cannot is found before anything is trained."""

import pytest
from tiny import JOINT, LDMSEG

from ldmseg_d2.experiments import Stage, read_contenders

SINGLE, ALL = f"configs/{LDMSEG}", f"configs/{JOINT}"
FPN = "configs/scenes/baselines/panoptic_fpn_scenes64.yaml"
STAGE = Stage.parse("configs/scenes/depth_autoencoder_scenes64.yaml:0.25")


def test_contenders():
    assert STAGE.share == 0.25 and STAGE.key == "MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS"
    with pytest.raises(ValueError, match="give CONFIG:SHARE"):
        Stage.parse("configs/scenes/autoencoder_scenes64.yaml")
    ours, other = read_contenders([SINGLE, FPN], stages=[STAGE], steps=[4, 1], opts=["SEED", 3])
    assert ours.steps == (1, 4) and ours.own_steps == 4 and ours.stages == (STAGE,)
    assert other.steps == (0,) and other.stages == () and other.opts == ("SEED", 3)
    assert ours.title(1) == "ldmseg_scenes64, 1 step" and other.title(0) == other.name
    (own,) = read_contenders([SINGLE], dataset="scenes128")
    assert own.steps == (20,) and own.own_steps == 20
    data = ("DATASETS.TRAIN", ("scenes128_train",), "DATASETS.TEST", ("scenes128_val",))
    assert own.opts == data


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"config_files": [SINGLE, SINGLE]}, "different names"),
        ({"weights": {"Nobody": "x.pth"}}, "--weights names Nobody.*none of the models ldmseg"),
        ({"weights": {"ldmseg_scenes64": "no.pth"}}, "ldmseg_scenes64, no.pth: there is no such"),
        ({"stages": [STAGE] * 4}, "sum below 1"),
        ({"opts": ["DATASETS.TEST", ("scenes_val", "scenes_train")]}, "the same one data set"),
        (
            {
                "config_files": [SINGLE, "configs/camvid/ldmseg_camvid.yaml"],
                "dataset": "scenes_val",
            },
            "learn from the same data.*--dataset",
        ),
    ],
)
def test_what_cannot_be_compared(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_contenders(**{"config_files": [SINGLE], **arguments})

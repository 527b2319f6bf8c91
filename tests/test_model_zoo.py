"""The shipped models are what their cards say: they load, they are small, they work."""

import pytest
from detectron2.utils.file_io import PathManager

from ldmseg_d2 import model_zoo
from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.engine import Trainer

# What must at least be reached on 24 scenes: the cards' numbers on 300, less the spread.
LEAST = {
    "autoencoder_8x_scenes128": ("reconstruction", "PQ", 94.0),
    "autoencoder_scenes64": ("reconstruction", "PQ", 94.0),
    "depth_autoencoder_scenes64": ("depth", "delta1", 0.95),
    "ldmseg_multitask_scenes64": ("panoptic_seg", "PQ", 85.0),
    "ldmseg_panoptic_8x_scenes128": ("panoptic_seg", "PQ", 81.0),
}


def test_every_model_has_a_bar_to_clear():
    assert set(model_zoo.list_models()) == set(LEAST)


@pytest.mark.parametrize("name", sorted(LEAST))
def test_card_and_weights(name):
    card = model_zoo.get_card(name)
    with open(PathManager.get_local_path(card["weights"]), "rb") as file:
        assert len(file.read()) < 16 * 2**20
    assert card["training"]["commands"] and card["training"]["device"]
    assert not model_zoo.get(name).training


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LEAST))
def test_shipped_weights_reach_what_they_promise(name, tmp_path, catalogs):
    cfg = model_zoo.get_config(model_zoo.get_card(name)["config"])
    folder, size = cfg.DATASETS.TEST[0].removesuffix("_val"), cfg.INPUT.LDMSEG.IMAGE_SIZE
    write_scenes(tmp_path / folder, "val", num_images=24, size=size, seed=0)
    register_all(str(tmp_path))
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    results = Trainer.test(cfg, model_zoo.get(name))
    key, metric, least = LEAST[name]
    assert results[key][metric] > least, results


def test_unknown_names_list_what_there_is():
    with pytest.raises(KeyError, match="autoencoder_scenes64"):
        model_zoo.get("no_such_model")
    with pytest.raises(FileNotFoundError, match="shipped: .*safetensors"):
        PathManager.get_local_path("ldmseg://no_such.safetensors")

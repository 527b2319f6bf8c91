"""Detectron2's Panoptic FPN and Panoptic-DeepLab behind our contract."""

import sys

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.projects.panoptic_deeplab import PanopticDeepLab
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from tiny import tiny_config, tiny_multitask_batch
from torch.nn import functional as F

from ldmseg_d2.engine.checkpointer import LDMSegCheckpointer
from ldmseg_d2.modeling.small_resnet import build_small_resnet

FPN = "scenes/baselines/panoptic_fpn_scenes64.yaml"
DEEPLAB = "scenes/baselines/panoptic_deeplab_scenes64.yaml"
BOTH = pytest.mark.parametrize("name", [FPN, DEEPLAB])
# Things lie between the stuff, so that neither numbering is that of the data set: stuff 0 and 2.
CLASSES = ("MODEL.LDMSEG.NUM_CLASSES", 4, "MODEL.LDMSEG.THING_CLASSES", [1, 3])
THINGS, STUFF = (1, 3), (0, 2)
SMALL = (
    *("MODEL.SMALL_RESNET.STEM_CHANNELS", 8, "MODEL.SMALL_RESNET.CHANNELS", [8, 16, 24, 32]),
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
    *("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [32, 32], "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
    *("MODEL.SEM_SEG_HEAD.HEAD_CHANNELS", 32, "MODEL.INS_EMBED_HEAD.CONVS_DIM", 32),
    *("MODEL.INS_EMBED_HEAD.PROJECT_CHANNELS", [32, 32]),
    *("MODEL.INS_EMBED_HEAD.ASPP_CHANNELS", 32),
    *CLASSES,
)


@pytest.fixture(autouse=True)
def event_storage():
    """Detectron2's detectors log their losses' parts to it in training."""
    with EventStorage():
        yield


def small_model(name, *opts, seed=0):
    torch.manual_seed(seed)
    return build_model(tiny_config(name, *SMALL, *opts))


def batch_with_targets(num=2):
    """tiny_multitask_batch with the keys that the two mappers add."""
    batch = tiny_multitask_batch(num)
    for entry in batch:
        ids = entry["segment_ids"]
        for segment in entry["segments_info"]:
            segment["isthing"] = segment["category_id"] in THINGS
            segment["iscrowd"] = False
        things = [s for s in entry["segments_info"] if s["isthing"]]
        entry["instances"] = instances = Instances(tuple(ids.shape))
        instances.gt_classes = torch.tensor([s["category_id"] for s in things], dtype=torch.int64)
        masks = F.one_hot(ids).permute(2, 0, 1).bool()[[s["id"] for s in things]]
        instances.gt_masks = BitMasks(masks)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        targets = PanopticDeepLabTargetGenerator(255, THINGS, sigma=2)(
            ids.numpy(), entry["segments_info"]
        )
        entry.update({k: v for k, v in targets.items() if k not in ("sem_seg", "center_points")})
    return batch


def without_targets(batch):
    keys = ("image", "height", "width", "image_id", "file_name")
    return [{k: v for k, v in entry.items() if k in keys} for entry in batch]


def train(model, batch, steps):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(steps):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


def check_output(output, size=(64, 64)):
    panoptic, segments = output["panoptic_seg"]
    assert panoptic.dtype == torch.int32 and tuple(panoptic.shape) == size
    assert output["sem_seg"].shape == (4, *size)
    areas = dict(zip(*(x.tolist() for x in panoptic.unique(return_counts=True))))
    areas.pop(0, None)
    assert {s["id"]: s["area"] for s in segments} == areas
    for segment in segments:
        assert segment["isthing"] == (segment["category_id"] in THINGS)
        assert 0.0 <= segment["score"] <= 1.0
    assert set(output["instances"].pred_classes.tolist()) <= set(THINGS)


@BOTH
def test_a_few_steps_lower_the_loss_and_outputs_fit(name):
    model, batch = small_model(name), batch_with_targets()
    history = train(model, batch, 40)
    assert sum(history[-3:]) < 0.6 * sum(history[:3])
    model.eval()
    with torch.no_grad():
        outputs = model(without_targets(batch))
        # At test the annotations, where there are any, change nothing.
        again = model(batch)
    for output, other in zip(outputs, again):
        check_output(output)
        assert torch.equal(output["panoptic_seg"][0], other["panoptic_seg"][0])
    assert any(output["panoptic_seg"][1] for output in outputs)


@torch.no_grad()
@BOTH
def test_batch_equals_single_and_height_and_width_are_kept(name):
    model, batch = small_model(name).eval(), without_targets(batch_with_targets(3))
    batch[1].update(height=96, width=80)
    for output, entry in zip(model(batch), batch):
        alone = model([entry])[0]
        assert torch.allclose(output["sem_seg"], alone["sem_seg"], atol=1e-4)
        check_output(output, (entry["height"], entry["width"]))


def test_panoptic_fpn_is_that_of_detectron2():
    """Its losses on the same pictures, with classes in Detectron2's numbering."""
    model, batch = small_model(FPN).train(), batch_with_targets()
    expected_batch = []
    for entry in batch:
        instances = Instances((64, 64), **entry["instances"].get_fields())
        own = [THINGS.index(c) for c in instances.gt_classes.tolist()]
        instances.gt_classes = torch.tensor(own, dtype=torch.int64)
        semantic = torch.full((64, 64), 255)
        semantic[(entry["sem_seg"] == 1) | (entry["sem_seg"] == 3)] = 0
        for i, c in enumerate(STUFF, start=1):
            semantic[entry["sem_seg"] == c] = i
        expected_batch.append({**entry, "instances": instances, "sem_seg": semantic})
    torch.manual_seed(3)
    losses = model(batch)
    torch.manual_seed(3)
    expected = PanopticFPN.forward(model, expected_batch)
    assert set(losses) == set(expected) and len(losses) == 6
    for key, value in expected.items():
        assert torch.equal(losses[key], value), key


@torch.no_grad()
def test_panoptic_fpn_numbers_classes_over_all():
    model = small_model(FPN)
    instances = Instances((4, 4))
    instances.pred_classes, instances.scores = torch.tensor([1, 0]), torch.tensor([0.9, 0.8])
    panoptic = torch.tensor([[1, 1, 3, 3], [1, 1, 3, 3], [0, 0, 3, 3], [0, 0, 3, 3]]).int()
    segments = [
        {"id": 1, "isthing": True, "score": 0.9, "category_id": 1, "instance_id": 0},
        {"id": 2, "isthing": True, "score": 0.8, "category_id": 0, "instance_id": 1},
        {"id": 3, "isthing": False, "category_id": 2, "area": 8},
    ]
    logits = torch.zeros(3, 4, 4)
    logits[2] = 3.0
    output = model._from_detectron2(
        {"panoptic_seg": (panoptic, segments), "sem_seg": logits, "instances": instances}
    )
    _, ours = output["panoptic_seg"]
    # Segment 2 has no pixel.
    assert [(s["id"], s["category_id"], s["area"]) for s in ours] == [(1, 3, 4), (3, 2, 8)]
    assert ours[1]["score"] == pytest.approx(float(logits[:, 0, 0].softmax(0)[2]))
    assert output["instances"].pred_classes.tolist() == [3, 1]
    classes = output["sem_seg"].argmax(dim=0)
    assert (classes[:2, :2] == 3).all() and (classes[:, 2:] == 2).all()


def test_panoptic_deeplab_is_that_of_detectron2():
    model, batch = small_model(DEEPLAB), batch_with_targets()
    train(model, batch, 30)
    # Without dropout both see the same network.
    torch.manual_seed(3)
    losses = model(batch)
    torch.manual_seed(3)
    expected = PanopticDeepLab.forward(model, batch)
    assert losses.keys() == expected.keys() == {"loss_sem_seg", "loss_center", "loss_offset"}
    assert all(torch.equal(losses[key], expected[key]) for key in losses)
    model.eval()
    plain = without_targets(batch)
    with torch.no_grad():
        outputs, theirs = model(plain), PanopticDeepLab.forward(model, plain)
    for output, other in zip(outputs, theirs):
        panoptic, segments = output["panoptic_seg"]
        labels = other["panoptic_seg"][0]
        assert torch.equal(panoptic == 0, labels == -1)
        for segment in segments:
            own = labels[panoptic == segment["id"]].unique().tolist()
            assert len(own) == 1 and own[0] // 1000 == segment["category_id"]
            assert int((labels == own[0]).sum()) == segment["area"]


@BOTH
@pytest.mark.parametrize("all_empty", [False, True])
def test_pictures_without_things(name, all_empty):
    model, batch = small_model(name).train(), batch_with_targets()
    for entry in batch if all_empty else batch[:1]:
        entry["instances"] = entry["instances"][:0]
        entry["sem_seg"] = torch.where(entry["sem_seg"] < 255, 0, 255)
        for key in ("center", "offset", "offset_weights"):
            entry[key] = torch.zeros_like(entry[key])
    losses = model(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


@BOTH
def test_void_everywhere(name):
    model, batch = small_model(name).train(), batch_with_targets()
    batch[0]["sem_seg"] = torch.full((64, 64), 255)
    assert all(torch.isfinite(loss) for loss in model(batch).values())


@BOTH
def test_bfloat16(name):
    model, batch = small_model(name).train(), batch_with_targets()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for output in model.eval()(without_targets(batch)):
            check_output(output)


@torch.no_grad()
@BOTH
def test_checkpoint_loads_again(name, tmp_path):
    model, other = small_model(name).eval(), small_model(name, seed=1).eval()
    LDMSegCheckpointer(model, str(tmp_path)).save("model_final")
    LDMSegCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    batch = without_targets(batch_with_targets(1))
    assert torch.equal(model(batch)[0]["sem_seg"], other(batch)[0]["sem_seg"])


@pytest.mark.parametrize(
    ("name", "mapper"),
    [(FPN, "InstancesDatasetMapper"), (DEEPLAB, "PanopticDeepLabDatasetMapper")],
)
def test_the_wrong_mapper_is_named(name, mapper):
    assert tiny_config(name).INPUT.DATASET_MAPPER_NAME == mapper
    with pytest.raises(KeyError, match=mapper):
        small_model(name).train()(tiny_multitask_batch(1))


def test_panoptic_fpn_needs_things():
    with pytest.raises(ValueError, match="none of the classes"):
        small_model(FPN, "MODEL.LDMSEG.THING_CLASSES", [])


def test_small_resnet_says_what_does_not_fit():
    sizes = {"stem_channels": 8, "stem_stride": 2, "channels": [8, 16], "num_blocks": [1, 1]}
    network = build_small_resnet(**sizes, strides=[1, 2], out_features=["res2", "res3"])
    features = network(torch.zeros(1, 3, 32, 32))
    assert {k: tuple(v.shape[1:]) for k, v in features.items()} == {
        "res2": (8, 16, 16),
        "res3": (16, 8, 8),
    }
    with pytest.raises(ValueError, match="one entry for each stage"):
        build_small_resnet(**sizes, strides=[1], out_features=["res2"])
    with pytest.raises(ValueError, match="STEM_STRIDE is 3"):
        build_small_resnet(**{**sizes, "stem_stride": 3}, strides=[1, 2], out_features=["res2"])
    with pytest.raises(ValueError, match="other channels than before"):
        build_small_resnet(**{**sizes, "channels": [8, 8]}, strides=[1, 2], out_features=["res3"])
    with pytest.raises(ValueError, match="multiples of 8"):
        build_small_resnet(**{**sizes, "channels": [8, 12]}, strides=[1, 2], out_features=["res3"])


def test_no_compiled_operator_was_imported():
    assert "detectron2._C" not in sys.modules

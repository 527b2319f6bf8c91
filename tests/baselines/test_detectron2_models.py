"""Detectron2's Panoptic FPN and Panoptic-DeepLab behind our contract."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.projects.panoptic_deeplab import PanopticDeepLab
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from tiny import tiny_multitask_batch

from ldmseg_d2.engine.checkpointer import LDMSegCheckpointer
from ldmseg_d2.engine.config import load_config

FPN = "configs/scenes/baselines/panoptic_fpn_scenes64.yaml"
DEEPLAB = "configs/scenes/baselines/panoptic_deeplab_scenes64.yaml"
BOTH = pytest.mark.parametrize("name", [FPN, DEEPLAB])
RESNET = "MODEL.SMALL_RESNET.OPTIONS"
# Things lie between the stuff, so that neither numbering is that of the data set.
THINGS, STUFF = (1, 3), (0, 2)
SMALL = (
    *(f"{RESNET}.STEM_CHANNELS", 8, f"{RESNET}.CHANNELS", [8, 16, 24, 32]),
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
    *("MODEL.LDMSEG.NUM_CLASSES", 4, "MODEL.LDMSEG.THING_CLASSES", THINGS, "MODEL.DEVICE", "cpu"),
)


@pytest.fixture(autouse=True)
def event_storage():
    """Detectron2's detectors log their losses' parts to it in training."""
    with EventStorage():
        yield


def small_model(name, *opts, seed=0, **resnet):
    torch.manual_seed(seed)
    cfg = load_config(name, [*SMALL, *opts], freeze=False)
    cfg.MODEL.SMALL_RESNET.OPTIONS.update(resnet)
    return build_model(cfg)


def batch_with_targets(num=2):
    """tiny_multitask_batch with the keys that the two mappers add."""
    batch = tiny_multitask_batch(num)
    for entry in batch:
        ids, segments = entry["segment_ids"], entry["segments_info"]
        for segment in segments:
            segment["isthing"] = segment["category_id"] in THINGS
        things = [s for s in segments if s["isthing"]]
        entry["instances"] = instances = Instances(tuple(ids.shape))
        instances.gt_classes = torch.tensor([s["category_id"] for s in things], dtype=torch.int64)
        instances.gt_masks = BitMasks(torch.stack([ids == s["id"] for s in things]))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        targets = PanopticDeepLabTargetGenerator(255, THINGS, sigma=2)(ids.numpy(), segments)
        entry.update({k: v for k, v in targets.items() if k not in ("sem_seg", "center_points")})
    return batch


def train(model, batch, steps):
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    history = []
    for _ in range(steps):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


@BOTH
def test_a_few_steps_lower_the_loss_and_outputs_fit(name, tmp_path):
    model, batch = small_model(name), batch_with_targets(2)
    history = train(model, batch, 40)
    assert sum(history[-3:]) < 0.6 * sum(history[:3])
    LDMSegCheckpointer(model, str(tmp_path)).save("model_final")
    model = small_model(name, seed=1).eval()
    LDMSegCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    batch[1].update(height=96, width=80)
    # At test the annotations, where there are any, change nothing.
    plain = [{k: e[k] for k in ("image", "height", "width")} for e in batch]
    with torch.no_grad():
        outputs, again = model(plain), [model([entry])[0] for entry in batch]
    for entry, output, alone in zip(batch, outputs, again):
        panoptic, segments = output["panoptic_seg"]
        assert panoptic.shape == (entry["height"], entry["width"]) and segments
        assert output["sem_seg"].shape == (4, *panoptic.shape)
        assert torch.allclose(output["sem_seg"], alone["sem_seg"], atol=1e-3)
        areas = dict(zip(*(x.tolist() for x in panoptic.unique(return_counts=True))))
        assert panoptic.dtype == torch.int32 and areas.pop(0, 0) < panoptic.numel()
        assert {s["id"]: s["area"] for s in segments} == areas
        assert all(s["isthing"] == (s["category_id"] in THINGS) for s in segments)
        assert all(0.0 <= s["score"] <= 1.0 for s in segments)
        assert set(output["instances"].pred_classes.tolist()) <= set(THINGS)


def test_losses_of_panoptic_fpn_are_those_of_detectron2():
    """On the same pictures, with classes in Detectron2's numbering."""
    model, batch = small_model(FPN).train(), batch_with_targets()
    torch.manual_seed(3)
    losses = model(batch)
    for entry in batch:
        own = [THINGS.index(c) for c in entry["instances"].gt_classes.tolist()]
        entry["instances"].gt_classes = torch.tensor(own, dtype=torch.int64)
        semantic = torch.full((64, 64), 255)
        semantic[(entry["sem_seg"] == 1) | (entry["sem_seg"] == 3)] = 0
        for i, c in enumerate(STUFF, start=1):
            semantic[entry["sem_seg"] == c] = i
        entry["sem_seg"] = semantic
    torch.manual_seed(3)
    expected = PanopticFPN.forward(model, batch)
    assert set(losses) == set(expected) and len(losses) == 6
    assert all(torch.equal(losses[key], expected[key]) for key in losses)


@torch.no_grad()
def test_panoptic_fpn_numbers_classes_over_all():
    instances = Instances((4, 4))
    instances.pred_classes, instances.scores = torch.tensor([1, 0]), torch.tensor([0.9, 0.8])
    panoptic = torch.tensor([[1, 1, 3, 3], [1, 1, 3, 3], [0, 0, 3, 3], [0, 0, 3, 3]]).int()
    segments = [  # the second has no pixel
        {"id": 1, "isthing": True, "score": 0.9, "category_id": 1},
        {"id": 2, "isthing": True, "score": 0.8, "category_id": 0},
        {"id": 3, "isthing": False, "category_id": 2},
    ]
    logits = torch.zeros(3, 4, 4)
    logits[2] = 3.0
    theirs = {"panoptic_seg": (panoptic, segments), "sem_seg": logits, "instances": instances}
    output = small_model(FPN)._from_detectron2(theirs)
    ours = output["panoptic_seg"][1]
    assert [(s["id"], s["category_id"], s["area"]) for s in ours] == [(1, 3, 4), (3, 2, 8)]
    assert ours[1]["score"] == pytest.approx(float(logits[:, 0, 0].softmax(0)[2]))
    assert output["instances"].pred_classes.tolist() == [3, 1]
    classes = output["sem_seg"].argmax(dim=0)
    assert (classes[:2, :2] == 3).all() and (classes[:, 2:] == 2).all()


def test_panoptic_deeplab_is_that_of_detectron2():
    model, batch = small_model(DEEPLAB), batch_with_targets()
    train(model, batch, 30)
    torch.manual_seed(3)
    losses = model(batch)
    torch.manual_seed(3)
    assert losses == PanopticDeepLab.forward(model, batch)
    plain = [{k: e[k] for k in ("image", "height", "width")} for e in batch]
    with torch.no_grad():
        outputs, theirs = model.eval()(plain), PanopticDeepLab.forward(model, plain)
    for output, other in zip(outputs, theirs):
        (panoptic, segments), labels = output["panoptic_seg"], other["panoptic_seg"][0]
        assert torch.equal(panoptic == 0, labels == -1)
        for segment in segments:
            own = labels[panoptic == segment["id"]].unique().tolist()
            assert len(own) == 1 and own[0] // 1000 == segment["category_id"]
            assert int((labels == own[0]).sum()) == segment["area"]


@BOTH
def test_void_everywhere_and_no_things_in_bfloat16(name):
    model, batch = small_model(name).train(), batch_with_targets()
    batch[0]["sem_seg"] = torch.full((64, 64), 255)
    for entry in batch:
        entry["instances"] = entry["instances"][:0]
        for key in ("center", "offset", "offset_weights"):
            entry[key] = torch.zeros_like(entry[key])
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch)
        sum(losses.values()).backward()
        model.eval()(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())


@BOTH
def test_the_wrong_mapper_is_named(name):
    with pytest.raises(KeyError, match=load_config(name).INPUT.DATASET_MAPPER_NAME):
        small_model(name).train()(tiny_multitask_batch(1))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="none of the classes"):
        small_model(FPN, "MODEL.LDMSEG.THING_CLASSES", [])
    with pytest.raises(ValueError, match=f"{RESNET} has no STRIDE; it takes STEM_CHANNELS"):
        small_model(FPN, STRIDE=2)
    with pytest.raises(ValueError, match=f"{RESNET}.*STEM_STRIDE is 3"):
        small_model(FPN, STEM_STRIDE=3)

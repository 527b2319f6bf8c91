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

from ldmseg_d2.engine.config_reader import load_config

FPN = "configs/scenes/baselines/panoptic_fpn_scenes64.yaml"
DEEPLAB = "configs/scenes/baselines/panoptic_deeplab_scenes64.yaml"
BOTH = pytest.mark.parametrize("name", [FPN, DEEPLAB])
RESNET = "MODEL.SMALL_RESNET.OPTIONS"
# Things lie between the stuff, so that neither numbering is that of the data set.
THINGS = (1, 3)
SMALL = (
    *(f"{RESNET}.STEM_CHANNELS", 8, f"{RESNET}.CHANNELS", [8, 16, 24, 32]),
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
    *("MODEL.LDMSEG.NUM_CLASSES", 4, "MODEL.LDMSEG.THING_CLASSES", THINGS, "MODEL.DEVICE", "cpu"),
)


@pytest.fixture(autouse=True)
def event_storage():
    with EventStorage():  # Detectron2's detectors log to it in training
        yield


def small_model(name, *opts, **resnet):
    torch.manual_seed(0)
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


@BOTH
def test_a_few_steps_lower_the_loss_and_outputs_fit(name):
    model, batch = small_model(name).train(), batch_with_targets()
    torch.manual_seed(0)  # detectors draw the regions that they learn from
    optimizer, history = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = sum(model(batch).values())
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert max(history[-3:]) < 0.6 * history[0]
    batch[1].update(height=96, width=80)
    # At test the annotations, where there are any, change nothing.
    plain = [{k: e[k] for k in ("image", "height", "width")} for e in batch]
    with torch.no_grad():
        outputs, again = model.eval()(plain), [model([entry])[0] for entry in batch]
        theirs = PanopticDeepLab.forward(model, plain) if name == DEEPLAB else []
    for entry, output, alone in zip(batch, outputs, again):
        panoptic, segments = output["panoptic_seg"]
        assert panoptic.shape == (entry["height"], entry["width"]) and segments
        assert output["sem_seg"].shape == (4, *panoptic.shape)
        assert torch.allclose(output["sem_seg"], alone["sem_seg"], atol=1e-3)
        areas = {s["id"]: s["area"] for s in segments}
        assert areas == {i: int((panoptic == i).sum()) for i in panoptic.unique().tolist() if i}
        assert all(s["isthing"] == (s["category_id"] in THINGS) for s in segments)
        assert all(0.0 <= s["score"] <= 1.0 for s in segments)
        assert set(output["instances"].pred_classes.tolist()) <= set(THINGS)
    for output, other in zip(outputs, theirs):
        (panoptic, segments), labels = output["panoptic_seg"], other["panoptic_seg"][0]
        assert torch.equal(panoptic == 0, labels == -1)
        for segment in segments:
            own = labels[panoptic == segment["id"]].unique().tolist()
            assert len(own) == 1 and own[0] // 1000 == segment["category_id"]
            assert int((labels == own[0]).sum()) == segment["area"]


@pytest.mark.parametrize(("name", "base"), [(FPN, PanopticFPN), (DEEPLAB, PanopticDeepLab)])
def test_losses_are_those_of_detectron2(name, base):
    model, batch = small_model(name).train(), batch_with_targets()
    torch.manual_seed(3)
    losses = model(batch)
    for entry in batch if base is PanopticFPN else ():  # its own numbering of classes
        own = [THINGS.index(c) for c in entry["instances"].gt_classes.tolist()]
        entry["instances"].gt_classes = torch.tensor(own, dtype=torch.int64)
        numbers = torch.full((256,), 255)
        numbers[:4] = torch.tensor([1, 0, 2, 0])  # things are 0
        entry["sem_seg"] = numbers[entry["sem_seg"]]
    torch.manual_seed(3)
    assert losses == base.forward(model, batch) and len(losses) >= 3


@torch.no_grad()
def test_panoptic_fpn_numbers_classes_over_all():
    instances = Instances((2, 4), pred_classes=torch.tensor([1, 0]))
    panoptic = torch.tensor([[1, 1, 3, 3], [0, 0, 3, 3]]).int()
    segments = [  # the second has no pixel
        {"id": 1, "isthing": True, "score": 0.9, "category_id": 1},
        {"id": 2, "isthing": True, "score": 0.8, "category_id": 0},
        {"id": 3, "isthing": False, "category_id": 2},
    ]
    logits = torch.tensor([0.0, 0.0, 3.0]).view(3, 1, 1).expand(3, 2, 4)
    theirs = {"panoptic_seg": (panoptic, segments), "sem_seg": logits, "instances": instances}
    output = small_model(FPN)._from_detectron2(theirs)
    ours = output["panoptic_seg"][1]
    assert [(s["id"], s["category_id"], s["area"]) for s in ours] == [(1, 3, 2), (3, 2, 4)]
    assert ours[1]["score"] == pytest.approx(float(logits[:, 0, 0].softmax(0)[2]))
    assert output["instances"].pred_classes.tolist() == [3, 1]
    assert output["sem_seg"].argmax(dim=0).tolist() == [[3, 3, 2, 2], [2, 2, 2, 2]]


@BOTH
def test_what_does_not_fit_is_named(name):
    with pytest.raises(KeyError, match=load_config(name).INPUT.DATASET_MAPPER_NAME):
        small_model(name).train()(tiny_multitask_batch(1))
    with pytest.raises(ValueError, match=f"{RESNET}.*'stride'. It takes STEM_CHANNELS"):
        small_model(name, STRIDE=2)
    with pytest.raises(ValueError, match=f"{RESNET}.*STEM_STRIDE is 3"):
        small_model(name, STEM_STRIDE=3)
    with pytest.raises(ValueError, match="none of the classes"):
        small_model(FPN, "MODEL.LDMSEG.THING_CLASSES", [])

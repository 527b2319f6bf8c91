"""The whole model at a tiny size: what it learns, what it gives, and on what that depends."""

import pytest
import tiny
import torch
from detectron2.utils.events import EventStorage
from tiny import JOINT, LDMSEG, SEPARATE, tiny_multitask_batch, without

from ldmseg_d2.ids import semantic_codes
from ldmseg_d2.modeling.depth_autoencoder import DepthNormalization

ANNOTATIONS = ("segment_ids", "sem_seg", "depth", "segments_info")
LOSSES = {"loss_instance", "loss_semantic", "loss_depth"}
SIDE = 32  # of the photos; latents have a quarter of it
OPTS = (
    *tiny.CLASSES,
    *("INPUT.LDMSEG.IMAGE_SIZE", SIDE, "MODEL.LDMSEG.NUM_BITS", 5),
    *("MODEL.LDMSEG.DEPTH.NORMALIZATION", "relative", "MODEL.LDMSEG.DEPTH.SCALE", "linear"),
    # What a random network gives should become segments.
    *("MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.0),
    *("MODEL.LDMSEG.POSTPROCESS.COUNT_THRESHOLD", 1, "MODEL.LDMSEG.POSTPROCESS.SPLIT_AREA", -1),
)


def build(name=JOINT, *opts, **options):
    """A model with options of MODEL.LDMSEG: ``A__B=1`` is A.B."""
    for key, value in options.items():
        opts += (f"MODEL.LDMSEG.{key.replace('__', '.')}", value)
    return tiny.tiny_model(name, *OPTS, *opts)


def photos(num=2):
    return [without(entry, *ANNOTATIONS) for entry in tiny_multitask_batch(num, SIDE)]


class Recorder(list):
    """What goes in and out of a model's denoiser, call by call."""

    def __init__(self, model):
        model.denoiser.register_forward_hook(self.record, with_kwargs=True)

    def record(self, module, args, kwargs, output):
        self.append({**dict(zip(("x_t", "t", "previous"), args)), **kwargs, "output": output})


@pytest.mark.parametrize(
    "name, options, losses",
    [
        (LDMSEG, {"DIFFUSION__PREDICTION_TYPE": "epsilon", "DIFFUSION__SELF_CONDITIONING": True,
                  "DIFFUSION__LOSS_WEIGHTING": "min_snr"}, {"loss_diffusion"}),
        (LDMSEG, {"DIFFUSION__PREDICTION_TYPE": "v_prediction", "ID_ASSIGNMENT": "random",
                  "DIFFUSION__SEGMENT_BALANCE": 0.5, "IMAGE_ENCODER__FREEZE": True},
         {"loss_diffusion"}),
        (JOINT, {"CLASSIFIER": "mask_pooling"}, LOSSES | {"loss_class"}),
        (SEPARATE, {"DIFFUSION__MASKED_LOSS": True}, LOSSES),
    ],
)  # fmt: skip
def test_losses_have_their_keys_and_reach_every_trained_parameter(name, options, losses):
    model = build(name, TRAIN_INPAINTING__PROB=0.7, **options).train()
    frozen = model.frozen_prefixes
    assert "autoencoder." in frozen
    assert ("image_encoder." in frozen) == ("IMAGE_ENCODER__FREEZE" in options)
    with torch.no_grad():
        for parameter in model.parameters():
            # Residual blocks that begin as zero would pass no gradient on.
            parameter.add_(0.02 * torch.randn_like(parameter))
    for seed in range(3):
        found = model(tiny_multitask_batch(3, SIDE, seed=seed))
        assert set(found) == losses
        assert all(loss.shape == () and torch.isfinite(loss) for loss in found.values())
        sum(found.values()).backward()
    for key, parameter in model.named_parameters():
        if key.startswith(frozen):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and bool(parameter.grad.any()), key
    for key, module in model.named_modules():
        assert not (module.training and f"{key}.".startswith(frozen))


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_losses_are_the_mean_over_all_valid_latents(name):
    """The config predicts x0 with a uniform weight, so the error is plain."""
    tasks = {"TASKS": ["semantic", "depth"], "CLASSIFIER": "none"}
    model = build(name, **tasks, TRAIN_INPAINTING__PROB=0.0).train()
    calls, batch = Recorder(model), tiny_multitask_batch(6, SIDE)
    with EventStorage() as storage:
        losses = model(batch)
    sums, counts = [0.0, 0.0], [0, 0]
    table = torch.cat([semantic_codes(4, 5, "spread"), torch.zeros(252, dtype=torch.int64)])
    for row, (output, entry) in enumerate(zip(calls[0]["output"], batch, strict=True)):
        depth, valid = DepthNormalization("relative").normalize(entry["depth"])
        masks, depths = model.autoencoder, model.depth_autoencoder
        latents = (
            masks.normalize(masks.encode(table[entry["sem_seg"]][None]).mean)[0],
            depths.normalize(depths.encode(depth[None], valid[None]))[0],
        )
        # Depth counts in cells half of whose 4x4 pixels are valid, classes everywhere.
        half = valid.view(8, 4, 8, 4).float().mean((1, 3)) >= 0.5
        for k, cells in enumerate((torch.ones_like(half), half)):
            channels = slice(16 * k, 16 * k + 16) if name == JOINT else slice(0, 16)
            if name == JOINT or int(calls[0]["task"][row]) == k:
                error = (output[channels] - latents[k]).detach() ** 2
                sums[k] += float(error[:, cells].sum())
                counts[k] += 16 * int(cells.sum())
    assert min(counts) > 0, "another seed is needed for this test"
    for k, task in enumerate(("semantic", "depth")):
        loss = float(losses[f"loss_{task}"].detach())
        assert loss == pytest.approx(sums[k] / sum(counts), rel=1e-4)
        logged = storage.latest()[f"diffusion/{task}"][0]
        assert logged == pytest.approx(sums[k] / counts[k], rel=1e-4)


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_what_a_sample_draws_depends_on_its_seed_alone(name):
    """Task, noise, timestep, ids and known cells: the same in any micro-batch."""
    options = {"ID_ASSIGNMENT": "random", "DIFFUSION__SELF_CONDITIONING": True}
    model = build(name, TRAIN_INPAINTING__PROB=1.0, **options).train()
    entries = [dict(e, sample_seed=12 + i) for i, e in enumerate(tiny_multitask_batch(5, SIDE))]
    entries[1], entries[3] = without(entries[1], "depth"), without(entries[3], "segment_ids")
    calls = Recorder(model)
    with torch.no_grad():
        model(entries)
        whole = calls[-1]
        for part in ([0, 1], [2], [4, 3]):
            model([entries[i] for i in part])
            for key in ("x_t", "t", "task", "known", "previous"):
                torch.testing.assert_close(calls[-1][key], whole[key][part], atol=1e-4, rtol=1e-4)
    given = whole["known"].flatten(1).any(1)
    assert given.any() and not given[3]
    assert not given[whole["task"] != 0].any(), "only segments can be given"


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_pictures_that_lack_annotations_teach_the_other_tasks(name):
    model = build(name, DIFFUSION__MASKED_LOSS=True).train()
    first, second, void = tiny_multitask_batch(3, SIDE)
    invalid = dict(without(second, "sem_seg"), depth=torch.zeros(SIDE, SIDE))
    losses = model([without(first, "sem_seg", "depth"), invalid])
    assert losses["loss_semantic"] == losses["loss_depth"] == 0 < losses["loss_instance"]
    # All processes must have the same gradients to exchange.
    losses["loss_semantic"].backward()
    assert model.denoiser.unet.conv_in.weight.grad is not None
    nothing = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    void.update(segment_ids=nothing, sem_seg=nothing + 255, depth=nothing.float())
    assert all(loss == 0 for loss in model([void]).values())
    with pytest.raises(KeyError, match="0.png.*'segment_ids', 'sem_seg', 'depth'"):
        model([without(first, *ANNOTATIONS)])


def test_crops_in_training_may_be_smaller_than_the_pictures_at_test():
    model = build(JOINT, "INPUT.LDMSEG.TRAIN_SIZE", 16, CLASSIFIER="mask_pooling")
    calls = Recorder(model)
    losses = model.train()(tiny_multitask_batch(2, 16))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert calls[-1]["x_t"].shape == calls[-1]["output"].shape == (2, 48, 4, 4)
    assert model.eval()(photos())[0]["panoptic_seg"][0].shape == (SIDE, SIDE)
    assert calls[-1]["x_t"].shape == (2, 48, 8, 8)
    with pytest.raises(ValueError, match="0.png.*larger than"):
        model.train()(tiny_multitask_batch(2, SIDE))


# Inference


@pytest.mark.parametrize(
    "name, classifier",
    [(JOINT, "semantic_task"), (SEPARATE, "semantic_task"), (JOINT, "mask_pooling")],
)
def test_outputs_have_the_results_size_and_agree(name, classifier):
    model = build(name, CLASSIFIER=classifier).eval()
    entry = photos(1)[0]
    # Longest side 32, the rest of the square is padding; the result has another size again.
    entry.update(image=entry["image"][:, :, :20], height=40, width=25)
    (output,) = model([entry])
    assert set(output) == {"panoptic_seg", "sem_seg", "depth", "instances"}
    panoptic, segments_info = output["panoptic_seg"]
    assert panoptic.shape == (40, 25) and panoptic.dtype == torch.int32
    assert {s["id"] for s in segments_info} == set(panoptic.unique().tolist()) - {0}
    for segment in segments_info:
        assert segment["area"] == int((panoptic == segment["id"]).sum())
        assert segment["isthing"] == (segment["category_id"] in (1, 2, 3))
        assert 0 <= segment["category_id"] < 4 and 0 <= segment["score"] <= 1
    assert output["sem_seg"].shape == (4, 40, 25), "no channel of void"
    assert 0 <= float(output["sem_seg"].min()) and float(output["sem_seg"].sum(0).max()) < 1.0001
    assert output["depth"].shape == (40, 25) and output["depth"].dtype == torch.float32
    assert 0 <= float(output["depth"].min()) <= float(output["depth"].max()) <= 1
    # Without the task that votes, segments have no classes: there is no telling things from stuff.
    (only,) = model([dict(entry, tasks=["instance"])])
    classes = {"sem_seg", "instances"} if classifier == "mask_pooling" else set()
    assert set(only) == {"panoptic_seg"} | classes
    instances, things = output["instances"], [s for s in segments_info if s["isthing"]]
    things.sort(key=lambda s: -s["score"])
    assert [s["category_id"] for s in things] == instances.pred_classes.tolist()
    assert [s["score"] for s in things] == pytest.approx(instances.scores.tolist())
    for thing, mask, box in zip(things, instances.pred_masks, instances.pred_boxes, strict=True):
        assert torch.equal(mask, panoptic == thing["id"])
        y, x = mask.nonzero(as_tuple=True)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize(
    "name, sampler",
    [(JOINT, "DDPM"), (SEPARATE, "DDIM"), (JOINT, "UniPC"), (LDMSEG, "DPMSolver++")],
)
def test_a_result_depends_on_neither_the_batch_nor_the_other_tasks(name, sampler):
    options = {"SAMPLER__NAME": sampler, "DIFFUSION__SELF_CONDITIONING": True}
    model = build(name, CLASSIFIER="none", **options).eval()
    entries = photos(3)
    together = model(entries)
    output_of = {"instance": "panoptic_seg", "semantic": "sem_seg", "depth": "depth"}
    tasks = model.layout.names
    mixed = model([dict(e, tasks=[tasks[-1 - i % len(tasks)]]) for i, e in enumerate(entries)])
    alone = [model([entry])[0] for entry in entries]
    for i, expected in enumerate(together):
        assert set(expected) == {output_of[task] for task in tasks} == set(alone[i])
        assert set(mixed[i]) == {output_of[tasks[-1 - i % len(tasks)]]}
        for output in (alone[i], mixed[i]):
            for key in set(output) - {"panoptic_seg"}:
                torch.testing.assert_close(output[key], expected[key], atol=1e-3, rtol=0)
            if "panoptic_seg" in output:
                # Convolutions of another batch size round differently: a few pixels on a tie.
                wrong = output["panoptic_seg"][0] != expected["panoptic_seg"][0]
                assert wrong.float().mean() < 0.005
    other = model([dict(entries[0], seed=123)])[0]["panoptic_seg"][0]
    assert (other != together[0]["panoptic_seg"][0]).float().mean() > 0.005


def given(entry, names=(0, 900, 17, 5, 44)):
    """The left half of the truth under other names, void included."""
    ids = torch.tensor(names)[entry["segment_ids"]]
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, : SIDE // 2] = True
    return {**without(entry, *ANNOTATIONS), "known_ids": ids, "known_mask": mask}


@pytest.mark.parametrize("prob", [0.0, 0.5])
@pytest.mark.parametrize("name, assignment", [(LDMSEG, "random"), (JOINT, "matched"),
                                              (SEPARATE, "random")])  # fmt: skip
def test_given_pixels_and_ids_come_out_and_the_rest_stays_as_it_was(name, assignment, prob):
    options = {"ID_ASSIGNMENT": assignment, "TRAIN_INPAINTING__PROB": prob}
    model = build(name, **options).eval()
    batch = [*photos(2), given(tiny.tiny_batch(3, SIDE)[2])]
    batch[1]["known_ids"] = torch.zeros(SIDE, SIDE, dtype=torch.int64)  # nothing
    calls = Recorder(model)
    outputs = model(batch)
    (alone,) = model([batch[2]])
    ids, infos = outputs[2]["panoptic_seg"]
    mask, known = batch[2]["known_mask"], batch[2]["known_ids"]
    assert torch.equal(ids[mask].long(), known[mask])
    assert (ids != alone["panoptic_seg"][0]).float().mean() < 0.005
    assert {s["id"]: s["area"] for s in infos} == {
        i: int((ids == i).sum()) for i in ids.unique().tolist() if i
    }
    plain = model(photos(2))
    for output, expected in zip(outputs, plain):
        assert (output["panoptic_seg"][0] != expected["panoptic_seg"][0]).float().mean() < 0.005
    # 8 cells a side, of which the left half is given, in the last channel of the network.
    told = next(call["known"] for call in calls if "known" in call)
    cells = [one[0] for one in told if one.any()]
    assert len(cells) == 1 and torch.equal(cells[0], (torch.arange(8) < 4).expand(8, 8))


def test_given_classes_draws_and_steps():
    """Two given segments are stuff of one class; another of one pixel survives the consensus."""
    model = build(POSTPROCESS__COUNT_THRESHOLD=20, SAMPLER__NUM_INFERENCE_STEPS=5).eval()
    entry = given(tiny.tiny_batch(1, SIDE)[0])
    entry["known_ids"][20, 3] = 77
    entry |= {"known_classes": {900: 0, 17: 0}, "num_samples": 3, "return_steps": 3}
    output, other = model([entry, photos(2)[1]])
    mask, known = entry["known_mask"], entry["known_ids"]
    ids, infos = output["panoptic_seg"]
    for one in (ids, *(sample[0] for sample in output["samples"])):
        assert torch.equal(one[mask].long(), known[mask])
    by_id = {s["id"]: s for s in infos}
    assert by_id[900]["category_id"] == by_id[17]["category_id"] == 0 and 77 in by_id
    assert not by_id[900]["isthing"] and not by_id[17]["isthing"]
    assert len(output["instances"]) == sum(s["isthing"] for s in infos)
    assert len(output["samples"]) == 3 and not output["uncertainty"][mask].any()
    assert 0 < float(output["uncertainty"].max()) <= 1
    assert [step["timestep"] for step in output["steps"]] == [999, 599, 199]
    assert not {"steps", "samples", "uncertainty"} & set(other)

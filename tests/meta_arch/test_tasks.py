import pytest
import torch
from bit_autoencoder import BitAutoencoder
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from tiny import CLASSES, JOINT, SEPARATE, tiny_config, tiny_multitask_batch

from ldmseg_d2.engine import LDMSegCheckpointer, ModelEMA
from ldmseg_d2.evaluation import EVALUATORS, build_evaluator, register_evaluator
from ldmseg_d2.ids import assign_ids, semantic_codes
from ldmseg_d2.meta_arch.batching import SampleRandomness
from ldmseg_d2.meta_arch.tasks import (
    TASK_REGISTRY,
    Classes,
    InstanceTask,
    SemanticTask,
    Target,
)
from ldmseg_d2.meta_arch.tasks.classifier import SemanticVote
from ldmseg_d2.modeling.depth_normalization import DepthNormalization

CPU = torch.device("cpu")
LOSSES = {"loss_instance", "loss_semantic", "loss_depth"}
# What a random network gives should become segments.
ALL_SEGMENTS = (
    "MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.0,
    "MODEL.LDMSEG.POSTPROCESS.MASK_THRESHOLD", 0.0,
    "MODEL.LDMSEG.POSTPROCESS.OVERLAP_THRESHOLD", 0.0,
    "MODEL.LDMSEG.POSTPROCESS.COUNT_THRESHOLD", 1,
)  # fmt: skip
NO_THRESHOLDS = {"count_threshold": 1, "overlap_threshold": 0.0}
RELATIVE = ("MODEL.LDMSEG.DEPTH.NORMALIZATION", "relative", "MODEL.LDMSEG.DEPTH.SCALE", "linear")
NO_INPAINTING = ("MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.0)


def build(name=JOINT, *opts, seed=0):
    torch.manual_seed(seed)
    return build_model(tiny_config(name, *CLASSES, *RELATIVE, *opts))


def without(entry, *keys):
    return {key: value for key, value in entry.items() if key not in keys}


class Recorder:
    """Keeps what goes in and out of a model's denoiser."""

    def __init__(self, model):
        self.calls = []
        model.denoiser.register_forward_hook(self)

    def __call__(self, module, args, output):
        names = ("x_t", "t", "condition", "previous", "task", "known")
        self.calls.append(dict(zip(names, args)) | {"output": output.detach()})


def clean_latents(model, entry):
    """What the three tasks should learn from a picture of the full size, without their code."""
    autoencoder = model.autoencoder
    ids = assign_ids(entry["segment_ids"][None], num_bits=7, method="ordered")
    table = torch.cat([semantic_codes(4, 7, "spread"), torch.zeros(252, dtype=torch.int64)])
    latents = [
        autoencoder.normalize(autoencoder.encode(one).mean)
        for one in (ids, table[entry["sem_seg"]][None])
    ]
    depth, valid = DepthNormalization("relative").normalize(entry["depth"])
    depth_autoencoder = model.depth_autoencoder
    latents.append(depth_autoencoder.normalize(depth_autoencoder.encode(depth[None], valid[None])))
    # A cell counts if half of its 4x4 pixels are valid.
    cells = torch.tensor(
        [
            [valid[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].sum() >= 8 for x in range(16)]
            for y in range(16)
        ]
    )
    return [latent[0].detach() for latent in latents], cells


def test_joint_losses_are_the_mean_over_all_valid_latents():
    """The shipped config predicts x0 with a uniform weight, so the error is plain."""
    opts = ("MODEL.LDMSEG.DIFFUSION.SELF_ALIGNED_PROB", 0.0, *NO_INPAINTING)
    model = build(JOINT, "MODEL.LDMSEG.ID_ASSIGNMENT", "ordered", *opts).train()
    recorder = Recorder(model)
    batch = tiny_multitask_batch()
    with EventStorage() as storage:
        losses = model(batch)
    (call,) = recorder.calls
    sums, counts = [0.0] * 3, [0] * 3
    for output, entry in zip(call["output"], batch, strict=True):
        latents, cells = clean_latents(model, entry)
        for k, latent in enumerate(latents):
            error = (output[16 * k : 16 * k + 16] - latent) ** 2
            counted = cells if k == 2 else torch.ones_like(cells)
            sums[k] += float(error[:, counted].sum())
            counts[k] += 16 * int(counted.sum())
    assert counts[2] < counts[0] == 2 * 16 * 16 * 16
    assert set(losses) == LOSSES
    for k, name in enumerate(["instance", "semantic", "depth"]):
        assert float(losses[f"loss_{name}"]) == pytest.approx(sums[k] / sum(counts), rel=1e-4)
        logged, _ = storage.latest()[f"diffusion/{name}"]
        assert logged == pytest.approx(sums[k] / counts[k], rel=1e-4)


def test_separate_losses_are_the_mean_over_all_valid_latents():
    model = build(SEPARATE, "MODEL.LDMSEG.ID_ASSIGNMENT", "ordered", *NO_INPAINTING).train()
    recorder = Recorder(model)
    batch = tiny_multitask_batch(6)
    losses = model(batch)
    (call,) = recorder.calls
    drawn = call["task"].tolist()
    assert set(drawn) == {0, 1, 2}, "another seed is needed for this test"
    sums, count = [0.0] * 3, 0
    for output, entry, k in zip(call["output"], batch, drawn, strict=True):
        latents, cells = clean_latents(model, entry)
        counted = cells if k == 2 else torch.ones_like(cells)
        sums[k] += float(((output - latents[k]) ** 2)[:, counted].sum())
        count += 16 * int(counted.sum())
    assert set(losses) == LOSSES
    for k, name in enumerate(["instance", "semantic", "depth"]):
        assert float(losses[f"loss_{name}"]) == pytest.approx(sums[k] / count, rel=1e-4)


def test_joint_weights_scale_the_tasks_losses():
    batch = [dict(entry, sample_seed=i) for i, entry in enumerate(tiny_multitask_batch())]
    plain = build().train()(batch)
    weighted = build(JOINT, "MODEL.LDMSEG.TASK_WEIGHTS", [1, 0, 2]).train()(batch)
    for (name, loss), factor in zip(plain.items(), [1, 0, 2], strict=True):
        torch.testing.assert_close(weighted[name], factor * loss)


@pytest.mark.parametrize(
    "name, opts",
    [
        (JOINT, ("MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True)),
        (SEPARATE, ("MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True)),
        (
            JOINT,
            (
                "MODEL.LDMSEG.CLASSIFIER", "mask_pooling",
                "MODEL.LDMSEG.DIFFUSION.DECODED_LOSS_WEIGHT", 0.1,
            ),
        ),
    ],
)  # fmt: skip
def test_gradients_reach_every_trained_parameter(name, opts):
    model = build(name, *opts, "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 1.0).train()
    with torch.no_grad():
        for parameter in model.parameters():
            # Residual blocks that begin as zero would pass no gradient on.
            parameter.add_(0.02 * torch.randn_like(parameter))
    for seed in range(3):
        sum(model(tiny_multitask_batch(3, seed=seed)).values()).backward()
    for key, parameter in model.named_parameters():
        if key.startswith(("autoencoder.", "depth_autoencoder.")):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and bool(parameter.grad.any()), key


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_pictures_that_lack_annotations_teach_the_other_tasks(name):
    model = build(
        name,
        "MODEL.LDMSEG.DIFFUSION.DECODED_LOSS_WEIGHT", 0.1,
        "MODEL.LDMSEG.DIFFUSION.MASKED_LOSS", True,
    ).train()  # fmt: skip
    first, second, third = tiny_multitask_batch(3)
    invalid = dict(third, depth=torch.zeros_like(third["depth"]))
    batch = [without(first, "sem_seg"), without(second, "sem_seg", "depth"), invalid]
    batch[2].pop("sem_seg")
    losses = model(batch)
    assert set(losses) == LOSSES | {"loss_decoded"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert float(losses["loss_semantic"]) == 0 < float(losses["loss_instance"])
    # All processes must have the same gradients to exchange.
    losses["loss_semantic"].backward(retain_graph=True)
    assert model.denoiser.unet.conv_in.weight.grad is not None
    with pytest.raises(KeyError, match="'segment_ids', 'sem_seg', 'depth'"):
        model([without(first, "segment_ids", "sem_seg", "depth")])


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_void_pictures_no_things_and_one_pixel_of_a_class(name):
    model = build(
        name,
        "MODEL.LDMSEG.DIFFUSION.DECODED_LOSS_WEIGHT", 0.1,
        "MODEL.LDMSEG.DIFFUSION.MASKED_LOSS", True,
    ).train()  # fmt: skip
    void, stuff, pixel = tiny_multitask_batch(3)
    void["segment_ids"] = torch.zeros_like(void["segment_ids"])
    void["sem_seg"] = torch.full_like(void["sem_seg"], 255)
    void["depth"] = torch.zeros_like(void["depth"])
    void["segments_info"] = []
    stuff["segment_ids"] = torch.ones_like(stuff["segment_ids"])
    stuff["sem_seg"] = torch.zeros_like(stuff["sem_seg"])
    stuff["segments_info"] = stuff["segments_info"][:1]
    pixel["sem_seg"][20, 20] = 3
    pixel["segment_ids"][20, 20] = int(pixel["segment_ids"].max()) + 1
    nothing = model([void])
    assert all(float(loss) == 0 for loss in nothing.values()), nothing
    sum(nothing.values()).backward()
    losses = model([void, stuff, pixel])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert sum(float(loss) for loss in losses.values()) > 0


def outputs_of(model, entry, tasks=None):
    return model([entry if tasks is None else dict(entry, tasks=tasks)])[0]


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_a_result_depends_on_neither_the_other_tasks_nor_the_batch(name):
    model = build(name, "MODEL.LDMSEG.CLASSIFIER", "none", *ALL_SEGMENTS).eval()
    entries = [without(e, "segment_ids", "sem_seg", "depth") for e in tiny_multitask_batch(2)]
    together = model(entries)
    alone = outputs_of(model, entries[1])
    mixed = model([dict(entries[0], tasks=["depth"]), dict(entries[1], tasks=["semantic"])])
    assert set(mixed[0]) == {"depth"} and set(mixed[1]) == {"sem_seg"}
    instance = outputs_of(model, entries[1], ["instance"])
    assert set(instance) == {"panoptic_seg"}
    expected = together[1]
    assert set(expected) == set(alone) == {"panoptic_seg", "sem_seg", "depth"}
    for output in (alone, instance):
        # Convolutions of another batch size may round differently: a few pixels on a tie.
        wrong = output["panoptic_seg"][0] != expected["panoptic_seg"][0]
        assert wrong.float().mean() < 0.005
    for output in (alone, mixed[1]):
        torch.testing.assert_close(output["sem_seg"], expected["sem_seg"], atol=1e-3, rtol=0)
    torch.testing.assert_close(alone["depth"], expected["depth"], atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed[0]["depth"], together[0]["depth"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "name, classifier",
    [(JOINT, "semantic_task"), (SEPARATE, "semantic_task"), (JOINT, "mask_pooling")],
)
def test_outputs_have_the_results_size_and_agree(name, classifier):
    model = build(name, "MODEL.LDMSEG.CLASSIFIER", classifier, *ALL_SEGMENTS).eval()
    entry = without(tiny_multitask_batch(1)[0], "segment_ids", "sem_seg", "depth")
    # Longest side 64, the rest of the square is padding; the result has another size again.
    entry.update(image=entry["image"][:, :, :40], height=80, width=50)
    output = outputs_of(model, entry)
    assert set(output) == {"panoptic_seg", "sem_seg", "depth", "instances"}
    panoptic, segments_info = output["panoptic_seg"]
    assert panoptic.shape == (80, 50) and panoptic.dtype == torch.int32
    assert {s["id"] for s in segments_info} == set(panoptic.unique().tolist()) - {0}
    for segment in segments_info:
        assert segment["area"] == int((panoptic == segment["id"]).sum())
        assert segment["isthing"] == (segment["category_id"] in (1, 2, 3))
        assert 0 <= segment["category_id"] < 4 and 0 <= segment["score"] <= 1
    assert output["sem_seg"].shape == (4, 80, 50), "no channel of void"
    assert output["sem_seg"].dtype == torch.float32
    assert 0 <= float(output["sem_seg"].min()) and float(output["sem_seg"].sum(0).max()) < 1.0001
    assert output["depth"].shape == (80, 50) and output["depth"].dtype == torch.float32
    assert 0 <= float(output["depth"].min()) <= float(output["depth"].max()) <= 1
    assert_instances_are_the_things(output)


def assert_instances_are_the_things(output):
    panoptic, segments_info = output["panoptic_seg"]
    things = {s["id"]: s for s in segments_info if s["isthing"]}
    instances = output["instances"]
    assert instances.image_size == tuple(panoptic.shape) and len(instances) == len(things)
    scores = instances.scores.tolist()
    assert scores == sorted(scores, reverse=True)
    seen = set()
    for i in range(len(instances)):
        mask = instances.pred_masks[i]
        (id_,) = panoptic[mask].unique().tolist()
        seen.add(id_)
        assert int(mask.sum()) == things[id_]["area"]
        assert int(instances.pred_classes[i]) == things[id_]["category_id"]
        assert scores[i] == pytest.approx(things[id_]["score"])
        y, x = mask.nonzero(as_tuple=True)
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert instances.pred_boxes.tensor[i].tolist() == [float(v) for v in box]
    assert seen == set(things)


# --- The targets themselves, through an autoencoder that loses nothing.


def no_prediction():
    raise AssertionError("only 'matched' ids ask for a prediction")


def roundtrip(task, entries):
    randomness = SampleRandomness([dict(e, sample_seed=i) for i, e in enumerate(entries)], CPU)
    return task.decode(task.encode(entries, randomness, no_prediction).latents, entries)


@pytest.mark.parametrize("codes", ["consecutive", "spread"])
def test_255_classes_come_back(codes):
    task = SemanticTask(BitAutoencoder(8), image_size=16, num_classes=255, codes=codes)
    sem_seg = torch.arange(256).view(16, 16)  # every class once, and void
    entry = {"sem_seg": sem_seg, "segment_ids": sem_seg, "height": 16, "width": 16}
    (probabilities,) = roundtrip(task, [entry])
    assert probabilities.shape == (256, 16, 16)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(16, 16))
    assert torch.equal((probabilities.argmax(0) - 1) % 256, sem_seg)


def test_more_classes_than_a_semantic_map_can_hold_raise():
    with pytest.raises(ValueError, match="at most 255 classes, got 256"):
        SemanticTask(BitAutoencoder(9), image_size=16, num_classes=256)


def test_classes_that_the_model_lacks_raise():
    task = SemanticTask(BitAutoencoder(7), image_size=64, num_classes=3)
    entry = tiny_multitask_batch(1)[0]
    with pytest.raises(ValueError, match=r"0.png: sem_seg holds class 3.*3 classes \(0..2"):
        roundtrip(task, [entry])


@pytest.mark.parametrize("id_assignment", ["random", "ordered", "positional"])
def test_the_truth_of_both_tasks_becomes_the_panoptic_truth(id_assignment):
    """Also a class of one pixel, and a picture smaller than the networks' square."""
    autoencoder = BitAutoencoder(7)
    instance = InstanceTask(
        autoencoder,
        image_size=64,
        id_assignment=id_assignment,
        postprocess=NO_THRESHOLDS,
    )
    semantic = SemanticTask(autoencoder, image_size=64, num_classes=5, codes="spread")
    vote = SemanticVote(Classes(5, (False, True, True, True, True)))
    entries = tiny_multitask_batch(2, 48)
    single = int(entries[0]["segment_ids"].max()) + 1
    entries[0]["segment_ids"][40, 30] = single
    entries[0]["sem_seg"][40, 30] = 4
    entries[0]["segments_info"].append({"id": single, "category_id": 4, "isthing": True})
    pairs = zip(roundtrip(instance, entries), roundtrip(semantic, entries), entries, strict=True)
    for panoptic_seg, sem_seg, entry in pairs:
        decoded = {"panoptic_seg": panoptic_seg, "sem_seg": sem_seg}
        output = vote(decoded, entry, torch.zeros(1, 4, 4))
        panoptic, segments_info = output["panoptic_seg"]
        truth = entry["segment_ids"]
        assert torch.equal(panoptic == 0, truth == 0)
        # One found segment for each true one, of its class.
        couples = {(int(a), int(b)) for a, b in zip(panoptic.flatten(), truth.flatten()) if b}
        assert len(couples) == len(entry["segments_info"]) == len(segments_info)
        found = {s["id"]: s["category_id"] for s in segments_info}
        wanted = {s["id"]: s["category_id"] for s in entry["segments_info"]}
        assert all(found[a] == wanted[b] for a, b in couples)
        shown = truth != 0
        assert torch.equal(output["sem_seg"].argmax(0)[shown], entry["sem_seg"][shown])
        assert_instances_are_the_things(output)


def test_a_picture_without_things_has_no_instances():
    autoencoder = BitAutoencoder(7)
    instance = InstanceTask(autoencoder, image_size=64, postprocess=NO_THRESHOLDS)
    semantic = SemanticTask(autoencoder, image_size=64, num_classes=2)
    vote = SemanticVote(Classes(2, (False, False)))
    entry = tiny_multitask_batch(1)[0]
    entry["sem_seg"] = entry["sem_seg"].where(entry["sem_seg"] == 255, 1)
    (panoptic_seg,), (sem_seg,) = roundtrip(instance, [entry]), roundtrip(semantic, [entry])
    output = vote({"panoptic_seg": panoptic_seg, "sem_seg": sem_seg}, entry, torch.zeros(1, 4, 4))
    (segment,) = output["panoptic_seg"][1]
    assert segment["category_id"] == 1 and segment["area"] == int((entry["sem_seg"] == 1).sum())
    assert len(output["instances"]) == 0
    assert output["instances"].pred_masks.shape == (0, 64, 64)
    # And one of void alone has no segments at all.
    entry["segment_ids"], entry["sem_seg"] = torch.zeros(64, 64).long(), torch.full((64, 64), 255)
    (panoptic_seg,), (sem_seg,) = roundtrip(instance, [entry]), roundtrip(semantic, [entry])
    output = vote({"panoptic_seg": panoptic_seg, "sem_seg": sem_seg}, entry, torch.zeros(1, 4, 4))
    assert not output["panoptic_seg"][0].any() and output["panoptic_seg"][1] == []
    assert len(output["instances"]) == 0


# --- Samples do not see one another.


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_what_a_sample_draws_depends_on_its_seed_alone(name):
    """Task, noise, timestep, ids and known cells: the same in any micro-batch."""
    model = build(
        name,
        "MODEL.LDMSEG.ID_ASSIGNMENT", "random",
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.7,
        "MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True,
    ).train()  # fmt: skip
    entries = [dict(e, sample_seed=10 + i) for i, e in enumerate(tiny_multitask_batch(5))]
    entries[1] = without(entries[1], "depth")
    entries[3] = without(entries[3], "segment_ids")
    recorder = Recorder(model)
    with torch.no_grad():
        model(entries)
        whole = recorder.calls[-1]
        for part in ([0, 1], [2], [4, 3]):
            model([entries[i] for i in part])
            here = recorder.calls[-1]
            for key in ("t", "task", "known"):
                assert torch.equal(here[key], whole[key][part]), key
            for key in ("x_t", "previous"):
                torch.testing.assert_close(here[key], whole[key][part], atol=1e-4, rtol=1e-4)


def test_a_batchs_loss_is_the_mean_of_its_samples():
    """Where every latent counts, in micro-batches of any size."""
    model = build(JOINT, "MODEL.LDMSEG.ID_ASSIGNMENT", "random", *NO_INPAINTING).train()
    entries = [dict(e, sample_seed=i) for i, e in enumerate(tiny_multitask_batch(3))]
    for entry in entries:
        entry["depth"] = entry["depth"].clamp(min=1)
    with torch.no_grad():
        whole = model(entries)
        parts = [model(entries[:2]), model(entries[2:])]
    for name in LOSSES:
        mean = (2 * parts[0][name] + parts[1][name]) / 3
        torch.testing.assert_close(whole[name], mean, atol=1e-5, rtol=1e-5)


# --- Averaged weights, checkpoints, devices.


def test_averaged_model_shares_the_frozen_autoencoders_with_its_tasks():
    model = build()
    averaged = ModelEMA(model, decay=0.9).module
    assert averaged.autoencoder is model.autoencoder
    assert averaged.depth_autoencoder is model.depth_autoencoder
    assert averaged.denoiser is not model.denoiser
    for task, ours in zip(averaged.tasks, model.tasks, strict=True):
        assert task is not ours and task.autoencoder is ours.autoencoder
    averaged.to(torch.bfloat16)
    dtypes = {p.dtype for task in averaged.tasks for p in task.autoencoder.parameters()}
    assert dtypes == {torch.bfloat16}, "a task decodes with the model's own autoencoder"


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_a_checkpoint_leaves_both_autoencoders_out_and_restores_the_rest(name, tmp_path):
    opts = ("MODEL.LDMSEG.CLASSIFIER", "mask_pooling", *ALL_SEGMENTS)
    model, other = build(name, *opts), build(name, *opts, seed=1)
    assert model.frozen_prefixes == ("autoencoder.", "depth_autoencoder.")
    LDMSegCheckpointer(model, str(tmp_path)).save("m")
    saved = torch.load(tmp_path / "m.pth", weights_only=True)["model"]
    assert not [key for key in saved if key.startswith(model.frozen_prefixes)]
    LDMSegCheckpointer(other, str(tmp_path)).load(str(tmp_path / "m.pth"))
    for key, value in other.state_dict().items():
        if not key.startswith(model.frozen_prefixes):
            assert torch.equal(value, model.state_dict()[key]), key
    for autoencoder in ("autoencoder", "depth_autoencoder"):
        state = getattr(model, autoencoder).state_dict()
        getattr(other, autoencoder).load_state_dict(state)
    entry = without(tiny_multitask_batch(1)[0], "segment_ids", "sem_seg", "depth")
    ours, theirs = outputs_of(model.eval(), entry), outputs_of(other.eval(), entry)
    assert torch.equal(ours["panoptic_seg"][0], theirs["panoptic_seg"][0])
    assert torch.equal(ours["depth"], theirs["depth"])


# --- A task of one's own.


@pytest.fixture
def foreground_task():
    """A task in a few lines: which pixels are things, from the semantic map."""

    @TASK_REGISTRY.register()
    class ForegroundTask(SemanticTask):
        name = "foreground"
        output_key = "foreground"

        @classmethod
        def from_config(cls, cfg):
            return {**super().from_config(cfg), "num_classes": 2}

        def encode(self, entries, randomness, predict) -> Target:
            binary = [
                dict(e, sem_seg=e["sem_seg"].where(e["sem_seg"] == 255, (e["sem_seg"] > 0).long()))
                for e in entries
            ]
            return super().encode(binary, randomness, predict)

        def decode(self, latents, entries):
            return [probs[2] for probs in super().decode(latents, entries)]

    @register_evaluator("foreground")
    def build_foreground(cfg, dataset_name, output_folder):
        from detectron2.evaluation import DatasetEvaluator

        class ForegroundEvaluator(DatasetEvaluator):
            pass

        return ForegroundEvaluator() if "foreground" in cfg.MODEL.LDMSEG.TASKS else None

    yield ForegroundTask
    TASK_REGISTRY._obj_map.pop("ForegroundTask")
    EVALUATORS.pop("foreground")


def test_a_task_of_ones_own_trains_decodes_and_is_evaluated(foreground_task, catalogs):
    tasks = ("MODEL.LDMSEG.TASKS", ["foreground", "depth"], "MODEL.LDMSEG.CLASSIFIER", "none")
    model = build(JOINT, *tasks).train()
    batch = tiny_multitask_batch()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = model(batch)
    assert set(losses) == {"loss_foreground", "loss_depth"}
    sum(losses.values()).backward()
    optimizer.step()
    output = model.eval()(batch)[0]
    assert set(output) == {"foreground", "depth"}
    assert output["foreground"].shape == (64, 64)
    DatasetCatalog.register("own_photos", lambda: [{"file_name": "photo.jpg", "image_id": 1}])
    MetadataCatalog.get("own_photos").set(evaluator_type="sem_seg")
    evaluators = build_evaluator(tiny_config(JOINT, *tasks), "own_photos")
    assert [type(e).__name__ for e in evaluators._evaluators] == ["ForegroundEvaluator"]

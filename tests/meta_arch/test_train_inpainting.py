import pytest
import torch
from detectron2.modeling import build_model
from tiny import CLASSES, JOINT, SEPARATE, tiny_config, tiny_multitask_batch

from ldmseg_d2.diffusion import build_scheduler, diffusion_loss
from ldmseg_d2.evaluation.inpainting_evaluation import nearest_fill
from ldmseg_d2.ids import assign_ids
from ldmseg_d2.meta_arch.batching import SampleRandomness
from ldmseg_d2.meta_arch.tasks.known_cells import draw_known_pixels, whole_cells

CPU = torch.device("cpu")


def draw(ids, prob=1.0, num_ids=128):
    randomness = SampleRandomness([{"sample_seed": i} for i in range(len(ids))], CPU)
    known = draw_known_pixels(ids, 16, num_ids=num_ids, prob=prob, randomness=randomness)
    return whole_cells(known, 16)[:, 0]


@pytest.fixture(scope="module")
def ids():
    """600 samples: a void stripe, two halves, and a square that fills no cell on its rim."""
    one = torch.ones(64, 64, dtype=torch.int64)
    one[:, 32:] = 2
    one[:8] = 0
    one[22:42, 22:42] = 3
    return one.expand(600, 64, 64)


def kind_of(known, ids):
    """ "nothing", "segments", or "groups" of cells, told by what a segment cannot be."""
    if not known.any():
        return "nothing"
    cells = ids.view(16, 4, 16, 4).transpose(1, 2).reshape(16, 16, 16)
    for k in range(4):
        inside = (cells == k).all(-1)
        if (k == 0 and known[inside].any()) or len(known[inside].unique()) > 1:
            return "groups"
    return "segments"


def test_known_cells_are_whole_segments_or_groups_of_cells(ids):
    cells = ids[0].view(16, 4, 16, 4).transpose(1, 2).reshape(16, 16, 16)
    kinds = {"nothing": 0, "segments": 0, "groups": 0}
    for known in draw(ids):
        kind = kind_of(known, ids[0])
        kinds[kind] += 1
        if kind != "segments":
            continue
        given = {k for k in (1, 2, 3) if known[(cells == k).all(-1)].all()}
        # A cell is given if all 16 of its pixels belong to given segments: void never does.
        naive = [[given.issuperset(cell) for cell in row] for row in cells.tolist()]
        assert known.tolist() == naive
    # Half of the samples give segments; of those a quarter gives none of three (the integral of
    # (1 - s)^3), and some hide as groups' "nothing" or all-known. Four deviations are 0.08.
    assert kinds["segments"] / 600 == pytest.approx(0.5 * 0.75, abs=0.08)
    assert kinds["groups"] / 600 == pytest.approx(0.5, abs=0.08)


def test_share_of_samples_in_which_something_is_given(ids):
    for prob in (0.0, 0.3):
        some = draw(ids, prob).flatten(1).any(1).float().mean()
        assert float(some) == pytest.approx(prob * (1 - 0.5 * 0.25), abs=0.08)


def test_void_alone_is_never_given_as_a_segment():
    """Only groups are left, half of the samples: they do not ask what is there."""
    ids = torch.zeros(400, 64, 64, dtype=torch.int64)
    share = draw(ids).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(0.5, abs=0.12)


def test_a_samples_cells_do_not_depend_on_the_number_of_segments():
    """Another picture's draw comes from another generator, and this one's is used up alike."""
    few = torch.ones(1, 64, 64, dtype=torch.int64)
    many = (torch.arange(64 * 64) % 100).view(1, 64, 64)
    states = []
    for ids in (few, many):
        randomness = SampleRandomness([{"sample_seed": 3}], CPU)
        draw_known_pixels(ids, 16, num_ids=128, prob=1.0, randomness=randomness)
        states.append(randomness.rand())
    assert torch.equal(*states)


@pytest.mark.parametrize("per_channel", [False, True])
def test_known_cells_stay_clean_and_are_not_learnt(per_channel):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 3, 4, 4, generator=generator)
    channels = 3 if per_channel else 1
    known = torch.rand(2, channels, 4, 4, generator=generator) < 0.4
    valid = torch.rand(2, 1, 4, 4, generator=generator) < 0.7
    t = torch.tensor([100, 700])
    weights = torch.linspace(1, 2, 1000)
    scheduler = build_scheduler("DDPM", prediction_type="sample")
    seen = []

    def denoise(x_t, t, previous):
        seen.append(x_t)
        return 0.5 * x_t

    result = diffusion_loss(
        denoise, x0, t, noise, scheduler=scheduler, weights=weights, valid=valid, known=known
    )
    total, count = 0.0, 0
    for b in range(2):
        a = float(scheduler.alphas_cumprod[t[b]])
        for c in range(3):
            for y in range(4):
                for x in range(4):
                    given = bool(known[b, c if per_channel else 0, y, x])
                    clean = float(x0[b, c, y, x])
                    noisy = a**0.5 * clean + (1 - a) ** 0.5 * float(noise[b, c, y, x])
                    expected = clean if given else noisy
                    assert float(seen[0][b, c, y, x]) == pytest.approx(expected, abs=1e-5)
                    if given or not valid[b, 0, y, x]:
                        continue
                    total += float(weights[t[b]]) * (0.5 * noisy - clean) ** 2
                    count += 1
    assert int(result.num_valid) == count
    assert float(result.loss) == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_the_model_gives_only_the_segments_and_tells_which(name):
    torch.manual_seed(0)
    cfg = tiny_config(
        name, *CLASSES,
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 1.0,
        "MODEL.LDMSEG.ID_ASSIGNMENT", "ordered",
    )  # fmt: skip
    model = build_model(cfg).train()
    calls = []
    model.denoiser.register_forward_hook(lambda module, args, output: calls.append(args))
    batch = tiny_multitask_batch(12)
    model(batch)
    x_t, t, _, _, task, known, _ = calls[-1]
    assert known.shape == (12, 1, 16, 16) and known.dtype == torch.bool
    ids = torch.stack([entry["segment_ids"] for entry in batch])
    ids = assign_ids(ids, num_bits=7, method="ordered")
    clean = model.autoencoder.normalize(model.autoencoder.encode(ids).mean)
    same = (x_t[:, :16] - clean).abs().amax(1, keepdim=True) < 1e-5
    for i in range(12):
        if int(task[i]) == 0:
            assert torch.equal(same[i], known[i])
        else:
            assert not known[i].any() and not same[i].any()
    assert known.any()
    # And the denoiser looks at it.
    condition = calls[-1][2]
    model.eval()
    told = model.denoiser(x_t, t, condition, None, task, known)
    untold = model.denoiser(x_t, t, condition, None, task)
    changed = (told != untold).flatten(1).any(1)
    assert torch.equal(changed, known.flatten(1).any(1))
    nobody = torch.zeros_like(known)
    assert torch.equal(untold, model.denoiser(x_t, t, condition, None, task, nobody))


def test_groups_of_pixels_may_be_given_in_part_where_there_is_a_draft(ids):
    randomness = SampleRandomness([{"sample_seed": i} for i in range(200)], CPU)
    known = draw_known_pixels(
        ids[:200], 16, num_ids=128, prob=1.0, randomness=randomness, shifted=True
    )
    share = known.view(200, 16, 4, 16, 4).float().mean((2, 4))
    assert ((share > 0) & (share < 1)).any()
    assert torch.equal(whole_cells(known, 16)[:, 0], share == 1)


@pytest.mark.parametrize("name", [JOINT, SEPARATE])
def test_the_draft_is_the_nearest_neighbour_fill(name):
    """In training and at test the denoiser sees the latents of the given part, continued."""
    torch.manual_seed(0)
    cfg = tiny_config(
        name, *CLASSES,
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 1.0,
        "MODEL.LDMSEG.TRAIN_INPAINTING.DRAFT", True,
        "MODEL.LDMSEG.ID_ASSIGNMENT", "ordered",
    )  # fmt: skip
    model = build_model(cfg).train()
    calls = []
    model.denoiser.register_forward_hook(lambda module, args, output: calls.append(args))
    batch = tiny_multitask_batch(8)
    losses = model(batch)
    sum(losses.values()).backward()
    x_t, _, _, _, task, known, draft = calls[-1]
    assert draft.shape == (8, 16, 16, 16)
    ids = assign_ids(torch.stack([e["segment_ids"] for e in batch]), num_bits=7, method="ordered")
    clean = model.autoencoder.normalize(model.autoencoder.encode(ids).mean)
    for i in range(8):
        if int(task[i]) != 0:  # another task's row
            assert not draft[i].any()
        elif known[i].all():
            assert torch.allclose(draft[i], clean[i], atol=1e-5)
    assert any(draft[i].any() for i in range(8))

    # At test: the left half is given, and one picture has nothing.
    entries = tiny_multitask_batch(2)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, :30] = True
    entries[0]["known_ids"] = torch.where(mask, entries[0]["segment_ids"], 0)
    calls.clear()
    outputs = model.eval()(entries)
    draft = calls[0][6]
    given = entries[0]["known_ids"]
    numbers = torch.unique(given, return_inverse=True)[1]  # 0 is not given
    codes = assign_ids(numbers[None], num_bits=7, method="ordered")[0].numpy()
    filled = torch.from_numpy(nearest_fill(codes, (given != 0).numpy()))[None]
    expected = model.autoencoder.normalize(model.autoencoder.encode(filled).mean)[0]
    assert torch.allclose(draft[0], expected, atol=1e-5)
    rows = [i for i in range(len(draft)) if draft[i].any()]
    assert rows == [0]
    panoptic = outputs[0]["panoptic_seg"][0]
    assert torch.equal(panoptic[given != 0].long(), given[given != 0])


def test_the_network_reads_the_draft():
    torch.manual_seed(0)
    cfg = tiny_config(
        JOINT, *CLASSES,
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.5,
        "MODEL.LDMSEG.TRAIN_INPAINTING.DRAFT", True,
    )  # fmt: skip
    denoiser = build_model(cfg).eval().denoiser
    x_t, condition = torch.randn(1, 48, 16, 16), torch.randn(1, 8, 16, 16)
    t = torch.tensor([500])
    zeros = torch.zeros(1, 16, 16, 16)
    with torch.no_grad():
        plain = denoiser(x_t, t, condition)
        assert torch.equal(plain, denoiser(x_t, t, condition, draft=zeros))
        assert not torch.equal(plain, denoiser(x_t, t, condition, draft=zeros + 1))


@pytest.mark.parametrize("classifier", ["semantic_task", "mask_pooling"])
def test_training_on_crops_smaller_than_the_pictures_at_test(classifier):
    torch.manual_seed(0)
    cfg = tiny_config(
        JOINT, *CLASSES,
        "INPUT.LDMSEG.TRAIN_SIZE", 32,
        "INPUT.LDMSEG.RESIZE", "large_scale_jitter",
        "MODEL.LDMSEG.CLASSIFIER", classifier,
    )  # fmt: skip
    model = build_model(cfg).train()
    calls = []
    model.denoiser.register_forward_hook(lambda module, args, output: calls.append(args))
    losses = model(tiny_multitask_batch(2, 32))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert calls[-1][0].shape == (2, 48, 8, 8) and calls[-1][2].shape[-2:] == (8, 8)
    calls.clear()
    outputs = model.eval()(tiny_multitask_batch(2, 64))
    assert calls[-1][0].shape == (2, 48, 16, 16)
    assert outputs[0]["panoptic_seg"][0].shape == (64, 64)
    with pytest.raises(ValueError, match="larger than"):
        model.train()(tiny_multitask_batch(2, 64))


def test_crops_that_the_levels_cannot_halve():
    with pytest.raises(ValueError, match="TRAIN_SIZE 36"):
        build_model(tiny_config(JOINT, *CLASSES, "INPUT.LDMSEG.TRAIN_SIZE", 36))


@pytest.mark.parametrize("name, start", [(JOINT, 0), (SEPARATE, 0)])
def test_the_gate_copies_the_draft_into_the_segments_alone(name, start):
    torch.manual_seed(0)
    cfg = tiny_config(
        name, *CLASSES,
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.5,
        "MODEL.LDMSEG.TRAIN_INPAINTING.DRAFT", True,
    )  # fmt: skip
    denoiser = build_model(cfg).eval().denoiser
    channels = denoiser.latent_channels
    assert denoiser.unet.config.out_channels == channels + 1
    x_t, condition = torch.randn(2, channels, 16, 16), torch.randn(2, 8, 16, 16)
    t = torch.tensor([500, 20])
    draft = torch.randn(2, 16, 16, 16)
    draft[1] = 0  # nothing is given of the second sample
    bias = denoiser.unet.conv_out.bias
    with torch.no_grad():
        bias[-1] = -1000  # closed
        own = denoiser(x_t, t, condition, draft=draft)
        assert own.shape == x_t.shape
        bias[-1] = 1000  # open
        copied = denoiser(x_t, t, condition, draft=draft)
        assert torch.equal(
            denoiser(x_t, t, condition), denoiser(x_t, t, condition, draft=0 * draft)
        )
    segments = slice(start, start + 16)
    assert torch.allclose(copied[0, segments], draft[0])
    assert torch.equal(copied[0, start + 16 :], own[0, start + 16 :])
    assert torch.equal(copied[1], own[1])


def test_without_x0_there_is_no_gate():
    cfg = tiny_config(
        JOINT, *CLASSES,
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.5,
        "MODEL.LDMSEG.TRAIN_INPAINTING.DRAFT", True,
        "MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE", "v_prediction",
    )  # fmt: skip
    denoiser = build_model(cfg).denoiser
    assert denoiser.draft_start is None and denoiser.draft_channels == 16
    assert denoiser.unet.config.out_channels == denoiser.latent_channels


def test_the_gate_follows_the_order_of_the_tasks():
    cfg = tiny_config(
        JOINT, *CLASSES,
        "MODEL.LDMSEG.TASKS", ["semantic", "instance"],
        "MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.5,
        "MODEL.LDMSEG.TRAIN_INPAINTING.DRAFT", True,
    )  # fmt: skip
    assert build_model(cfg).denoiser.draft_start == 16

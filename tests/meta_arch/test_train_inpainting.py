import pytest
import torch
from detectron2.modeling import build_model
from tiny import CLASSES, JOINT, SEPARATE, tiny_config, tiny_multitask_batch

from ldmseg_d2.diffusion import build_scheduler, diffusion_loss
from ldmseg_d2.meta_arch.batching import SampleRandomness
from ldmseg_d2.meta_arch.tasks.known_cells import draw_known_cells
from ldmseg_d2.structures import assign_ids

CPU = torch.device("cpu")


def draw(ids, prob=1.0, num_ids=128):
    randomness = SampleRandomness([{"sample_seed": i} for i in range(len(ids))], CPU)
    return draw_known_cells(ids, 16, num_ids=num_ids, prob=prob, randomness=randomness)[:, 0]


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
        draw_known_cells(ids, 16, num_ids=128, prob=1.0, randomness=randomness)
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
    x_t, t, _, _, task, known = calls[-1]
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

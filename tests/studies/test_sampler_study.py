"""The study of samplers: what exists, what is measured, and what is made of the numbers."""

import json

import pytest
import torch
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from tiny import JOINT, tiny_config

from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts, register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.evaluation import build_evaluator
from ldmseg_d2.studies import samplers as study
from ldmseg_d2.studies import samplers_report as report
from ldmseg_d2.studies.samplers import Combination

RUN = dict.fromkeys(study.SAME_RUN, "x")


def record(sampler, steps, spacing, seed, pq):
    results = {"panoptic_class_agnostic": {"PQ": pq}}
    return {
        "sampler": sampler, "steps": steps, "spacing": spacing, "seed": seed, "results": results,
    }  # fmt: skip


@pytest.fixture
def scenes(tmp_path, catalogs):
    write_scenes(tmp_path / "scenes", "val", num_images=3, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)


def tiny(*opts):
    torch.manual_seed(0)
    cfg = tiny_config(JOINT, "TEST.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0)
    # What a random network gives should become segments.
    for key in ("MIN_SEGMENT_SCORE", "MASK_THRESHOLD", "OVERLAP_THRESHOLD"):
        cfg.MODEL.LDMSEG.POSTPROCESS[key] = 0.0
    cfg.MODEL.LDMSEG.POSTPROCESS.COUNT_THRESHOLD = 1
    cfg.merge_from_list(list(opts))
    return cfg, build_model(cfg).eval()


def test_what_does_not_exist_is_left_out():
    cfg = tiny_config(JOINT)
    arguments = (["DDPM", "LCM", "Heun"], [1, 4], ["trailing", "leading"])
    found = study.combinations(cfg, *arguments)
    expected = [("DDPM", "trailing"), ("DDPM", "leading"), ("LCM", "trailing")]
    expected += [("Heun", "trailing"), ("Heun", "leading")]
    assert found == [Combination(name, n, spacing) for name, spacing in expected for n in (1, 4)]
    assert [one.passes for one in found[-2:]] == [1, 7]
    cfg.MODEL.LDMSEG.DIFFUSION.RESCALE_BETAS_ZERO_SNR = True
    assert {one.sampler for one in study.combinations(cfg, *arguments)} == {"DDPM", "LCM"}


def test_numbers_are_those_of_an_ordinary_evaluation(tmp_path, scenes):
    """UniPC with 3 steps, as Detectron2's own loop over one picture at a time measures it."""
    cfg, model = tiny()
    made = study.SamplerStudy(cfg, model, output=tmp_path, run=RUN)
    combination = Combination("UniPC", 3, "leading")
    made.evaluate([combination], [5])
    results = made.records[0]["results"]
    cfg, model = tiny(
        "MODEL.LDMSEG.SAMPLER.NAME", "UniPC", "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", 3,
        "MODEL.LDMSEG.SAMPLER.TIMESTEP_SPACING", "leading", "SEED", 5,
    )  # fmt: skip
    loader = build_detection_test_loader(
        load_dataset_dicts(["scenes_val"]), mapper=build_dataset_mapper(cfg, is_train=False)
    )
    expected = inference_on_dataset(model, loader, build_evaluator(cfg, "scenes_val"))
    for key, name in (metric.key for metric in study.MEASURED):
        assert results[key][name] == pytest.approx(expected[key][name])
    assert results["sem_seg"]["mIoU"] > 0 and made.num_images == 3


def test_what_is_measured_is_not_measured_again(tmp_path, scenes, monkeypatch):
    cfg, model = tiny()
    first, second = Combination("DDIM", 1, "trailing"), Combination("LCM", 2, "trailing")
    made = study.SamplerStudy(cfg, model, output=tmp_path, run=RUN)
    made.evaluate([first], [0])
    made.measure_latency([first, second], 2)
    assert [(one["sampler"], one["steps"]) for one in made.latency] == [("DDIM", 1), ("LCM", 2)]
    assert made.latency[0]["ratio"] == 1 and made.latency[1]["seconds"] > 0
    again = study.SamplerStudy(cfg, model, output=tmp_path, run=RUN)
    seen = []
    original = study.SamplerStudy._results
    monkeypatch.setattr(
        study.SamplerStudy, "_results", lambda *a: seen.append(a[1:]) or original(*a)
    )
    monkeypatch.setattr(study.SamplerStudy, "_now", None)
    again.measure_latency([second], 2)
    again.evaluate([first, second], [0, 1])
    assert seen == [(second, 0), (first, 1), (second, 1)]
    assert len(json.loads((tmp_path / "results.json").read_text())["records"]) == 4
    with pytest.raises(ValueError, match="another run: weights is 'x' there and 'y' here"):
        study.SamplerStudy(cfg, model, output=tmp_path, run={**RUN, "weights": "y"})
    cfg.DATASETS.TEST = ("scenes_val", "scenes_train")
    with pytest.raises(ValueError, match="exactly one data set"):
        study.SamplerStudy(cfg, model, output=tmp_path, run=RUN)


RECORDS = [
    # At 4 steps DDIM and DDPM overlap; at 50 DDPM is ahead.
    record("DDIM", 4, "trailing", 0, 50.0), record("DDIM", 4, "trailing", 1, 52.0),
    record("DDPM", 4, "trailing", 0, 51.0), record("DDPM", 4, "trailing", 1, 53.0),
    record("LCM", 4, "trailing", 0, 10.0), record("LCM", 4, "trailing", 1, 10.0),
    record("DDIM", 50, "trailing", 0, 50.0), record("DDIM", 50, "trailing", 1, 51.0),
    record("DDPM", 50, "trailing", 0, 53.0), record("DDPM", 50, "trailing", 1, 54.0),
]  # fmt: skip


def test_findings_in_words():
    noise, four, fifty, share, each = report.findings(RECORDS)
    # Half ranges 0, 0.5, 0.5, 1, 1.
    assert "mean of 2 seeds" in noise and "0.5 in the median" in noise and "1.0 at most" in noise
    assert four == (
        "- 4 steps: DDPM (trailing) is best with 52.0. Not told apart from it: trailing DDIM."
    )
    assert fifty.endswith(
        "DDPM (trailing) is best with 53.5, ahead of all others by more than the noise."
    )
    # 52 / 53.5
    assert "52.0 and 53.5: 97.2%, at least the 97% aimed at" in share
    assert each.endswith("DDIM trailing 101.0%, DDPM trailing 97.2%.")
    one_seed = report.findings([r for r in RECORDS if r["seed"] == 0])
    assert "how much of a difference is chance was not measured" in one_seed[0]
    worse = [record("DDIM", 4, "trailing", 0, 40.0), record("DDIM", 50, "trailing", 0, 50.0)]
    assert "80.0%, less than the 97% aimed at" in report.findings(worse)[-2]
    assert report.findings([]) == []


def test_tables_and_picture(tmp_path):
    lines = [
        [c.strip() for c in row.split("|")[1:-1]] for row in report.tables(RECORDS)[0].split("\n")
    ]
    assert lines[0] == ["PQ, class-agnostic", "spacing", "4 steps", "50 steps"]
    assert lines[2] == ["DDIM", "trailing", "51.0 ± 1.0", "50.5 ± 0.5"]
    assert lines[4] == ["LCM", "trailing", "10.0 ± 0.0", "-"]
    latency = [
        {"sampler": "Heun", "steps": 1, "spacing": "trailing", "ratio": 1.0, "seconds": 0.1},
        {"sampler": "Heun", "steps": 4, "spacing": "trailing", "ratio": 6.04, "seconds": 0.6},
    ]
    assert report.cost_table(latency)[0].splitlines()[2].split("|")[1:4] == [
        " Heun               ", " 1 / 1.0  ", " 7 / 6.0   ",
    ]  # fmt: skip
    report.plot(RECORDS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000

"""The rows of the study of training, and what it makes of their records. No training here."""

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_config

from ldmseg_d2.engine import load_config
from ldmseg_d2.meta_arch.condition import build_condition_encoder, build_supervision
from ldmseg_d2.studies import training_report as report
from ldmseg_d2.studies.training import Result, Settings, data_set, first_rows, row_opts
from ldmseg_d2.studies.training_rows import FACTORS, Row, table_rows

SCENES = "configs/scenes/ldmseg_scenes64.yaml"
CAMVID = "configs/camvid/ldmseg_camvid.yaml"


def rows_of(config_file):
    return table_rows(load_config(config_file), list(FACTORS))


@pytest.mark.parametrize("row", rows_of(SCENES), ids=lambda row: row.name)
def test_each_row_is_a_model_that_can_be_built(row):
    cfg = tiny_config("scenes/ldmseg_scenes64.yaml", *row.opts)
    model = build_model(cfg)
    assert model.noise_options.regression == (row.factor == "regression")


def test_rows_with_the_same_settings_are_one_run():
    settings = Settings(SCENES, "out")
    first = first_rows(settings)
    rows = {row.name: row for row in first}
    assert len(rows) == len(first)
    baseline = rows["baseline_the_config"]
    same = {row.name for row, one in first.items() if one == baseline}
    assert same == {
        "baseline_the_config", "ids_matched", "prediction_sample", "noise_t_drawn_as_t_3_weight_1",
        "scaling_unit_variance", "self_conditioning_off", "decoded_loss_weight_0",
        "balance_every_cell_the_same_the_paper", "self_aligned_none_the_paper",
    }  # fmt: skip
    # Both have the autoencoder that is trained here with the config's own settings.
    here = [row for row in first if row.is_reference]
    assert len(here) == 2 and first[here[1]] == here[0]
    assert "out/stage1/model_final.pth" in row_opts(settings, here[0])
    assert data_set(settings) == "scenes_val"


def test_camvid_has_the_same_factors_and_one_of_classes():
    assert {row.factor for row in rows_of(CAMVID)} == {"baseline", *FACTORS}
    assert {row.factor for row in rows_of(SCENES)} == {"baseline", *FACTORS} - {"cell_loss"}
    with pytest.raises(ValueError, match="unknown factor 'colour'"):
        table_rows(load_config(CAMVID), ["colour"])
    # Regression is always there.
    assert {row.factor for row in table_rows(load_config(CAMVID), [])} == {"baseline", "regression"}


def test_either_small_image_encoder_gets_another_coarsest_level():
    for config, titles in (
        (SCENES, {"1/2 instead of 1/4", "1/8 instead of 1/4", "2 blocks a stage instead of 1"}),
        (CAMVID, {"1/16 instead of 1/32", "2 blocks a stage instead of 1"}),
    ):
        rows = table_rows(load_config(config), ["image_encoder"])
        rows = [row for row in rows if row.factor == "image_encoder"]
        assert {row.value for row in rows} == titles
        for row in rows:
            encoder = build_condition_encoder(load_config(config, [*row.opts]))
            assert encoder(torch.zeros(1, 3, 64, 64)).shape[1] == encoder.out_channels


def test_rows_of_an_encoder_that_was_trained_before_can_be_built(tmp_path):
    """Those that change its shapes or its layer do not ask for its weights."""
    config, path = "configs/camvid/ldmseg_pretrained_camvid.yaml", str(tmp_path / "encoder.pth")
    weights = ("MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS", path, "MODEL.DEVICE", "cpu")
    alone = ("MODEL.META_ARCHITECTURE", "LDMSegImageEncoder", *weights[:1], "", *weights[2:])
    torch.save({"model": build_model(load_config(config, [*alone])).state_dict()}, path)
    rows = table_rows(load_config(config, [*weights]), ["cell_loss", "image_encoder", "recipe"])
    assert "not trained before" in {row.value for row in rows}
    kept = set()
    for row in rows:
        cfg = load_config(config, [*weights, *row.opts])
        build_condition_encoder(cfg)
        supervision = build_supervision(cfg)
        assert (supervision is None) == (row.value in ("weight 0", "the paper's"))
        if cfg.MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS:
            kept.add(row.factor)
    assert kept == {"baseline", "cell_loss", "recipe", "regression"}


def record(pq, *, regression=False, **inpainting):
    def evaluation(value, steps):
        return {"steps": {str(n): {"panoptic_class_agnostic": {"PQ": value}} for n in steps}}

    results = evaluation(pq, (1,) if regression else (1, 20))
    if inpainting:
        results["inpainting"] = inpainting
    return {
        "seconds_per_iteration": 0.5, "iterations": 600, "training_minutes": 5.0,
        "results": results, "curve": {"200": evaluation(pq / 2, (20,))},
    }  # fmt: skip


def results(**values):
    """The baseline of 40 PQ, and rows of the factor ids and the others."""
    baseline = Row("baseline", "the config")
    rows = {baseline: Result([record(40.0, given_ids=90.0, PQ=60.0)], None, None)}
    rows[Row("ids", "matched")] = Result(rows[baseline].records, None, baseline)
    for name, pq in values.items():
        factor, value = name.split("__")
        regression = factor == "regression"
        rows[Row(factor, value)] = Result([record(pq, regression=regression)], None, None)
    return rows


def test_table_and_findings():
    found = results(ids__random=30.0, noise__late=42.0, regression__positional=35.0)
    lines = {line.split("|")[2].strip(): line for line in report.table(found, (1, 20)).split("\n")}
    assert "-10.0" in lines["random"] and "+2.0" in lines["late"]
    assert "90.0" in lines["the config"] and "(= the baseline)" in "".join(lines)
    # Nobody has classes or trained an autoencoder: no column for it.
    assert "mIoU" not in lines["value"] and "stage 1" not in lines["value"]
    text = "\n".join(report.findings(found))
    assert "Ids: nothing is ahead of the baseline's value (40.0 PQ)" in text
    assert "late is ahead by no more than noise, 42.0 against 40.0 PQ" in text
    assert "with positional reaches 35.0 PQ" in text and "40.0 (+5.0)" in text
    better = "\n".join(report.findings(results(noise__late=43.5)))
    assert "late is best, 43.5 against 40.0 PQ" in better


def test_several_seeds_have_their_own_noise():
    found = results(noise__late=42.0)
    baseline, late = next(iter(found)), Row("noise", "late")
    found[baseline].records.append(record(40.4))
    found[late].records.append(record(42.6))
    # Half ranges of 0.2 and 0.3, but at least 1.
    assert report.threshold(late, baseline, found) == 1.0
    assert "late is best" in "\n".join(report.findings(found))
    found[late].records.append(record(48.0))
    assert report.threshold(late, baseline, found) == pytest.approx(0.2 + 3.0)


def test_factors_of_the_autoencoder_have_a_reference_of_their_own():
    found = results()
    stage1 = {"training_minutes": 4.0, "results": {"reconstruction": {"PQ": 80.0}}}
    here, without = Row("latent_noise", "0.3", (), ()), Row("latent_noise", "0", ("K", 0), ("K", 0))
    found[here] = Result([record(20.0)], stage1, None)
    found[without] = Result([record(10.0)], stage1, None)
    assert report.reference_of(without, found) == here
    line = next(line for line in report.table(found, (1, 20)).split("\n") if "| 0 " in line)
    assert "-10.0" in line and "80.0" in line
    assert "nothing is ahead of the baseline's value (20.0" in "\n".join(report.findings(found))


def test_curves_go_from_points_to_the_end(tmp_path):
    found = results(ids__random=30.0, regression__positional=35.0)
    random = found[Row("ids", "random")]
    minutes, values = report.curve_of(random)
    assert minutes == [pytest.approx(200 * 0.5 / 60), 5.0] and values == [15.0, 30.0]
    report.plot(found, tmp_path / "a.png", caption="test")
    assert (tmp_path / "a.png").stat().st_size > 5000

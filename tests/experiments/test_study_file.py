"""The shipped studies are models that can be built; a bad file is named with its key."""

from pathlib import Path

import pytest
import yaml
from detectron2.modeling import build_model

from ldmseg_d2.engine import load_config
from ldmseg_d2.experiments import read_study

STUDIES = Path(__file__).resolve().parents[2] / "configs" / "studies"
GOOD = {
    "BASE": "configs/scenes/ldmseg_scenes64.yaml",
    "FACTORS": {
        "ids": {
            "random": {"MODEL.LDMSEG.ID_ASSIGNMENT": "random"},
            "matched": {"MODEL.LDMSEG.ID_ASSIGNMENT": "matched"},
        }
    },
}


def write(tmp_path, **changes):
    path = tmp_path / "mine.yaml"
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*")))
def test_each_row_is_a_model_that_can_be_built(name):
    study = read_study(f"configs/studies/{name}.yaml")
    assert study.rows[0].contender == study.contenders[0].name == "base"
    assert len({row.contender for row in study.rows}) == len(study.contenders)
    no_weights = [
        *("MODEL.LDMSEG.AUTOENCODER.WEIGHTS", "", "MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS", ""),
        *("MODEL.DEVICE", "cpu"),
    ]
    for contender in study.contenders:
        cfg = load_config(contender.config_file, [*contender.opts, *no_weights])
        model = build_model(cfg)
        # What a row says reaches the model.
        assert [task.name for task in model.layout.tasks] == list(cfg.MODEL.LDMSEG.TASKS)
    if name == "tasks":
        assert cfg.MODEL.LDMSEG.TASK_MODE == "separate"
    if name == "capacity":
        assert cfg.MODEL.LDMSEG.NUM_BITS == 8 and study.contenders[0].stages[0].share == 0.5


def test_what_changes_nothing_is_the_base(tmp_path):
    file = write(tmp_path, OPTS={"SEED": 3}, STEPS=[4, 1], STAGES=[f"{GOOD['BASE']}:0.5"])
    study = read_study(file, ["SOLVER.BASE_LR", 0.5, "MODEL.LDMSEG.ID_ASSIGNMENT", "matched"])
    assert [(row.value, row.contender) for row in study.rows] == [
        ("", "base"),
        ("random", "ids random"),
        ("matched", "base"),
    ]
    base, random = study.contenders
    assert base.steps == (1, 4) and base.stages[0].key == "MODEL.WEIGHTS"
    cfg = load_config(random.config_file, random.opts)
    # A row's own key stands against the command's.
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, cfg.MODEL.LDMSEG.ID_ASSIGNMENT) == (3, 0.5, "random")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"BASE": None}, "the key BASE is missing"),
        ({"STEP": [1]}, "unknown key 'STEP'; allowed: BASE, "),
        ({"STEPS": [0]}, "STEPS must be numbers above 0"),
        ({"STEPS": 4}, "STEPS cannot be 4"),
        ({"FACTORS": {"self": {False: {"SEED": 1}}}}, "FACTORS.self: False is no text.*quotes"),
        ({"FACTORS": {"a": {"b": {"SEEED": 1}}}}, r"FACTORS.a.b: .*SEEED.*Did you mean SEED"),
        ({"OPTS": {"SEED": "x"}}, "BASE with OPTS.*SEED takes a value of type int"),
        ({"STAGES": [{"CONFIG": "a.yaml", "SHARE": 0.5}]}, "give CONFIG:SHARE"),
    ],
)
def test_bad_files_are_named_with_their_key(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"mine.yaml: .*{message}"):
        read_study(write(tmp_path, **changes))
    (tmp_path / "mine.yaml").write_text("BASE: [")
    with pytest.raises(ValueError, match="mine.yaml: while parsing"):
        read_study(str(tmp_path / "mine.yaml"))
    with pytest.raises(FileNotFoundError, match="--study no.yaml"):
        read_study("no.yaml")

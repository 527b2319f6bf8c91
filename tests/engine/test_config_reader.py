from pathlib import Path

import pytest

from ldmseg_d2.engine import ConfigError, load_config
from ldmseg_d2.engine.config_reader import changed_keys, resolve_config_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "opts, message",
    [
        (["SOLVER.MAX_ITERS", "3"], "no config key SOLVER.MAX_ITERS. Did you mean SOLVER.MAX_ITER"),
        (["solver.max_iter", "3"], "Did you mean SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER takes a value of type int, such as 40000"),
        (["SOLVER.BASE_LR", "1"], "SOLVER.BASE_LR takes a value of type float"),
        (["SOLVER.MAX_ITER"], "Options come in pairs"),
        (
            ["MODEL.LDMSEG.ID_ASSIGNMENT", "rand"],
            "MODEL.LDMSEG.ID_ASSIGNMENT cannot be 'rand': it must be one of 'random'",
        ),
        (["MODEL.LDMSEG.SAMPLER.NAME", "ddim"], "Did you mean DDIM?"),
    ],
)
def test_bad_option_names_the_key(opts, message):
    with pytest.raises(ConfigError) as info:
        load_config(opts=opts)
    assert message in str(info.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("SOLVER:\n  MAX_ITR: 3\n", "no config key SOLVER.MAX_ITR. Did you mean SOLVER.MAX_ITER"),
        ("SOLVER:\n  MAX_ITER: many\n", "SOLVER.MAX_ITER takes a value of type int"),
        ("SOLVER: {\n", "is not valid YAML"),
    ],
)
def test_bad_file_names_itself_and_the_key(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text("VERSION: 2\n" + text)
    with pytest.raises(ConfigError) as info:
        load_config(str(path))
    assert message in str(info.value) and str(path) in str(info.value)


def test_missing_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no config file 'nowhere.yaml'"):
        load_config("nowhere.yaml")
    path = tmp_path / "child.yaml"
    path.write_text("_BASE_: parent.yaml\n")
    with pytest.raises(FileNotFoundError, match="child.yaml inherits from .*parent.yaml"):
        load_config(str(path))
    # They are relative to the repository too.
    monkeypatch.chdir(tmp_path)
    name = "configs/scenes/Base-scenes.yaml"
    assert Path(resolve_config_file(name)) == ROOT / name


ENCODER = "MODEL.LDMSEG.IMAGE_ENCODER"


def encoder(name: str, **options) -> str:
    lines = ["MODEL:", "  LDMSEG:", "    IMAGE_ENCODER:", f"      NAME: {name}"] if name else []
    if options:
        lines = lines or ["MODEL:", "  LDMSEG:", "    IMAGE_ENCODER:"]
        lines += ["      OPTIONS:", *(f"        {key}: {value}" for key, value in options.items())]
    return "\n".join(lines)


@pytest.fixture
def chain(tmp_path):
    """Writes configs that inherit from one another; returns the path of the last."""

    def write(*contents: str) -> str:
        for i, content in enumerate(contents):
            base = f"_BASE_: level{i - 1}.yaml\n" if i else "VERSION: 2\n"
            (tmp_path / f"level{i}.yaml").write_text(base + content)
        return str(tmp_path / f"level{i}.yaml")

    return write


def encoder_of(path: str, *opts: str) -> tuple[str, dict]:
    node = load_config(path, opts).MODEL.LDMSEG.IMAGE_ENCODER
    return node.NAME, dict(node.OPTIONS)


@pytest.mark.parametrize(
    "levels, expected",
    [
        # The same class: its options add up.
        (["A", "A", ""], ("A", {"X": 1, "Y": 2, "Z": 3})),
        # Another class starts without those that were there, wherever in the chain it comes.
        (["A", "B", ""], ("B", {"Y": 2, "Z": 3})),
        (["A", "A", "B"], ("B", {"Z": 3})),
        (["A", "B", "A"], ("A", {"Z": 3})),
    ],
)
def test_options_belong_to_the_named_class(chain, levels, expected):
    options = [{"X": 1}, {"Y": 2}, {"Z": 3}]
    path = chain(*(encoder(name, **one) for name, one in zip(levels, options)))
    assert encoder_of(path) == expected


def test_options_on_the_command_line_belong_to_the_class_named_there(chain):
    path = chain(encoder("A", X=1))
    name, new = [f"{ENCODER}.NAME", "B"], [f"{ENCODER}.OPTIONS.Y", "2"]
    assert encoder_of(path, *name) == ("B", {})
    for opts in (new + name, name + new):
        assert encoder_of(path, *opts) == ("B", {"Y": 2})
    assert encoder_of(path, *new) == ("A", {"X": 1, "Y": 2})


def test_files_run_no_code(chain, tmp_path):
    path = chain(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    assert not (tmp_path / "made").exists()


def test_several_bases_and_what_a_config_changes(chain, tmp_path):
    chain("SOLVER:\n  MAX_ITER: 3\n", "SEED: 5\n")
    child = tmp_path / "child.yaml"
    child.write_text("_BASE_: [level0.yaml, level1.yaml]\nVERSION: 2\n")
    cfg = load_config(str(child), ["MODEL.DEVICE", "cuda"])
    changed = changed_keys(cfg)
    changed.pop("MODEL.DEVICE", None)  # cpu where there is no CUDA
    assert changed == {"SOLVER.MAX_ITER": 3, "SEED": 5}

"""The annotators' page: its command line. What it serves is tested in tests/app."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="no Gradio: bash tools/install.sh --extras=app")
TOOL = Path(__file__).parents[2] / "tools" / "app.py"
spec = importlib.util.spec_from_file_location("ldmseg_app_tool", TOOL)
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)


@pytest.mark.parametrize("arguments", [["--max-side", "10"], ["--max-upload-mb", "0"], ["--share"]])
def test_bad_arguments_are_told_at_once(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        app.main(arguments)
    assert caught.value.code == 2 and arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config-file", "no_such.yaml"], "no_such.yaml"),
        (["--opts", "MODEL.WEIGHTS", "no_such.pth"], "no_such.pth"),
        (["--opts", "MODEL.LDMSEG.NUM_BIT", "3"], "NUM_BITS"),
    ],
)
def test_what_cannot_be_loaded_ends_with_one_message(arguments, message, monkeypatch):
    messages = []
    monkeypatch.setattr(app.logger, "error", lambda form, *values: messages.append(form % values))
    assert app.main(arguments) == 1
    assert len(messages) == 1 and message in messages[0]

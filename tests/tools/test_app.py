"""The annotators' page: its command line. What it serves is tested in tests/app."""

import pytest
from load_tool import load_tool

pytest.importorskip("gradio", reason="no Gradio: bash tools/install.sh --extras=app")
app = load_tool("app")


@pytest.mark.parametrize("arguments", [["--max-side", "10"], ["--max-upload-mb", "0"], ["--share"]])
def test_bad_arguments_are_told_at_once(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        app.main(arguments)
    assert caught.value.code == 2 and arguments[0] in capsys.readouterr().err


def test_what_cannot_be_loaded_ends_with_one_message(monkeypatch):
    messages = []
    monkeypatch.setattr(app.logger, "error", lambda form, *values: messages.append(form % values))
    assert app.main(["--config-file", "no_such.yaml"]) == 1
    assert len(messages) == 1 and "no_such.yaml" in messages[0]

from __future__ import annotations

import json
from typing import Any

import pytest

from luthier.cli import generate
from luthier.core.errors import DataError, ModelError, RunError, SettingsError


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(5)))
    return path


@pytest.fixture
def run(tmp_path, prompts):
    """Run the command with short answers."""

    def call(model, **changes):
        values: dict[str, Any] = {
            "prompts": str(prompts),
            "out": str(tmp_path / "answers.jsonl"),
            "max_new_tokens": 4,
            "temperature": 0.0,
            "batch_size": 2,
            "seed": 1,
        }
        generate.run(str(model), **{**values, **changes})
        return tmp_path / "answers.jsonl"

    return call


@pytest.mark.parametrize("terminal", [False, True])
def test_answers_are_written_and_counted(run, tiny_llama, capture, terminal):
    shown = capture(generate, terminal=terminal)
    out = run(tiny_llama())
    assert [json.loads(line)["prompt"] for line in out.read_text().splitlines()] == [
        f"Question {n}?" for n in range(5)
    ]
    text = shown.getvalue()
    assert "5 answers, " in text
    assert "finish_reason: length" in text
    assert str(out) in text.replace("\n", "")
    assert ("5 of 5 answered" in text) is not terminal
    assert not list(out.parent.glob("*.partial"))


def test_the_same_command_writes_the_same_file(run, tiny_llama, capture):
    capture(generate)
    model = tiny_llama()
    first = run(model, temperature=1.0).read_bytes()
    (model.parent / "answers.jsonl").unlink()
    assert run(model, temperature=1.0).read_bytes() == first


def test_wrong_settings_end_it_before_anything_is_read(run):
    with pytest.raises(SettingsError, match="temperature is -1"):
        run("/no/such/model", prompts="/no/such/file", temperature=-1.0)


def test_wrong_prompts_end_it_before_a_model_is_loaded(run, prompts):
    prompts.write_text('{"prompt": "fine"}\n{"text": "x"}\n')
    with pytest.raises(DataError) as caught:
        run("/no/such/model")
    assert caught.value.where == f"{prompts}:2"


def test_a_wrong_model_leaves_no_file_behind(run, tmp_path, capture):
    capture(generate)
    with pytest.raises(ModelError, match="no such model folder"):
        run(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_answers_that_are_there_are_not_written_over(run, tmp_path):
    (tmp_path / "answers.jsonl").write_text("mine")
    with pytest.raises(RunError, match="is there already"):
        run("/no/such/model")


def test_ctrl_c_keeps_the_answers_so_far_and_says_where(run, tiny_llama, capture, monkeypatch):
    capture(generate)
    said = capture(generate, "error_console")
    add = generate._Counter.add

    def interrupt(self, answer):
        add(self, answer)
        if self.num_answers == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(generate._Counter, "add", interrupt)
    model = tiny_llama()
    with pytest.raises(KeyboardInterrupt):
        run(model)
    partial = model.parent / "answers.jsonl.partial"
    assert len(partial.read_text().splitlines()) == 3
    text = said.getvalue().replace("\n", "")
    assert "The 3 answers so far are in" in text
    assert partial.name in text

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from luthier.cli import eval as command
from luthier.cli.main import main
from luthier.cli.terminal import Stopped
from luthier.evaluation.intervals import Difference, Estimate
from luthier.recipes import evaluate as recipe
from luthier.recipes.evaluation_plan import EvaluationRequest
from luthier.recipes.evaluation_result import Changed, Evaluation, MetricResult


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"Say {n}.", "answer": f"It is {n}."} for n in range(4)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def request(model, data, **changes):
    values: dict[str, Any] = {
        "data": data,
        "metrics": ["perplexity", "exact_match"],
        "max_new_tokens": 3,
    }
    return EvaluationRequest(str(model), **{**values, **changes})


@pytest.mark.parametrize("terminal", [False, True])
def test_a_model_alone_is_shown_with_intervals(tiny_llama, data, capture, tmp_path, terminal):
    shown = capture(command, terminal=terminal)
    command.run(request(tiny_llama(), data, out=str(tmp_path / "out")))
    text = shown.getvalue()
    assert "95 % interval" in text
    assert "0 to 0.4899" in text  # Wilson's of 0 of 4
    assert "base" not in text.split("metric")[1].partition("\n")[0]
    assert "4 of 4 answers were cut" in text
    assert ("answering: 4 of 4" in text) is not terminal
    assert "rows.json" in text.partition("written to ")[2].replace("\n", "")


def test_two_models_are_shown_in_one_table(tiny_llama, data, capture):
    shown = capture(command)
    base = tiny_llama("other", hidden_size=16)
    command.run(request(tiny_llama(), data, base=str(base)))
    header = next(line for line in shown.getvalue().splitlines() if line.startswith("metric"))
    assert header.split()[:4] == ["metric", "base", "tuned", "difference"]
    assert "better / worse / same" in header
    assert "0 / 0 / 4" in shown.getvalue()
    assert "Nothing was written: --out FOLDER" in shown.getvalue()


def test_ctrl_c_says_that_the_answers_are_kept(tiny_llama, data, capture, monkeypatch):
    capture(command)
    said = capture(command, "error_console")

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "generate_answers", interrupt)
    with pytest.raises(Stopped):
        command.run(request(tiny_llama(), data))
    assert "the same command goes on from them" in said.getvalue()


def test_changed_and_left_out_rows_are_named(capture):
    shown = capture(command)
    changed = Changed(
        "chrf", "rows.jsonl:3", "Say\n[bold]3[/].", "Three.", 1.5, 90.0, "No.", "Three " * 99
    )
    found = MetricResult(Estimate(2e9, None, None, 1), "", Estimate(1.0, 0.5, 1.5, 1))
    left_out = [(f"rows.jsonl:{n}", "it is long [x]") for n in range(5)]
    difference = Difference(Estimate(-0.25, -0.5, 0.0, 7), 1, 2, 4)
    shares = MetricResult(Estimate(0.5, 0.2, 0.8, 7), "", Estimate(0.75, 0.4, 0.9, 7), difference)
    command.show(
        Evaluation(
            "n",
            "m",
            "b",
            {"rows": 12},
            {"mine": found, "exact_match": shares},
            changed=[changed],
            left_out=left_out,
        )
    )
    text = shown.getvalue()
    assert "rows.jsonl:3  chrf 1.5 -> 90" in text
    assert "Say [bold]3[/]." in text
    assert "..." in text
    assert "2.000e+09" in text
    row = next(line for line in text.splitlines() if line.startswith("exact_match"))
    assert " ".join(row.split()) == "exact_match 0.75 0.5 -0.25 -0.5 to +0 1 / 2 / 4 7"
    assert "left out 5 of 12 rows" in text
    assert "rows.jsonl:2: it is long [x]" in text
    assert "rows.jsonl:3: it" not in text
    assert "and 2 more" in text


def test_an_estimate_without_interval_says_so(capture):
    shown = capture(command)
    result = MetricResult(Estimate(3.0, None, None, 1))
    command.show(Evaluation("n", "m", None, {"rows": 1}, {"mine": result}))
    assert "none" in shown.getvalue()


@pytest.mark.parametrize(
    ("words", "base"),
    [
        (["--base"], ""),
        (["--base", "--num_rows", "3"], ""),
        (["--base", "other", "--num_rows", "3"], "other"),
        (["--base=other"], "other"),
        ([], None),
    ],
)
def test_a_base_may_be_named_or_not(monkeypatch, words, base):
    asked = []
    monkeypatch.setattr(command, "run", asked.append)
    line = ["luthier", "eval", "m", "--metrics", "bleu, rouge", "--metric", "a.py:b", *words]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    (found,) = asked
    assert found.base == base
    assert found.model == "m"
    assert found.metrics == ["bleu", "rouge"]
    assert found.own_metrics == ["a.py:b"]
    assert found.tasks == []

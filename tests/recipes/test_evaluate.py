from __future__ import annotations

import json
from typing import Any

import pytest

from luthier.core.errors import (
    DataError,
    LuthierError,
    MissingExtraError,
    ModelError,
    SettingsError,
)
from luthier.evaluation.intervals import Estimate
from luthier.recipes import evaluate as module
from luthier.recipes.evaluate import evaluate
from luthier.recipes.evaluation_plan import EvaluationRequest

ROWS = [
    {"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"}
    for n in range(5)
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(write_file):
    return str(write_file("sums.jsonl", "".join(f"{json.dumps(row)}\n" for row in ROWS)))


@pytest.fixture
def ask(recorder, tmp_path):
    """Evaluate with short answers; results go to a folder of their own."""

    def call(model, **changes):
        values: dict[str, Any] = {
            "max_new_tokens": 4,
            "batch_size": 2,
            "out": str(tmp_path / "results"),
        }
        return evaluate(EvaluationRequest(str(model), **{**values, **changes}), recorder)

    return call


@pytest.fixture
def count_generated(monkeypatch):
    """Count the prompts that are put to a model."""
    asked = []
    real = module.generate_answers

    def counting(model, tokenizer, prompts, *rest):
        asked.append(len(prompts))
        return real(model, tokenizer, prompts, *rest)

    monkeypatch.setattr(module, "generate_answers", counting)
    return asked


def test_a_run_is_measured_on_its_own_validation_rows(small_run, ask):
    trained = small_run.train()
    found = ask(trained.folder, out=None)
    logged = [one for one in trained.metrics() if one["kind"] == "eval"][-1]
    perplexity = found.metrics["perplexity"].estimate
    assert perplexity.value == pytest.approx(logged["eval_perplexity"], rel=1e-3)
    assert perplexity.num_rows == 3
    written = json.loads((trained.folder / "evaluations" / "validation.json").read_text())
    assert written["metrics"]["perplexity"]["value"] == perplexity.value
    assert written["data"]["path"].endswith("val.jsonl")
    assert (written["base"], written["versus"], written["answers"]) == (False, None, None)


def test_a_checkpoint_has_results_of_its_own(small_run, ask):
    folder = small_run.train(save_strategy="steps", save_steps=2).folder
    checkpoint = sorted((folder / "checkpoints").iterdir())[0]
    found = ask(checkpoint, out=None, num_rows=2)
    assert found.files == [folder / "evaluations" / f"validation-2-{checkpoint.name}.json"]


def test_a_run_is_held_against_what_stands_under_its_adapter(small_run, ask, data):
    folder = small_run.train(learning_rate=0.2).folder
    found = ask(folder, data=data, metrics=["perplexity", "chrf"], base="")
    of_base = ask(small_run.model, data=data, metrics=["perplexity", "chrf"])
    for name in ("perplexity", "byte_perplexity", "chrf"):
        result = found.metrics[name]
        alone = of_base.metrics[name].estimate
        assert result.base.value == pytest.approx(alone.value, rel=1e-4)
        assert result.difference.estimate.value == result.estimate.value - result.base.value
        wins_losses_ties = (
            result.difference.wins,
            result.difference.losses,
            result.difference.ties,
        )
        assert sum(wins_losses_ties) == len(ROWS)
    assert found.metrics["perplexity"].difference.estimate.value != 0
    assert found.base == str(small_run.model)
    assert [note.split(" were")[0] for note in found.notes[:2]] == [
        *("5 of 5 answers (base)", "5 of 5 answers (tuned)"),
    ]
    assert {row.metric for row in found.changed} <= {"chrf", "perplexity"}
    assert found.changed


def test_a_run_of_all_weights_is_held_against_the_model_it_began_with(small_run, ask, data):
    folder = small_run.train(finetuning_type="full").folder
    found = ask(folder, data=data, base="")
    alone = ask(small_run.model, data=data).metrics["perplexity"].estimate
    assert found.metrics["perplexity"].base.value == pytest.approx(alone.value, rel=1e-4)


def test_another_metric_does_not_generate_again(tiny_llama, ask, data, count_generated):
    model = tiny_llama()
    first = ask(model, data=data, metrics=["chrf"])
    second = ask(model, data=data, metrics=["chrf", "exact_match"])
    assert count_generated == [5, 0]
    assert first.metrics["chrf"] == second.metrics["chrf"]
    ask(model, data=data, metrics=["chrf"], max_new_tokens=5)
    assert count_generated == [5, 0, 5]


def test_an_evaluation_that_was_broken_off_goes_on(
    tiny_llama, ask, data, count_generated, monkeypatch, recorder
):
    model = tiny_llama()
    working = recorder.working

    def interrupt(what, done, total):
        if done == 2:
            raise KeyboardInterrupt
        working(what, done, total)

    monkeypatch.setattr(recorder, "working", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask(model, data=data, metrics=["chrf"])
    monkeypatch.setattr(recorder, "working", working)
    found = ask(model, data=data, metrics=["chrf"])
    assert count_generated == [5, 3]
    assert "2 answers are known from before" in recorder.said
    assert found.metrics["chrf"].estimate.num_rows == 5


def test_generate_takes_what_suits_the_data(tiny_llama, ask, data):
    found = ask(tiny_llama(), data=data, generate=True)
    assert list(found.metrics) == ["perplexity", "byte_perplexity", "math_answer"]
    share = found.metrics["math_answer"].estimate
    assert share.low <= share.value <= share.high
    assert share.high > share.low
    assert "5 of 5 answers were cut" in found.notes[0]


def test_generate_adds_to_a_perplexity_that_was_named(tiny_llama, ask, data):
    found = ask(tiny_llama(), data=data, metrics=["perplexity"], generate=True)
    assert "math_answer" in found.metrics


def test_numbers_at_the_end_of_references_are_pointed_out(tiny_llama, ask, data):
    (note,) = ask(tiny_llama(), data=data).notes
    assert "--metrics math_answer" in note


def test_answers_are_written_with_their_metrics(tiny_llama, ask, data, write_file, tmp_path):
    mine = write_file(
        "mine.py",
        "def long(answers, references, rows):\n"
        "    return [len(row['answer']) for row in rows]\n"
        "def total(answers, references, rows):\n    return float(len(answers))\n",
    )
    own = [f"{mine}:long", f"{mine}:total"]
    base = tiny_llama("other", hidden_size=16)
    found = ask(tiny_llama(), data=data, own_metrics=own, predict=True, base=str(base), name="mine")
    assert found.metrics["total"].estimate == Estimate(5.0, None, None, 5)
    assert found.metrics["total"].difference.estimate.value == 0
    assert found.metrics["total"].difference.wins is None
    lines = (tmp_path / "results" / "mine.answers.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == [row["question"] for row in ROWS]
    assert rows[1]["reference"] == ROWS[1]["answer"]
    assert rows[1]["metrics"]["long"] == len(ROWS[1]["answer"])
    assert {"perplexity", "long"} <= rows[1]["base_metrics"].keys()
    assert rows[0].keys() >= {"origin", "answer", "finish_reason", "num_tokens", "base_answer"}


def test_texts_have_a_perplexity_without_a_chat_template(tiny_llama, load_tiny, ask, write_file):
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = None
    model = tiny_llama("base", tokenizer=tokenizer, max_position_embeddings=16)
    text = "The quick brown fox jumps over the lazy dog. " * 4
    rows = write_file("texts.jsonl", json.dumps({"text": text}) + '\n{"text": "Short."}\n')
    found = ask(model, data=str(rows))
    assert list(found.metrics) == ["perplexity", "byte_perplexity"]
    assert found.metrics["perplexity"].estimate.num_rows == 2
    with pytest.raises(DataError, match="a text without question and answer") as caught:
        ask(model, data=str(rows), metrics=["chrf"])
    assert str(caught.value.where).endswith("texts.jsonl:1")


def test_conversations_need_a_chat_template(tiny_llama, load_tiny, ask, data):
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = None
    model = tiny_llama("base", tokenizer=tokenizer)
    for metrics in (["perplexity"], ["chrf"]):
        with pytest.raises(ModelError, match="the model has no chat template"):
            ask(model, data=data, metrics=metrics)


def test_rows_beyond_the_context_are_left_out_and_named(tiny_llama, ask, write_file):
    rows = [*ROWS[:2], {"question": "long " * 100, "answer": "Yes."}]
    path = write_file("some.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    model = tiny_llama(max_position_embeddings=96)
    found = ask(model, data=str(path), metrics=["perplexity", "chrf"])
    assert found.metrics["perplexity"].estimate.num_rows == 2
    assert found.metrics["chrf"].estimate.num_rows == 2
    ((origin, why),) = found.left_out
    assert origin.endswith("some.jsonl:3")
    assert "the model's context is 96" in why


def test_where_nothing_fits_the_reason_is_given(tiny_llama, ask, data):
    model = tiny_llama(max_position_embeddings=8)
    with pytest.raises(DataError, match="none of the 5 rows could be measured; the first: it has"):
        ask(model, data=data)


def test_benchmark_tasks_stand_beside_the_metrics(tiny_llama, ask, data, monkeypatch):
    monkeypatch.setattr(module, "check_tasks", lambda _names: None)
    values = iter([0.25, 0.5])
    monkeypatch.setattr(
        module,
        "run_tasks",
        lambda *_: {"arc/acc": Estimate(next(values), 0.1, 0.9, 10)},
    )
    base = tiny_llama("other", hidden_size=16)
    found = ask(tiny_llama(), tasks=["arc"], base=str(base))
    assert list(found.metrics) == ["arc/acc"]
    assert found.metrics["arc/acc"].base.value == 0.25
    assert found.metrics["arc/acc"].difference.estimate.value == 0.25
    assert (found.name, found.data) == ("tasks", {})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metrics": ["perplexty"]}, SettingsError, "no metric 'perplexty'(.|\n)*perplexity"),
        ({"max_new_tokens": 0}, SettingsError, "max_new_tokens is 0"),
        ({"metrics": []}, SettingsError, "nothing to measure(.|\n)*perplexity, bleu"),
        ({"own_metrics": ["x"]}, SettingsError, "x names no function"),
        ({"base": ""}, SettingsError, "which model this one was made from"),
        ({"data": None}, SettingsError, "no rows to evaluate on"),
        ({"predict": True, "out": None}, SettingsError, "no place for the answers"),
        ({"out": "/dev/null/x"}, LuthierError, "the evaluation can't be written"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(
    tiny_llama, ask, data, monkeypatch, changes, error, message
):
    monkeypatch.setattr(module, "load_evaluated", None)
    with pytest.raises(error, match=message):
        ask(tiny_llama(), **{"data": data, **changes})


def test_a_missing_package_is_told_before_a_model_is_loaded(tiny_llama, ask, data, monkeypatch):
    monkeypatch.setattr(module, "load_evaluated", None)
    monkeypatch.setitem(module.METRICS, "chrf", _missing)
    with pytest.raises(MissingExtraError):
        ask(tiny_llama(), data=data, metrics=["chrf"])


def _missing(_answers, _references):
    raise MissingExtraError.of("sacrebleu", "eval", "the metric chrf")


def test_an_error_of_an_own_metric_leaves_the_answers(
    tiny_llama, ask, data, write_file, count_generated
):
    mine = write_file("mine.py", "def bad(answers, references, rows):\n    return answers[9]\n")
    model = tiny_llama()
    with pytest.raises(LuthierError, match="the metric bad failed: IndexError") as caught:
        ask(model, data=data, metrics=[], own_metrics=[f"{mine}:bad"])
    assert str(caught.value.where).endswith("mine.py:2")
    ask(model, data=data, metrics=["chrf"])
    assert count_generated == [5, 0]


def test_a_reward_model_is_refused(tmp_path, tiny_llama, ask, data):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = tiny_llama()
    config = AutoConfig.from_pretrained(folder, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="this is a reward model"):
        ask(folder, data=data)

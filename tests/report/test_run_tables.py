"""The tables of a run's page, of a whole run and of what an older version left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luthier.report import run_tables
from luthier.report.reported_run import ReportedRun
from luthier.report.run_tables import Table, metric_text


def cells(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.en.replace("\u00a0", " ") for cell in row] for row in table.rows]


def heads(table: Table | None) -> list[str]:
    assert table is not None
    return [name.en for name in table.columns]


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        ("eval_loss", 1.5, "1.5"),
        ("eval_loss", 1.23456, "1.2346"),
        ("eval_loss", 0.0, "0"),
        ("learning_rate", 3.21e-5, "3.21e-05"),
        ("tokens_per_second", 12345.6, "12,346"),
        ("eval_token_accuracy", 0.5, "50.0 %"),
        ("memory_bytes", 1024.0**3, "1.0 GiB"),
        ("seconds", 61.0, "1 min 01 s"),
        ("eval_loss", None, "–"),
    ],
)
def test_a_metric_as_people_read_it(name: str, number: float | None, text: str) -> None:
    assert metric_text(name, number) == text


def test_the_first_the_best_and_the_last_validation(reported: ReportedRun) -> None:
    found = run_tables.validations(reported)
    assert heads(found) == ["metric", "first, step 0", "best step, step 10", "last, step 20"]
    assert cells(found)[0] == ["validation loss", "3", "2", "2.5"]
    assert len(cells(found)) == 2
    one = run_tables.validations(replace(reported, evals=reported.evals[:1]))
    assert heads(one) == ["metric", "first, step 0"]
    assert run_tables.validations(replace(reported, evals=())) is None


def test_the_data_by_side(reported: ReportedRun) -> None:
    found = run_tables.data_counts(reported.manifest)
    assert heads(found) == ["", "training", "validation"]
    assert cells(found) == [
        ["rows", "100", "10"],
        ["tokens", "5,000", "500"],
        ["tokens that carry loss", "3,000", "300"],
        ["longest row", "90", "60"],
    ]
    assert run_tables.data_counts({}) is None


def test_rows_that_are_left_out_the_most_frequent_reason_first(reported: ReportedRun) -> None:
    assert cells(run_tables.left_out(reported.manifest)) == [
        ["too long", "9", "7.2 %"],
        ["exact duplicate", "5", "4.0 %"],
        ["own reason", "1", "0.8 %"],
        ["rows read", "125", "–"],
    ]
    counts = {"data": {"counts": {"rows_read": 10, "truncated_rows": 2}}}
    assert cells(run_tables.left_out(counts))[0] == ["rows cut to cutoff_len", "2", "20.0 %"]
    assert run_tables.left_out({}) is None


def test_classes_of_length(reported: ReportedRun) -> None:
    names, counts = run_tables.length_bars(reported.manifest) or ([], [])
    assert names == ["1–64", "65–128", "> 128"]
    assert counts == [80, 15, 5]
    assert run_tables.length_bars({}) is None


def test_samples_stand_side_by_side(reported: ReportedRun) -> None:
    found = run_tables.samples(reported.samples)
    assert [prompt.text for prompt in found.prompts] == ["Name a colour."]
    first, second, _ = found.prompts[0].answers
    assert first is not None
    assert second is not None
    assert (first.step.en, first.text, first.is_cut_off) == ("step 0", "Answer of step 0", True)
    assert not second.is_cut_off


def test_of_many_steps_the_first_the_last_and_some_between_are_shown() -> None:
    records: list[dict[str, Any]] = [
        {"step": step, "prompt": prompt, "answer": "x"} for step in range(50) for prompt in "ab"
    ]
    found = run_tables.samples([*records[:-1], {"step": 49, "prompt": "c", "answer": "y"}])
    assert (found.num_steps, found.num_shown) == (50, 8)
    answers = found.prompts[0].answers
    assert [answers[0] and answers[0].step.en, answers[-1] and answers[-1].step.en] == [
        "step 0",
        "step 49",
    ]
    # This prompt was not answered there.
    assert found.prompts[1].answers[-1] is None
    assert run_tables.samples([]).prompts == []


def test_evaluations_with_their_base(reported: ReportedRun) -> None:
    found, torn = run_tables.results(reported.results)
    assert heads(found.table)[4:] == ["base", "difference", "wins / ties / losses"]
    assert cells(found.table) == [
        ["exact_match", "0.4", "0.35 … 0.45", "40", "0.1", "0.3 (0.25 … 0.35)", "14 / 24 / 2"]
    ]
    assert (found.title, found.base) == ("gsm8k", "models/tiny")
    assert torn.table is None


def test_an_evaluation_without_a_base_or_an_interval() -> None:
    plain = {"metrics": {"bleu": {"value": 23.456, "low": None, "high": None, "n": None}}}
    (found,) = run_tables.results({"bleu.json": plain})
    assert cells(found.table) == [["bleu", "23.456", "–", "–"]]
    assert found.title == "bleu.json"
    half = plain | {"versus": {"model": "b", "metrics": {"bleu": {"base": None}}}}
    (found,) = run_tables.results({"bleu.json": half})
    assert cells(found.table)[0][4:] == ["–", "–", "–"]


def test_what_made_it(reported: ReportedRun) -> None:
    facts = dict(cells(run_tables.origin_facts(reported.manifest)))
    assert facts["started"] == "2026-11-24 10:00 UTC"
    assert facts["luthier"] == "0.1.0 0123456789abcdef"
    assert facts["device"] == "Quick, 2 cores"
    assert facts["rows.json sha256"] == "ab" * 8
    assert facts["model.safetensors sha256"] == "cd" * 8
    assert facts["trained weights"] == "ef" * 8
    assert "ended" not in facts
    assert dict(cells(run_tables.origin_facts({"seed": 0}))) == {"starts": "1", "seed": "0"}

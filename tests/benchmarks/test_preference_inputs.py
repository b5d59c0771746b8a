"""Pairs are drawn whole, as text that gives the same ids again, and scored answer by answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from preference_inputs import answer_log_probs, as_pair, prepared_pairs, write_lines, write_pairs
from transformers import AutoModelForCausalLM

from luthier.dataset.tokenizer import load_tokenizer

LONG = " and on" * 60


def row(number: int, answer: str = "Red, green and blue.") -> dict[str, str]:
    return {
        "instruction": f"Name {number} colours.",
        "chosen": answer,
        "rejected": "The dog does not mind at all.",
    }


@pytest.fixture
def case(tiny_llama: Any, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_llama()),
        "folder": str(tmp_path),
        "data": str(tmp_path / "data.json"),
        "cutoff_len": 96,
        "seed": 3,
        "rows": 4,
        "heldout": 2,
    }


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_splits_are_apart_and_the_rows_are_the_files(case: dict[str, Any], tmp_path: Path) -> None:
    rows = [row(number) for number in range(7)]
    rows[2] = row(2, LONG)
    Path(case["data"]).write_text(json.dumps(rows))
    write_pairs(case)
    train, heldout = (read(tmp_path / f"{name}-pairs.jsonl") for name in ("train", "heldout"))
    numbers = [[pair["row"] for pair in pairs] for pairs in (train, heldout)]
    assert [len(found) for found in numbers] == [4, 2]
    assert sorted(numbers[0] + numbers[1]) == [0, 1, 3, 4, 5, 6], "2 is too long"
    assert read(tmp_path / "train.jsonl") == [rows[number] for number in numbers[0]]
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts == {"in_file": 7, "usable": 6}


def test_too_few_pairs_are_said(case: dict[str, Any]) -> None:
    Path(case["data"]).write_text(json.dumps([row(1), row(2)]))
    with pytest.raises(SystemExit, match=r"has 2 pairs of at most 96 tokens; 4 \+ 2 are asked for"):
        write_pairs(case)


def test_text_and_ids_say_the_same(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_lines(file, [row(1)])
    (pair,) = prepared_pairs(file, case)
    tokenizer = load_tokenizer(case["model"])
    assert pair["chosen"] == "Red, green and blue.<|im_end|>"
    assert pair["prompt"].endswith("<|im_start|>assistant\n")
    for name in ("chosen", "rejected"):
        ids = tokenizer(pair["prompt"] + pair[name])["input_ids"]
        assert ids == pair["prompt_ids"] + pair[f"{name}_ids"]
    parts = sum(len(pair[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected"))
    line_ends = 2 * len(tokenizer("\n")["input_ids"])
    assert pair["read"] == parts + line_ends


def test_pair_that_loses_loss_amid_an_answer_is_not_used(case: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(case["model"])
    ids = tokenizer("Name 3 colours.<|im_end|>")["input_ids"]
    prompt, answer = ids[:2], ids[2:]
    whole: dict[str, Any] = {
        "input_ids": prompt + answer + answer,
        "labels": [-100] * 2 + answer + answer,
        "prompt_length": 2,
        "chosen_length": len(answer),
        "origin": "file:1",
    }
    pair = as_pair(whole, tokenizer)
    assert pair is not None
    assert pair["row"] == 0
    holed = {**whole, "labels": [-100, -100, -100, *whole["labels"][3:]]}
    assert as_pair(holed, tokenizer) is None
    open_end = {**whole, "labels": [*whole["labels"][:-1], -100]}
    assert as_pair(open_end, tokenizer) is None, "TRL would add the end"


def test_scores_are_the_answers_alone(case: dict[str, Any]) -> None:
    pair = {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10]}
    ((chosen, rejected),) = answer_log_probs(case["model"], [pair], "cpu")
    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32).eval()
    for answer, found in (([8, 9], chosen), ([10], rejected)):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[5, 6, 7, *answer]])).logits[0]
        steps = enumerate(answer, start=2)
        expected = sum(float(logits[at].log_softmax(-1)[token]) for at, token in steps)
        assert found == pytest.approx(expected, rel=1e-5)

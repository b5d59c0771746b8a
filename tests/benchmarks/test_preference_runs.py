"""Both sides get the same pairs in the same steps, and lost or other tokens are noticed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from preference_runs import (
    BETA,
    CONTESTANTS,
    add_logged,
    batch_order,
    check_tokens,
    dpo_settings,
    rewards,
    separate_tokens,
)
from throughput_runs import BenchmarkError, Inputs, Run, peer_case

from luthier.batches.settings import BatchSettings
from luthier.batches.stream import BatchStream
from luthier.recipes.config_resolve import resolve_file


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs("model", tmp_path, "cpu", 4, 512, 1, 16, 60.0)


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"read": 10 + number} for number in range(count)]


def test_order_is_that_of_luthiers_own_loop() -> None:
    rows = pairs(11)
    stream = BatchStream(
        rows,
        [row["read"] for row in rows],
        lambda batch: {"read": [row["read"] for row in batch]},  # pyright: ignore[reportArgumentType]
        BatchSettings(per_device_train_batch_size=4, packing="padding_free"),
        seed=5,
    )
    windows = stream.windows()
    taken = [[read - 10 for read in next(windows)[0]["read"]] for _ in range(3)]
    assert batch_order(rows, 4, seed=5) == taken
    assert sorted(number for batch in taken for number in batch) == list(range(11))


def test_prompt_counts_twice() -> None:
    pair = {"prompt_ids": [1] * 5, "chosen_ids": [2] * 3, "rejected_ids": [3] * 4}
    assert separate_tokens(pair) == (5 + 3) + (5 + 4)


def test_other_tokens_are_refused() -> None:
    steps: list[dict[str, float]] = [{"tokens": 7}, {"tokens": 9}]
    check_tokens(steps, [7, 9])
    with pytest.raises(BenchmarkError, match=r"read \[7, 9\] tokens; their pairs have \[9, 7\]"):
        check_tokens(steps, [9, 7])


def test_evaluations_are_no_steps() -> None:
    steps: list[dict[str, float]] = [{"tokens": 7}]
    rewards_of = {"rewards/accuracies": 0.5, "rewards/margins": 0.01}
    add_logged(steps, [{"kind": "eval"}, {"kind": "train", "loss": 0.69, **rewards_of}])
    assert steps == [{"tokens": 7, "loss": 0.69, "accuracy": 0.5, "margin": 0.01}]


def test_reference_itself_is_at_chance() -> None:
    found = rewards([[-3.0, -4.0]], [[-3.0, -4.0]])
    assert found == {"accuracy": 0.5, "margin": 0.0, "loss": pytest.approx(math.log(2))}


def test_rewards_are_measured_from_the_reference() -> None:
    found = rewards([[-3.0, -9.0], [-800.0, -2.0]], [[-4.0, -5.0], [-1.0, -2.0]])
    margins = [BETA * (1 + 4), BETA * -799]
    assert found["accuracy"] == 0.5
    assert found["margin"] == pytest.approx(sum(margins) / 2)
    expected = (math.log1p(math.exp(-margins[0])) + math.log1p(math.exp(-margins[1]))) / 2
    assert found["loss"] == pytest.approx(expected)


def test_both_are_given_the_same(inputs: Inputs) -> None:
    by_name = {contestant.name: contestant for contestant in CONTESTANTS}
    ours = dpo_settings(Run(1, by_name["luthier"], "lora", "bf16", 5), inputs, 3e-4)
    theirs = peer_case(Run(1, by_name["trl-defaults"], "lora", "bf16", 5), inputs, inputs.folder)
    assert (ours["seed"], ours["lora_rank"]) == (theirs["seed"], theirs["lora_rank"])
    assert ours["per_device_train_batch_size"] == theirs["batch_rows"] == 4
    assert ours["pref_beta"] == theirs["trl"]["beta"]
    assert ours["learning_rate"] == 3e-4
    folders = {
        dpo_settings(Run(number, by_name["luthier"], "lora", "bf16", 5), inputs, 3e-4)[
            "prepared_dir"
        ]
        for number in (1, 2)
    }
    assert len(folders) == 2, "the second round computes the reference anew"


def test_luthier_knows_its_settings(inputs: Inputs, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    contestant = next(c for c in CONTESTANTS if c.system == "luthier")
    settings = dpo_settings(Run(1, contestant, "lora", "bf16", 5), inputs, 3e-4)
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in settings.items())
    path.write_text("".join(lines), encoding="utf-8")
    config = resolve_file(path).config
    assert config.run.stage == "dpo"
    assert (config.preference.pref_loss, config.preference.pref_beta) == ("sigmoid", BETA)
    assert config.batches.packing == "padding_free"

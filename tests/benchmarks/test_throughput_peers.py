"""Peers' tokens are counted in what the model is given, and the lecture's batches are its own."""

from __future__ import annotations

import torch
from throughput_peers import StepCounter, causal_lm_collate, lora_of, settings_of


class Echo(torch.nn.Module):
    """Takes a batch by name, as a language model does."""

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        return batch["input_ids"]


def rows(*lengths: int, prompt: int = 2) -> list[dict[str, list[int]]]:
    return [
        {
            "input_ids": list(range(1, length + 1)),
            "labels": [-100] * prompt + list(range(prompt + 1, length + 1)),
            "attention_mask": [1] * length,
        }
        for length in lengths
    ]


def test_padding_is_not_counted() -> None:
    counter, model = StepCounter(), Echo()
    counter.on_train_begin(model=model)
    model(**causal_lm_collate(rows(5, 9), pad_id=0))
    counter.on_step_end()
    assert [(s["tokens"], s["supervised"]) for s in counter.steps] == [(14, 3 + 7)]
    assert counter.steps[0]["seconds"] > 0


def test_micro_batches_of_a_step_are_added_and_steps_are_apart() -> None:
    counter, model = StepCounter(), Echo()
    counter.on_train_begin(model=model)
    for lengths in ((4,), (6,)):
        model(**causal_lm_collate(rows(*lengths), pad_id=0))
    counter.on_step_end()
    model(**causal_lm_collate(rows(3), pad_id=0))
    counter.on_step_end()
    assert [s["tokens"] for s in counter.steps] == [10, 3]


def test_packed_rows_without_a_mask_count_whole() -> None:
    counter, model = StepCounter(), Echo()
    counter.on_train_begin(model=model)
    labels = torch.tensor([[-100, 2, 3, -100, 5]])
    model(input_ids=torch.ones(1, 5, dtype=torch.int64), labels=labels)
    counter.on_step_end()
    assert [(s["tokens"], s["supervised"]) for s in counter.steps] == [(5, 3)]


def test_collate_pads_to_the_longest_row() -> None:
    batch = causal_lm_collate(rows(3, 5), pad_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9], [1, 2, 3, 4, 5]]
    assert batch["labels"][0].tolist() == [-100, -100, 3, -100, -100]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 5]


def test_the_case_reaches_the_peers() -> None:
    case = {"folder": "out", "batch_rows": 8, "learning_rate": 1e-4, "seed": 3, "device": "cpu"}
    settings = settings_of(case)
    assert (settings["per_device_train_batch_size"], settings["seed"]) == (8, 3)
    assert lora_of({"tuning": "full"}) is None
    config = lora_of({"tuning": "lora", "lora_rank": 16})
    assert config is not None
    assert (config.r, config.lora_alpha) == (16, 32)

"""What `luthier inspect` finds: pieces of rows, what would be trained, an estimate, warnings."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from luthier.core.errors import ModelError, SettingsError
from luthier.recipes import inspection
from luthier.recipes.inspection import Piece, inspect_run, length_histogram, shape_of, show_row


@pytest.fixture(autouse=True)
def _known_rates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "measure_matrix_rates", lambda: {"fp32": 10.0, "bf16": 40.0})


def test_a_row_falls_into_pieces_that_give_its_text_back(tiny_tokenizer: Any):
    ids = tiny_tokenizer("<|im_start|>user\n琴🎻?<|im_end|>\nok<|im_end|>").input_ids
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    first = ids.index(end) + 2  # behind the newline
    row = {"input_ids": ids, "labels": [-100] * first + ids[first:], "origin": "a.json:3"}
    shown = show_row(row, tiny_tokenizer)
    assert shown.origin == "a.json:3"
    assert [(p.text, p.taught, p.special) for p in shown.pieces] == [
        ("<|im_start|>", False, True),
        ("user\n琴🎻?", False, False),
        ("<|im_end|>", False, True),
        ("\n", False, False),
        ("ok", True, False),
        ("<|im_end|>", True, True),
    ]
    assert shown.num_tokens == len(ids)
    assert shown.num_taught == len(ids) - first
    assert shown.pieces[0] == Piece("<|im_start|>", taught=False, special=True, num_tokens=1)


def test_an_inspection(small_run: Any, recorder: Any):
    found = inspect_run(small_run.config("--lora_rank", "4"), recorder, 3)
    assert len(found.rows) == 3
    assert len({tuple(p.text for p in row.pieces) for row in found.rows}) == 3
    taught = "".join(p.text for p in found.rows[0].pieces if p.taught)
    assert taught.startswith("Red, ")
    assert taught.endswith("<|im_end|>")
    assert found.estimate.num_steps == 8
    assert found.precision == "fp32"
    assert found.notices == ()
    assert not (small_run.folder / "out").exists()
    again = inspect_run(small_run.config("--lora_rank", "4"), recorder, 3)
    assert again.rows == found.rows
    assert len(inspect_run(small_run.config(), recorder, 99).rows) == 13


def test_time_follows_the_rate_of_the_type(small_run: Any, recorder: Any):
    fp32 = inspect_run(small_run.config(), recorder, 0).estimate
    bf16 = inspect_run(small_run.config("--bf16", bf16=None), recorder, 0).estimate
    assert fp32.seconds == pytest.approx(4 * bf16.seconds)
    assert fp32.memory_bytes > bf16.memory_bytes


def test_what_training_would_say_is_said_before(small_run: Any, recorder: Any, write_file: Any):
    row = json.dumps({"instruction": "Name 3 colours.", "output": "Red, gree"})
    copied = write_file("copied.jsonl", row)
    flags = ["--val_file", str(copied), "--fp16"]
    found = inspect_run(small_run.config(*flags, bf16=None), recorder, 1)
    said = {notice.setting for notice in found.notices}
    assert "train_val_overlap" not in said
    train = json.loads((small_run.folder / "rows.json").read_text(encoding="utf-8"))
    copied.write_text(json.dumps(train[3]), encoding="utf-8")
    found = inspect_run(small_run.config(*flags, bf16=None), recorder, 1)
    assert "train_val_overlap" in {notice.setting for notice in found.notices}


@pytest.mark.parametrize(
    "flags",
    [
        ["--lora_rank", "4"],
        ["--lora_rank", "4", "--lora_target", "q_proj,v_proj", "--use_dora"],
        ["--lora_rank", "4", "--additional_target", "lm_head"],
        ["--finetuning_type", "full"],
        ["--finetuning_type", "freeze", "--freeze_trainable_layers", "1"],
    ],
    ids=" ".join,
)
def test_the_counted_parameters_are_those_that_training_trains(small_run: Any, flags: list[str]):
    trained = small_run.train(*flags, "--max_steps", "1").screen.parameters
    assert shape_of(small_run.config(*flags)).parameters == trained


def test_a_module_that_is_not_there(small_run: Any):
    with pytest.raises(SettingsError, match="lora_target names x_proj"):
        shape_of(small_run.config("--lora_target", "x_proj"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "no_such_kind"}, r"can't build this model: .*no_such_kind"),
        ({"model_type": "t5"}, r"can't build this model: .*T5Config(.|\n)*causal language model"),
    ],
)
def test_a_model_that_can_not_be_built(small_run: Any, config: dict[str, str], message: str):
    (small_run.model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        shape_of(small_run.config())


def test_a_histogram_counts_every_row_once():
    assert length_histogram([1, 2, 2, 9, 10], num_bins=5) == [
        (1, 2, 3),
        (3, 4, 0),
        (5, 6, 0),
        (7, 8, 0),
        (9, 10, 2),
    ]
    bins = length_histogram([7, 23, 101], num_bins=10)
    assert sum(count for _, _, count in bins) == 3
    assert bins[-1][1] >= 101
    assert bins[0][2] == 1
    for (_, high, _), (low, _, _) in pairwise(bins):
        assert low == high + 1
    assert length_histogram([1])[0] == (1, 1, 1)

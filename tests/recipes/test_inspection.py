"""What `luthier inspect` finds: pieces of rows, what would be trained, an estimate, warnings."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from transformers import BloomConfig

from luthier.core.errors import ModelError, SettingsError
from luthier.recipes import inspection
from luthier.recipes.inspection import inspect_run, length_histogram, shape_of


@pytest.fixture(autouse=True)
def _known_rates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "measure_matrix_rates", lambda: {"fp32": 10.0, "bf16": 40.0})


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


def test_losses_are_those_of_the_model_before_training(small_run: Any, recorder: Any):
    found = inspect_run(small_run.config(), recorder, 2, with_losses=True)
    for row in found.rows:
        assert all((piece.loss is not None) == piece.taught for piece in row.pieces)
        assert all(piece.loss > 0 for piece in row.pieces if piece.loss is not None)
        assert len([piece for piece in row.pieces if piece.taught]) > 3
    plain = inspect_run(small_run.config(), recorder, 2)
    for one, other in zip(found.rows, plain.rows, strict=True):
        assert "".join(p.text for p in one.pieces) == "".join(p.text for p in other.pieces)
        assert one.num_taught == other.num_taught


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


def test_the_estimate_is_that_of_the_batches_that_training_makes(
    small_run: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
):
    asked, refused = (small_run.config("--packing", value) for value in ("padding_free", "false"))
    packed, padded = (inspect_run(config, recorder, 0) for config in (asked, refused))
    assert packed.estimate.padding_share == 0
    assert padded.estimate.padding_share > 0
    assert inspect_run(small_run.config(), recorder, 0).estimate == packed.estimate
    monkeypatch.setattr("luthier.recipes.packed.read_config", lambda _settings: BloomConfig())
    for config in (asked, small_run.config()):
        found = inspect_run(config, recorder, 0)
        assert found.estimate == padded.estimate
        assert [(n.setting, n.used) for n in found.notices] == [("packing", "false")]


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


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_new_tokens_are_counted_and_have_losses(small_run: Any, recorder: Any, tuning: str):
    config = small_run.config("--add_tokens", "Red", finetuning_type=tuning)
    inspection = inspect_run(config, recorder, num_rows=2, with_losses=True)
    plain = shape_of(small_run.config(finetuning_type=tuning)).parameters
    counted = inspection.shape.parameters
    # A row of embeddings and one of the head; with LoRA, these rows a second time, to be trained.
    assert counted.trained == plain.trained + 2 * 32
    assert counted.total == plain.total + (4 if tuning == "lora" else 2) * 32
    new_id = inspection.data.new_token_ids[0]
    row = inspection.data.prepared.train[0]
    assert new_id in row["labels"]
    assert len(inspection.rows) == 2


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

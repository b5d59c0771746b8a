from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from luthier.batches.cutting import split_batch
from luthier.contracts.rows import IGNORE_INDEX
from luthier.engine.memory import MicroBatches
from luthier.evaluation.intervals import estimate
from luthier.evaluation.row_losses import RowLoss, RowLosses, perplexities
from luthier.models.load import load_model
from luthier.models.settings import ModelSettings, QuantizationSettings
from luthier.objectives.find_head import find_head

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_llama):
    """A tiny model whose rows can be packed, sharp enough to tell tokens apart."""
    folder = tiny_llama(initializer_range=0.3)
    return load_model(
        ModelSettings(model_name_or_path=str(folder)),
        QuantizationSettings(),
        device=CPU,
        dtype=torch.float32,
        packed=True,
    ).model


def make_rows(num_rows, vocabulary):
    """Rows of 2 to 60 tokens, of which some at the end are supervised."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(num_rows):
        length = int(random.integers(2, 60))
        ids = random.integers(3, vocabulary, size=length).tolist()
        first = int(random.integers(1, length))
        rows.append({"input_ids": ids, "labels": [IGNORE_INDEX] * first + ids[first:]})
    return rows


def naive_losses(model, rows):
    """One row at a time, in double precision, from all logits."""
    model = model.double()
    losses = []
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0]
        log_probs = logits.log_softmax(dim=-1)
        losses.append(
            -sum(
                float(log_probs[place - 1, label])
                for place, label in enumerate(row["labels"])
                if label != IGNORE_INDEX
            )
        )
    model.float()
    return losses


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("with_head", [True, False], ids=["head", "logits"])
def test_fifty_rows_cost_what_they_cost_alone_in_double_precision(model, is_packed, with_head):
    rows = make_rows(50, model.config.vocab_size)
    compute = RowLosses(find_head(model)[0] if with_head else None, CPU, is_packed, 0, 8)
    found = compute(model, rows)
    expected = naive_losses(model, rows)
    assert found == pytest.approx(expected, rel=1e-4)
    tokens = [sum(label != IGNORE_INDEX for label in row["labels"]) for row in rows]
    perplexity, per_byte = perplexities(
        [RowLoss(nats, n, 3 * n) for nats, n in zip(found, tokens, strict=True)]
    )
    assert perplexity.value == pytest.approx(math.exp(sum(expected) / sum(tokens)), rel=1e-4)
    assert per_byte.value == pytest.approx(math.exp(sum(expected) / sum(tokens) / 3), rel=1e-4)


def test_where_memory_runs_out_batches_are_cut(model):
    rows = make_rows(9, model.config.vocab_size)
    whole = RowLosses(None, CPU, True, 0, 4)(model, rows)
    cut = MicroBatches(split_batch, max_positions=40)
    seen = []
    compute = RowLosses(None, CPU, True, 0, 4, lambda done, total: seen.append((done, total)), cut)
    assert compute(model, rows) == pytest.approx(whole, rel=1e-5)
    assert seen[-1] == (9, 9)


def test_the_model_goes_back_to_the_mode_that_it_was_in(model):
    model.train()
    RowLosses(None, CPU, False, 0, 2)(model, make_rows(2, 50))
    assert model.training


def test_parts_of_a_text_are_one_row():
    assert RowLoss(1.5, 2, 3) + RowLoss(0.5, 1, 4) == RowLoss(2.0, 3, 7)


def test_without_bytes_there_is_no_perplexity_per_byte():
    (perplexity,) = perplexities([RowLoss(math.log(8), 1, 0), RowLoss(0.0, 2, 0)])
    assert perplexity.name == "perplexity"
    assert perplexity.value == pytest.approx(2)
    assert perplexity.lower_is_better


def test_a_perplexity_beyond_all_numbers_is_infinite():
    (perplexity,) = perplexities([RowLoss(1e6, 1, 0), RowLoss(1e6, 1, 0)])
    assert estimate(perplexity).value == math.inf

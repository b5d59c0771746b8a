"""The objective of supervised fine-tuning on a real (tiny) model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from luthier.objectives.causal_lm import causal_lm_loss
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., dict[str, torch.Tensor]]


def test_scores_the_models_logits(tiny_model: Any, random_batch: Make) -> None:
    batch = random_batch()
    batch["loss_weights"] = torch.rand(batch["labels"].shape)
    objective = SupervisedFineTuning(label_smoothing=0.1)
    loss = objective(tiny_model, batch)
    logits = tiny_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = causal_lm_loss(logits, batch["labels"], batch["loss_weights"], 0.1)
    assert float(loss.total) == pytest.approx(float(expected.total), rel=1e-6)
    assert float(objective.weight(batch)) == pytest.approx(float(loss.weight))
    assert float(loss.weight) < int(loss.num_tokens)


def test_weight_without_weights_counts_tokens_that_are_predicted(random_batch: Make) -> None:
    batch = random_batch()
    batch["labels"][0, 0] = 7  # Nothing predicts the first token.
    expected = int((batch["labels"][:, 1:] != -100).sum())
    assert float(SupervisedFineTuning().weight(batch)) == expected


def test_micro_batches_add_up_whatever_their_padding(tiny_model: Any, random_batch: Make) -> None:
    batch = random_batch((9, 5, 7))
    objective = SupervisedFineTuning()
    whole = objective(tiny_model, batch)
    rows = []
    for row, length in enumerate((9, 5, 7)):
        rows.append({name: t[row : row + 1, :length] for name, t in batch.items()})
    parts = [objective(tiny_model, row) for row in rows]
    assert float(sum(p.total for p in parts)) == pytest.approx(float(whole.total), rel=1e-5)
    assert float(sum(objective.weight(row) for row in rows)) == float(whole.weight)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other(tiny_model: Any, attention: str) -> None:
    """Two documents in one row, a shorter row beside them: the same loss as three rows alone."""
    tiny_model.set_attn_implementation(attention)
    objective = SupervisedFineTuning()
    documents = [torch.randint(3, 60, (length,)) for length in (6, 5, 8)]
    alone = 0.0
    for ids in documents:
        labels = ids.clone()
        labels[0] = -100
        batch = {"input_ids": ids[None], "labels": labels[None]}
        batch["attention_mask"] = torch.ones_like(ids)[None]
        alone += float(objective(tiny_model, batch).total)
    first = torch.cat(documents[:2])
    second = torch.cat([documents[2], torch.zeros(3, dtype=torch.int64)])
    labels = torch.stack([first, second])
    labels[0, 0] = labels[0, 6] = labels[1, 0] = -100
    labels[1, 8:] = -100
    packed = {
        "input_ids": torch.stack([first, second]),
        "labels": labels,
        "attention_mask": torch.tensor([[1] * 11, [1] * 8 + [0] * 3]),
        "position_ids": torch.tensor([[*range(6), *range(5)], [*range(8), 0, 0, 0]]),
    }
    assert float(objective(tiny_model, packed).total) == pytest.approx(alone, rel=1e-5)
    del packed["position_ids"]
    assert float(objective(tiny_model, packed).total) != pytest.approx(alone, rel=1e-3)

"""The objective of supervised fine-tuning on a real (tiny) model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from luthier.objectives.causal_lm import causal_lm_loss
from luthier.objectives.find_head import find_head
from luthier.objectives.sft import SupervisedFineTuning, model_inputs

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


def test_packed_documents_through_the_head_alone(tiny_model: Any) -> None:
    """One flat row of three documents, without an attention mask: the loss of three rows."""
    head, notice = find_head(tiny_model)
    assert notice is None
    documents = [torch.randint(3, 60, (length,)) for length in (6, 5, 8)]
    labels = [ids.clone() for ids in documents]
    for row in labels:
        row[0] = -100  # So that no document's end predicts the next one's start.
    alone = 0.0
    for ids, row in zip(documents, labels, strict=True):
        batch = {"input_ids": ids[None], "labels": row[None]}
        batch["attention_mask"] = torch.ones_like(ids)[None]
        alone += float(SupervisedFineTuning()(tiny_model, batch).total)
    packed = {
        "input_ids": torch.cat(documents)[None],
        "labels": torch.cat(labels)[None],
        "position_ids": torch.cat([torch.arange(len(ids)) for ids in documents])[None],
        "cu_seqlens": torch.tensor([0, 6, 11, 19], dtype=torch.int32),
        "num_rows": torch.tensor(3),
    }
    loss = SupervisedFineTuning(head=head)(tiny_model, packed)
    assert float(loss.total) == pytest.approx(alone, rel=1e-5)
    assert int(loss.num_tokens) == 5 + 4 + 7


@pytest.mark.parametrize("with_head", [False, True])
def test_the_models_inputs_can_be_chosen(
    tiny_model: Any, random_batch: Make, with_head: bool
) -> None:
    seen: list[str] = []

    def only_ids(batch: Any) -> dict[str, Any]:
        seen.extend(batch)
        return {"input_ids": batch["input_ids"]}

    head = find_head(tiny_model)[0] if with_head else None
    batch = random_batch()
    expected = SupervisedFineTuning()(tiny_model, batch)
    loss = SupervisedFineTuning(head=head, inputs=only_ids)(tiny_model, batch)
    assert seen == ["input_ids", "labels", "attention_mask"]
    # Padding stands on the right, so the loss needs no mask.
    assert float(loss.total) == pytest.approx(float(expected.total), rel=1e-5)


def test_inputs_are_ids_and_one_way_to_part_documents(random_batch: Make) -> None:
    batch = random_batch()
    assert list(model_inputs(batch)) == ["input_ids", "attention_mask"]
    batch["position_ids"] = torch.zeros_like(batch["input_ids"])
    assert list(model_inputs(batch)) == ["input_ids", "position_ids"]


def test_evaluation_through_the_head_forms_no_gradient(tiny_model: Any, random_batch: Make) -> None:
    head, _ = find_head(tiny_model)
    trained = SupervisedFineTuning(head=head)(tiny_model, random_batch())
    with torch.inference_mode():
        measured = SupervisedFineTuning(head=head)(tiny_model, random_batch())
    assert not measured.total.requires_grad
    assert float(measured.total) == float(trained.total)
    assert measured.num_correct is not None
    assert measured.num_correct == trained.num_correct

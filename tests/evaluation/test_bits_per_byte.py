"""The loss over bytes, against a computation by hand and a naive one in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from luthier.batches.flat import flat_collate
from luthier.contracts.conversation import Corpus, Origin, Record
from luthier.dataset.documents import make_document_rows
from luthier.dataset.row_table import to_dataset
from luthier.dataset.settings import DatasetSettings
from luthier.engine.precision import Precision
from luthier.evaluation.bits_per_byte import BitsPerByte
from luthier.evaluation.validation_loss import ValidationLoss
from luthier.objectives.sft import SupervisedFineTuning

TEXTS = ["The dog sat on the mat.", "狗坐在垫子上。", "A", "a cat, a café and 🙂" * 3]


def returning(loss: float) -> Any:
    return lambda _model: {"eval_loss": loss, "eval_seconds": 1.0}


def test_nats_of_all_tokens_over_bytes_of_all_text():
    found = BitsPerByte(returning(2.0), tokens=30, text_bytes=120)(torch.nn.Identity())
    assert found == {
        "eval_loss": 2.0,
        "eval_seconds": 1.0,
        "eval_bits_per_byte": pytest.approx(0.5 / math.log(2)),
        "eval_byte_perplexity": pytest.approx(math.exp(0.5)),
    }


def test_no_bytes_and_no_number_that_fits():
    nothing = BitsPerByte(returning(2.0), tokens=3, text_bytes=0)(torch.nn.Identity())
    assert math.isnan(nothing["eval_bits_per_byte"])
    assert math.isnan(nothing["eval_byte_perplexity"])
    huge = BitsPerByte(returning(1e6), tokens=3, text_bytes=3)(torch.nn.Identity())
    assert huge["eval_byte_perplexity"] == math.inf


@pytest.mark.parametrize("name", ["chatml", "llama3", "llama2"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 1.0, 3.0, 2.0)])
def test_against_each_document_alone_in_float64(
    name: str, weights: tuple[float, ...], load_tiny: Any, tiny_llama: Any
):
    from transformers import AutoModelForCausalLM

    tokenizer = load_tiny(name)
    folder = str(tiny_llama(tokenizer=tokenizer))
    records = [
        Record(Origin("a.txt", number), text=text, weight=weight)
        for number, (text, weight) in enumerate(zip(TEXTS, weights, strict=True))
    ]
    side = make_document_rows(
        Corpus(records, [], 4), tokenizer, DatasetSettings(), False, lambda *_: None
    )
    rows = to_dataset(side.rows_of(range(4)), with_weights=max(weights) != 1)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model = model.float()
    with torch.no_grad():  # As it is made, every token is as likely as any other.
        for parameter in model.parameters():
            parameter.mul_(8)

    batch = flat_collate([dict(row) for row in rows])
    loss = ValidationLoss(
        batches=lambda: [batch],
        objective=SupervisedFineTuning(),
        precision=Precision(torch.float32, "cpu"),
        device=torch.device("cpu"),
    )
    found = BitsPerByte.of(loss, rows)(model)

    bits = num_bytes = 0.0
    model = model.double()
    for text, weight in zip(TEXTS, weights, strict=True):
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].detach().numpy()
        logits -= logits.max(axis=-1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        bits -= weight * log_probs[np.arange(len(ids) - 1), ids[1:]].sum() / np.log(2)
        predicted = text
        if tokenizer.bos_token_id is None:
            predicted = text[tokenizer(text).token_to_chars(0).end :]
        num_bytes += weight * len(predicted.encode())
    assert found["eval_bits_per_byte"] == pytest.approx(bits / num_bytes, rel=1e-4)
    assert found["eval_byte_perplexity"] == pytest.approx(2 ** (bits / num_bytes), rel=1e-4)

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.engine.precision import Precision
from luthier.evaluation.token_losses import token_losses

CPU = torch.device("cpu")
FP32 = Precision(torch.float32, "cpu")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def test_each_taught_token_has_the_loss_of_its_own_prediction(model: LlamaForCausalLM):
    ids = [1, 5, 9, 3, 7, 2]
    row = {"input_ids": ids, "labels": [-100, -100, 9, 3, -100, 2]}
    losses = token_losses(model, row, precision=FP32, device=CPU)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    for place, loss in enumerate(losses):
        if row["labels"][place] == -100:
            assert loss is None
        else:
            expected = -torch.log_softmax(logits[place - 1], -1)[ids[place]]
            assert loss == pytest.approx(float(expected), rel=1e-5)


def test_their_mean_is_the_loss_that_training_reports(model: LlamaForCausalLM):
    ids = list(range(1, 20))
    labels = [-100] * 7 + ids[7:]
    losses = token_losses(model, {"input_ids": ids, "labels": labels}, precision=FP32, device=CPU)
    taught = [loss for loss in losses if loss is not None]
    with torch.no_grad():
        reference = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss
    assert math.fsum(taught) / len(taught) == pytest.approx(float(reference), rel=1e-5)


def test_the_model_keeps_its_mode(model: LlamaForCausalLM):
    model.train()
    token_losses(model, {"input_ids": [1, 2], "labels": [-100, 2]}, precision=FP32, device=CPU)
    assert model.training

"""Which parameters decay, and with what the optimiser is built."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from luthier.core.errors import MissingExtraError, SettingsError
from luthier.engine.lion import Lion
from luthier.engine.loop import train
from luthier.engine.optimizer import (
    STATES,
    build_optimizer,
    hidden_matrices,
    set_learning_rate,
    state_bytes,
)
from luthier.engine.schedule_free import ScheduleFreeAdamW
from luthier.engine.settings import (
    AdafactorOptimizer,
    AdamW8bitOptimizer,
    AdamWOptimizer,
    Lion8bitOptimizer,
    LionOptimizer,
    MuonOptimizer,
    PagedAdamW8bitOptimizer,
    ScheduleFreeOptimizer,
)


def test_adamw_is_fused_and_set_as_asked(make_model: Callable[..., Any]) -> None:
    settings = AdamWOptimizer(adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    optimizer = build_optimizer(make_model(), settings, learning_rate=1e-3, weight_decay=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert group["fused"] is True
        assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.8, 0.95), 1e-6)


def test_adafactor_follows_the_runs_rate(make_model: Callable[..., Any]) -> None:
    from transformers.optimization import Adafactor

    optimizer = build_optimizer(
        make_model(), AdafactorOptimizer(), learning_rate=1e-3, weight_decay=0.1
    )
    assert isinstance(optimizer, Adafactor)
    set_learning_rate(optimizer, 0.25)
    for group in optimizer.param_groups:
        assert group["lr"] == 0.25
        assert not group["relative_step"]
        assert not group["scale_parameter"]


def test_lion_is_set_as_asked(make_model: Callable[..., Any]) -> None:
    settings = LionOptimizer(lion_beta1=0.8, lion_beta2=0.95)
    optimizer = build_optimizer(make_model(), settings, learning_rate=1e-4, weight_decay=0.1)
    assert isinstance(optimizer, Lion)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    assert {(g["lr"], g["betas"]) for g in optimizer.param_groups} == {(1e-4, (0.8, 0.95))}


def test_schedule_free_is_set_as_asked(make_model: Callable[..., Any]) -> None:
    settings = ScheduleFreeOptimizer(adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    optimizer = build_optimizer(make_model(), settings, learning_rate=1e-3, weight_decay=0.1)
    assert isinstance(optimizer, ScheduleFreeAdamW)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    assert {(g["lr"], g["betas"], g["eps"]) for g in optimizer.param_groups} == {
        (1e-3, (0.8, 0.95), 1e-6)
    }


def test_muon_trains_the_matrices_of_the_layers(make_model: Callable[..., Any]) -> None:
    model = make_model()
    settings = MuonOptimizer(muon_momentum=0.9, adam_beta1=0.8, adam_epsilon=1e-6)
    optimizer = build_optimizer(model, settings, learning_rate=1e-3, weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    by_muon = {
        names[id(p)] for g in optimizer.param_groups if g["kind"] == "muon" for p in g["params"]
    }
    assert by_muon == {n for n in names.values() if "proj" in n}
    grouped = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(names)
    muon, *adamw = optimizer.param_groups
    assert (muon["momentum"], muon["weight_decay"]) == (0.9, 0.1)
    assert muon["adjust_lr_fn"] == "match_rms_adamw"
    assert [(g["betas"], g["eps"], g["fused"]) for g in adamw] == [((0.8, 0.999), 1e-6, True)] * 2
    assert [g["weight_decay"] for g in adamw] == [0.1, 0.0]


def test_stacked_experts_are_no_matrices() -> None:
    experts = torch.nn.Module()
    experts.layers = torch.nn.ModuleList([torch.nn.Linear(2, 3)])
    experts.layers[0].stacked = torch.nn.Parameter(torch.zeros(4, 2, 3))
    model = torch.nn.Module()
    model.model = experts
    assert hidden_matrices(model) == {id(experts.layers[0].weight)}


def test_a_group_keeps_its_share_of_the_rate(make_model: Callable[..., Any]) -> None:
    model = make_model()
    slow = {name: 0.5 for name, _ in model.named_parameters() if "layers.0." in name}
    optimizer = build_optimizer(
        model, AdamWOptimizer(), learning_rate=1.0, weight_decay=0.0, scales=slow
    )
    set_learning_rate(optimizer, 0.2)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (0.1 if "layers.0." in name else 0.2)


@pytest.mark.parametrize(
    "settings",
    [
        *(AdamWOptimizer(), LionOptimizer(), MuonOptimizer(), AdafactorOptimizer()),
        ScheduleFreeOptimizer(),
    ],
    ids=lambda settings: settings.optim,
)
def test_the_state_is_as_large_as_foretold(
    settings: Any, make_training: Callable[..., Any]
) -> None:
    training = make_training(optimizer=settings, max_steps=1)
    foretold = state_bytes(training.optimizer)
    train(training)
    tensors = [
        value
        for values in training.optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor) and value.ndim > 1
    ]
    found = sum(t.numel() * t.element_size() for t in tensors)
    vectors = [p for p in training.model.parameters() if p.ndim == 1]
    share = found + 4 * STATES[settings.optim] * sum(p.numel() for p in vectors)
    if settings.optim == "muon":
        share += 4 * sum(p.numel() for p in vectors)  # these are AdamW's
    if settings.optim == "adafactor":
        assert foretold == found == 0
    assert share == foretold
    assert state_bytes(training.optimizer) == 0


EIGHT_BIT = [AdamW8bitOptimizer(), PagedAdamW8bitOptimizer(), Lion8bitOptimizer()]


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("settings", EIGHT_BIT, ids=lambda settings: settings.optim)
def test_without_bitsandbytes_it_is_named(settings: Any, make_model: Callable[..., Any]) -> None:
    with pytest.raises(MissingExtraError, match=r"optim: \w+_8bit needs the package bitsandbytes"):
        build_optimizer(make_model(), settings, learning_rate=1e-3, weight_decay=0.0)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("settings", EIGHT_BIT, ids=lambda settings: settings.optim)
def test_eight_bits_learn_about_as_32_do(settings: Any) -> None:
    plain: Any = LionOptimizer() if settings.optim == "lion_8bit" else AdamWOptimizer()

    def trained(chosen: Any) -> tuple[torch.Tensor, int, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = torch.nn.Linear(128, 128)  # below 4,096 numbers bitsandbytes keeps 32 bits
        optimizer = build_optimizer(net, chosen, learning_rate=1e-3, weight_decay=0.1)
        foretold = state_bytes(optimizer)
        for _ in range(10):
            net(torch.randn(32, 128)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return net.weight.detach().clone(), foretold, optimizer

    torch.manual_seed(0)
    start = torch.nn.Linear(128, 128).weight.detach()
    ours, foretold, optimizer = trained(settings)
    exact, _, _ = trained(plain)
    moved, difference = (exact - start).norm(), (ours - exact).norm()
    assert difference < 0.1 * moved
    states = [
        value
        for values in optimizer.state.values()
        for name, value in values.items()
        if name in ("state1", "state2") and value.numel() > 4096
    ]
    assert {state.dtype for state in states} == {torch.uint8}
    assert foretold - sum(state.numel() for state in states) == 128 * len(states)


def test_nothing_to_train_is_an_error(make_model: Callable[..., Any]) -> None:
    model = make_model()
    model.requires_grad_(False)
    with pytest.raises(SettingsError, match="no parameter of the model is trainable"):
        build_optimizer(model, AdamWOptimizer(), learning_rate=1e-3, weight_decay=0.0)

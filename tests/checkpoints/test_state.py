"""The optimiser's and the generators' state goes to disk and comes back, bit by bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.optimization import Adafactor

from luthier.checkpoints.state import (
    load_gradients,
    load_optimizer,
    load_random,
    take_gradients,
    take_optimizer,
    take_random,
)
from luthier.contracts.training import Accumulation, MetricSum
from luthier.engine.lion import Lion
from luthier.engine.muon import MuonWithAdamW, split_by_kind


def write(name: str, taken: tuple[Any, ...], folder: Path) -> None:
    """Write what was taken as a checkpoint writes it."""
    save_file(taken[0], folder / f"{name}.safetensors")
    for values in taken[1:]:
        (folder / f"{name}.json").write_text(json.dumps(values))


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    write("optimizer", take_optimizer(optimizer, as_copy=False), folder)


def save_random(folder: Path) -> None:
    write("random", take_random(), folder)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2, bias=False))


def build(kind: str, net: torch.nn.Module) -> torch.optim.Optimizer:
    params: list[dict[str, Any]] = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    if kind == "adafactor":
        return Adafactor(params, lr=0.01, scale_parameter=False, relative_step=False)
    if kind == "lion":
        return Lion(params, lr=0.01)
    if kind == "muon":
        split = split_by_kind(params, {id(p) for p in net.parameters() if p.ndim == 2})
        return MuonWithAdamW(split, 0.01, {}, {"fused": True})
    if kind == "adamw_8bit":
        bnb = pytest.importorskip("bitsandbytes")
        return bnb.optim.AdamW8bit(params, lr=0.01, min_8bit_size=1)
    if kind == "sgd":
        return torch.optim.SGD(params, lr=0.01)
    return torch.optim.AdamW(params, lr=0.01, fused=kind == "fused")


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer, times: int) -> None:
    for number in range(times):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
        net(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def flat(state: dict[int, Any]) -> dict[int, Any]:
    """bitsandbytes' state has its 8-bit tensors one level deeper."""

    def spread(values: dict[str, Any]) -> Any:
        for name, value in values.items():
            yield from value.items() if isinstance(value, dict) else [(name, value)]

    return {index: dict(spread(values)) for index, values in state.items()}


class Nested(torch.optim.AdamW):
    """An optimiser whose state is laid out as bitsandbytes' is, with a table that all share."""

    table = torch.arange(4.0)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        for index, values in state["state"].items():
            state["state"][index] = {"step": values["step"], "quant": {"qmap1": self.table}}
        return state


def test_a_nested_state_is_taken_flat_and_a_shared_tensor_twice(tmp_path: Path) -> None:
    net = model()
    optimizer = Nested(net.parameters(), lr=0.01)
    step(net, optimizer, 1)
    tensors, _ = take_optimizer(optimizer, as_copy=False)
    assert sorted(tensors) == [f"{i}.{name}" for i in range(3) for name in ("qmap1", "step")]
    save_optimizer(optimizer, tmp_path)  # safetensors refuses tensors that share memory


@pytest.mark.parametrize(
    "kind", ["adamw", "fused", "adafactor", "sgd", "lion", "muon", "adamw_8bit"]
)
def test_optimizer_comes_back_whole(kind: str, tmp_path: Path) -> None:
    net = model()
    optimizer = build(kind, net)
    step(net, optimizer, 3)
    optimizer.param_groups[0]["lr"] = 1 / 3
    save_optimizer(optimizer, tmp_path)
    twin = model()
    twin.load_state_dict(net.state_dict())
    fresh = build(kind, twin)
    load_optimizer(fresh, tmp_path)
    before, after = optimizer.state_dict(), fresh.state_dict()
    before["state"], after["state"] = map(flat, (before["state"], after["state"]))
    assert after["state"].keys() == before["state"].keys()
    for index, values in before["state"].items():
        assert after["state"][index].keys() == values.keys()
        for name, value in values.items():
            other = after["state"][index][name]
            assert type(other) is type(value)
            assert torch.equal(torch.as_tensor(other), torch.as_tensor(value)), name
    assert fresh.param_groups[0]["lr"] == 0.01, "its settings are its own"
    fresh.param_groups[0]["lr"] = 1 / 3
    step(net, optimizer, 2)
    step(twin, fresh, 2)
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_optimizer_that_never_stepped(tmp_path: Path) -> None:
    optimizer = build("adamw", model())
    save_optimizer(optimizer, tmp_path)
    fresh = build("adamw", model())
    load_optimizer(fresh, tmp_path)
    assert fresh.state_dict()["state"] == {}


def test_an_optimizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_optimizer(build("adamw", model()), tmp_path)
    with pytest.raises(ValueError, match="parameter group"):
        load_optimizer(build("adamw", torch.nn.Linear(3, 3)), tmp_path)


def draw() -> tuple[Any, ...]:
    return (
        *(random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn())),
        float(torch.rand(())),
        torch.nn.functional.dropout(torch.ones(50)).tolist(),
    )


def test_random_generators_come_back(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    draw()  # leaves half a pair of normal numbers in Python's and numpy's generators
    save_random(tmp_path)
    expected = [draw() for _ in range(3)]
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert draw() != expected[0]
    load_random(tmp_path)
    assert [draw() for _ in range(3)] == expected


def test_each_gpu_has_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.arange(16, dtype=torch.uint8), torch.ones(16, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: states[index])
    save_random(tmp_path)
    found: dict[int, list[int]] = {}
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, index: found.update({index: state.tolist()})
    )
    load_random(tmp_path)
    assert found == {index: state.tolist() for index, state in enumerate(states)}
    # A machine with more GPUs goes on with those that were there.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    found.clear()
    load_random(tmp_path)
    assert sorted(found) == [0, 1]


@pytest.mark.parametrize("as_copy", [False, True])
def test_a_copy_does_not_change_with_the_next_step(as_copy: bool) -> None:
    net = model()
    optimizer = build("adamw", net)
    step(net, optimizer, 1)
    tensors, _ = take_optimizer(optimizer, as_copy=as_copy)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    step(net, optimizer, 1)
    same = {name: torch.equal(tensors[name], before[name]) for name in tensors}
    assert set(same.values()) == {as_copy}


def part_of_a_step(net: torch.nn.Module, number: int) -> torch.Tensor:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
    loss = net(inputs).square().sum()
    loss.backward()
    return loss.detach()


def test_gradients_come_back_bit_by_bit(tmp_path: Path) -> None:
    """Two micro-batches, against one, and one more by another process."""
    whole, first, second = model(), model(), model()
    total = part_of_a_step(whole, 0) + part_of_a_step(whole, 1)
    done = Accumulation(1, part_of_a_step(first, 0))
    write("gradients", (take_gradients(build("adamw", first), done, as_copy=False),), tmp_path)
    going_on = Accumulation()
    optimizer = build("adamw", second)
    load_gradients(optimizer, going_on, tmp_path)
    assert going_on.loss_total is not None
    assert torch.equal(going_on.loss_total + part_of_a_step(second, 1), total)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)
        assert one.grad.stride() == other.grad.stride()


def test_gradients_are_named_by_the_optimisers_order(tmp_path: Path) -> None:
    """Weights first, then biases; and a parameter that took no part has none."""
    net = model()
    optimizer = build("adamw", net)
    weight = net.get_parameter("1.weight")
    weight.grad = torch.full_like(weight, 0.1)
    assert take_gradients(optimizer, Accumulation(), as_copy=False).keys() == {"1"}
    told = {"rewards/margins": MetricSum(torch.tensor([1.0, -2.0]), torch.tensor(3))}
    taken = take_gradients(optimizer, Accumulation(2, torch.tensor(1.5), told), as_copy=True)
    weight.grad.zero_()
    write("gradients", (taken,), tmp_path)
    fresh, done = model(), Accumulation()
    load_gradients(build("adamw", fresh), done, tmp_path)
    found = {name for name, p in fresh.named_parameters() if p.grad is not None}
    assert found == {"1.weight"}
    found_gradient = fresh.get_parameter("1.weight").grad
    assert found_gradient is not None
    assert torch.equal(found_gradient, torch.full_like(weight, 0.1))
    assert done.loss_total == torch.tensor(1.5)
    (name, metric), *others = done.metrics.items()
    assert (name, metric.mean(), others) == ("rewards/margins", 1.0, [])


def test_a_gradient_is_laid_out_as_its_parameter(tmp_path: Path) -> None:
    turned = torch.nn.Parameter(torch.randn(3, 4).t())
    turned.grad = torch.arange(12.0).reshape(3, 4).t()
    write(
        "gradients",
        (take_gradients(torch.optim.SGD([turned]), Accumulation(1), as_copy=False),),
        tmp_path,
    )
    fresh = torch.nn.Parameter(torch.zeros(3, 4).t())
    load_gradients(torch.optim.SGD([fresh]), Accumulation(), tmp_path)
    assert fresh.grad is not None
    assert torch.equal(fresh.grad, turned.grad)
    assert fresh.grad.stride() == turned.grad.stride() == (1, 4)

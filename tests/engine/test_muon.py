"""Muon for matrices and AdamW for the rest do what torch's two optimisers do on their own."""

from __future__ import annotations

import copy
from typing import Any

import torch

from luthier.engine.muon import ADAMW, MUON, MuonWithAdamW, split_by_kind

ADAMW_SETTINGS: Any = {"betas": (0.8, 0.9), "eps": 1e-6}


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Embedding(7, 4), torch.nn.Linear(4, 6), torch.nn.Linear(6, 4, bias=False)
    )


def matrices(model: Any) -> list[torch.nn.Parameter]:
    return [model[1].weight, model[2].weight]


def others(model: Any) -> list[torch.nn.Parameter]:
    return [model[0].weight, model[1].bias]


def together(model: Any) -> MuonWithAdamW:
    groups = [{"params": list(model.parameters()), "weight_decay": 0.1}]
    split = split_by_kind(groups, {id(p) for p in matrices(model)})
    return MuonWithAdamW(split, 1e-2, {"momentum": 0.9}, ADAMW_SETTINGS)


def step(model: Any, *optimizers: torch.optim.Optimizer, times: int, first: int = 0) -> None:
    for number in range(first, first + times):
        ids = torch.randint(7, (5,), generator=torch.Generator().manual_seed(number))
        model(ids).square().sum().backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + number)
            optimizer.step()
            optimizer.zero_grad()


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_equals_torchs_two_optimisers() -> None:
    ours, theirs = net(), net()
    step(ours, together(ours), times=4)
    muon = torch.optim.Muon(
        matrices(theirs), weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others(theirs), weight_decay=0.1, **ADAMW_SETTINGS)
    step(theirs, muon, adamw, times=4)
    assert same(ours, theirs)
    assert not same(ours, net())


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    ours = net()
    optimizer = together(ours)
    step(ours, optimizer, times=2)
    twin = copy.deepcopy(ours)
    fresh = together(twin)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(ours, optimizer, times=2, first=2)
    step(twin, fresh, times=2, first=2)
    assert same(ours, twin)


def test_one_kind_alone() -> None:
    model = net()
    groups = [{"params": matrices(model), "weight_decay": 0.0}]
    split = split_by_kind(groups, {id(p) for p in matrices(model)})
    assert [group["kind"] for group in split] == [MUON]
    before = copy.deepcopy(model)
    step(model, MuonWithAdamW(split, 1e-2, {}, {}), times=1)
    assert not torch.equal(matrices(model)[0], matrices(before)[0])
    assert torch.equal(others(model)[0], others(before)[0])


def test_groups_keep_what_they_say() -> None:
    model = net()
    groups = [
        {"params": list(model.parameters()), "weight_decay": 0.1, "lr_scale": 0.5},
        {"params": [], "weight_decay": 0.0},
    ]
    split = split_by_kind(groups, {id(p) for p in matrices(model)})
    assert [(g["kind"], g["lr_scale"], len(g["params"])) for g in split] == [
        (MUON, 0.5, 2),
        (ADAMW, 0.5, 2),
    ]

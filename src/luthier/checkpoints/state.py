"""The state of the optimiser, of the gradients and of the random generators.

Taken as tensors, which go to safetensors, and as plain values, which go to JSON. No pickle.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from luthier.contracts.training import Accumulation, MetricSum

Tensors = dict[str, torch.Tensor]

OPTIMIZER = "optimizer"
RANDOM = "random"
GRADIENTS = "gradients"
"""Names of the files, without their endings `.safetensors` and `.json`."""

_LOSS_TOTAL = "loss_total"

_METRIC_TOTAL, _METRIC_WEIGHT = "metric_total.", "metric_weight."
"""What the tensors of a metric are called, before its name. Gradients are called by numbers."""


def take_optimizer(
    optimizer: torch.optim.Optimizer, *, as_copy: bool
) -> tuple[Tensors, dict[str, Any]]:
    """Take an optimiser's state: tensors by parameter and name, and all that is no tensor.

    Args:
        optimizer: Any of torch's.
        as_copy: Whether the tensors must not change with the optimiser's next step.
    """
    state = optimizer.state_dict()
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    seen: set[int] = set()
    for index, values in state["state"].items():
        for name, value in _flat(values):
            key = f"{index}.{name}"
            if isinstance(value, torch.Tensor):
                # safetensors writes nothing twice, and bitsandbytes' code tables are one tensor.
                tensors[key] = _on_cpu(value, as_copy or value.data_ptr() in seen)
                seen.add(value.data_ptr())
            else:
                numbers[key] = value
    return tensors, {"numbers": numbers, "param_groups": state["param_groups"]}


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    # bitsandbytes puts the tensors of its 8-bit states one level deeper, and takes them back flat.
    for name, value in values.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Give an optimiser over the same parameters the state that `take_optimizer` took.

    Its own settings stay: they are the checkpoint's, or were changed with the user's consent.
    """
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    saved = json.loads((folder / f"{OPTIMIZER}.json").read_text(encoding="utf-8"))
    values: dict[str, Any] = saved["numbers"] | load_file(folder / f"{OPTIMIZER}.safetensors")
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def take_gradients(
    optimizer: torch.optim.Optimizer, accumulation: Accumulation, *, as_copy: bool
) -> Tensors:
    """Take the gradients that a part of a step has left, its summed loss and its metrics.

    Args:
        optimizer: Over the parameters that have them; one without a gradient is left out.
        accumulation: Which part of the step is done.
        as_copy: Whether the tensors must not change with the next micro-batch.
    """
    tensors = {
        str(index): _on_cpu(parameter.grad, as_copy)
        for index, parameter in enumerate(_parameters(optimizer))
        if parameter.grad is not None
    }
    if accumulation.loss_total is not None:
        tensors[_LOSS_TOTAL] = _on_cpu(accumulation.loss_total, as_copy)
    for name, metric in accumulation.metrics.items():
        tensors[_METRIC_TOTAL + name] = _on_cpu(metric.total, as_copy)
        tensors[_METRIC_WEIGHT + name] = _on_cpu(metric.weight, as_copy)
    return tensors


def load_gradients(
    optimizer: torch.optim.Optimizer, accumulation: Accumulation, folder: Path
) -> None:
    """Give parameters and accumulation what `take_gradients` took, on the parameters' devices."""
    tensors = load_file(folder / f"{GRADIENTS}.safetensors")
    parameters = list(_parameters(optimizer))
    device = parameters[0].device
    total = tensors.pop(_LOSS_TOTAL, None)
    accumulation.loss_total = None if total is None else total.to(device)
    names = [key.removeprefix(_METRIC_TOTAL) for key in tensors if key.startswith(_METRIC_TOTAL)]
    accumulation.metrics = {
        name: MetricSum(
            tensors.pop(_METRIC_TOTAL + name).to(device),
            tensors.pop(_METRIC_WEIGHT + name).to(device),
        )
        for name in names
    }
    for index, saved in tensors.items():
        parameter = parameters[int(index)]
        # As autograd lays a gradient out: sums over it then add up in the same order.
        parameter.grad = torch.empty_like(parameter, dtype=saved.dtype).copy_(saved)


def take_random() -> tuple[Tensors, dict[str, Any]]:
    """Take the states of Python's, numpy's and torch's random generators."""
    tensors = {"torch": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        tensors[f"cuda.{index}"] = torch.cuda.get_rng_state(index)
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return tensors, {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def load_random(folder: Path) -> None:
    """Put all random generators back to where `take_random` found them."""
    tensors = load_file(folder / f"{RANDOM}.safetensors")
    torch.set_rng_state(tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
    saved = json.loads((folder / f"{RANDOM}.json").read_text(encoding="utf-8"))
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _on_cpu(tensor: torch.Tensor, as_copy: bool) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=as_copy).contiguous()

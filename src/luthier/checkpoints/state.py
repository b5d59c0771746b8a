"""The optimiser's and the random generators' state as safetensors + JSON. No pickle."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from luthier.core.files import write_json

_OPTIMIZER = "optimizer"
_RANDOM = "random"


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write an optimiser's state: tensors to safetensors, plain numbers to JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            key = f"{index}.{name}"
            if isinstance(value, torch.Tensor):
                tensors[key] = value.detach().cpu().contiguous()
            else:
                numbers[key] = value
    save_file(tensors, folder / f"{_OPTIMIZER}.safetensors")
    write_json(
        folder / f"{_OPTIMIZER}.json", {"numbers": numbers, "param_groups": state["param_groups"]}
    )


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Give an optimiser over the same parameters the state that `save_optimizer` wrote."""
    saved = json.loads((folder / f"{_OPTIMIZER}.json").read_text(encoding="utf-8"))
    values: dict[str, Any] = saved["numbers"] | load_file(folder / f"{_OPTIMIZER}.safetensors")
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def save_random(folder: Path) -> None:
    """Write the states of Python's, numpy's and torch's random generators."""
    tensors = {"torch": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        tensors[f"cuda.{index}"] = torch.cuda.get_rng_state(index)
    save_file(tensors, folder / f"{_RANDOM}.safetensors")
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    write_json(
        folder / f"{_RANDOM}.json",
        {
            "python": [version, list(words), gauss],
            "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        },
    )


def load_random(folder: Path) -> None:
    """Put all random generators back to where `save_random` found them."""
    tensors = load_file(folder / f"{_RANDOM}.safetensors")
    torch.set_rng_state(tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
    saved = json.loads((folder / f"{_RANDOM}.json").read_text(encoding="utf-8"))
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))

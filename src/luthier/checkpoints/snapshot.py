"""All that belongs to one checkpoint, taken at one moment; and a run put back to that moment.

What was taken as a copy can be written by another thread while training goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from luthier.checkpoints.listing import MODEL, checkpoint_name
from luthier.checkpoints.manifest import seal
from luthier.checkpoints.state import (
    GRADIENTS,
    OPTIMIZER,
    RANDOM,
    load_gradients,
    load_optimizer,
    load_random,
    take_gradients,
    take_optimizer,
    take_random,
)
from luthier.contracts.training import Accumulation, BatchSource, Progress, Resumable
from luthier.core.files import write_text

_STATE = "state.json"


class SavedModel(Protocol):
    """A model, or an adapter, as it is to be written."""

    @property
    def num_bytes(self) -> int:
        """Bytes of its weights."""
        ...

    def write(self, folder: Path, /) -> None:
        """Write it so that transformers or peft open the folder; create the folder."""
        ...


TakeModel = Callable[[bool], SavedModel]
"""Takes the model as it stands; True: as a copy that training does not change."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The parts of a run whose state a checkpoint holds, beside the model.

    Attributes:
        fingerprint: Hashes of the settings and data that the run's mathematics depend on.
        parts: More of them, by name, such as the size of micro-batches that was found to fit the
            memory. What a checkpoint does not know is left as it is.
        accumulation: The part of a step that is done, where the run stops in the middle of one.
    """

    optimizer: torch.optim.Optimizer
    batches: BatchSource
    scaler: torch.amp.GradScaler | None
    fingerprint: Mapping[str, str]
    parts: Mapping[str, Resumable] = field(default_factory=dict)
    accumulation: Accumulation = field(default_factory=Accumulation)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One checkpoint, not yet on the disk.

    Attributes:
        step: Steps that are done.
        name: Of its folder.
        facts: For its manifest.
        tensors: By file.
        texts: By file.
    """

    step: int
    name: str
    facts: dict[str, Any]
    model: SavedModel
    tensors: Mapping[str, dict[str, torch.Tensor]]
    texts: Mapping[str, str]

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes on the disk, but for headers and the small files of the model."""
        tensors = (t for group in self.tensors.values() for t in group.values())
        texts = sum(len(text.encode()) for text in self.texts.values())
        return self.model.num_bytes + texts + sum(t.numel() * t.element_size() for t in tensors)

    def write(self, folder: Path) -> None:
        """Write all files into an empty folder and seal it.

        Raises:
            OSError: The disk is full or can't be written.
            SafetensorError: The same, found by safetensors.
        """
        self.model.write(folder / MODEL)
        for name, tensors in self.tensors.items():
            save_file(tensors, folder / name)
        for name, text in self.texts.items():
            write_text(folder / name, text)
        seal(folder, self.facts)


def take_snapshot(
    state: RunState,
    progress: Progress,
    metrics: Mapping[str, float],
    take_model: TakeModel,
    *,
    as_copy: bool,
) -> Snapshot:
    """Take all that the run needs to go on from this very point.

    Args:
        state: What is saved beside the model.
        progress: How far the run has come.
        metrics: Of the evaluation at this step; empty where there was none.
        take_model: Takes the model.
        as_copy: Whether training goes on before it is written.
    """
    optimizer, optimizer_values = take_optimizer(state.optimizer, as_copy=as_copy)
    generators, generator_values = take_random()
    done = state.accumulation
    tensors = {f"{OPTIMIZER}.safetensors": optimizer, f"{RANDOM}.safetensors": generators}
    if done.num_done:
        gradients = take_gradients(state.optimizer, done, as_copy=as_copy)
        tensors[f"{GRADIENTS}.safetensors"] = gradients
    values = {
        "progress": asdict(progress),
        "num_done": done.num_done,
        "batches": state.batches.get_state(),
        "scaler": state.scaler.state_dict() if state.scaler else None,
        "parts": {name: part.get_state() for name, part in state.parts.items()},
    }
    facts = {
        "step": progress.step,
        "part": done.num_done,
        "metrics": _finite(metrics),
        "fingerprint": dict(state.fingerprint),
    }
    return Snapshot(
        step=progress.step,
        name=checkpoint_name(progress.step, done.num_done),
        facts=facts,
        model=take_model(as_copy),
        tensors=tensors,
        # As text at once: a list in a part's state may be the one that the run goes on with.
        texts={
            f"{OPTIMIZER}.json": _as_text(optimizer_values),
            f"{RANDOM}.json": _as_text(generator_values),
            _STATE: _as_text(values),
        },
    )


def load_snapshot(folder: Path, state: RunState, progress: Progress) -> None:
    """Bring the run's parts, its random generators and its progress to a checkpoint.

    Args:
        folder: A verified checkpoint: its files are read as they are. The caller loads its model.
        state: Changed in place.
        progress: Changed in place; `num_steps` stays as it is.
    """
    saved = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    load_optimizer(state.optimizer, folder)
    load_random(folder)
    state.batches.set_state(saved["batches"])
    if state.scaler is not None and saved["scaler"] is not None:
        state.scaler.load_state_dict(saved["scaler"])
    for name, part in state.parts.items():
        if name in saved["parts"]:
            part.set_state(saved["parts"][name])
    state.accumulation.clear()
    if saved["num_done"]:
        load_gradients(state.optimizer, state.accumulation, folder)
        state.accumulation.num_done = saved["num_done"]
    for name, value in saved["progress"].items():
        if name != "num_steps":
            setattr(progress, name, value)


def _as_text(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has neither NaN nor infinity, and a loss that is no number is not the best one.
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}

"""Where faulty runs are made: the standard run, its variants, and what they come to unhurt."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fault_injection.harness import Run, Zygote

STANDARD: dict[str, Any] = {
    "output_dir": "out",
    "template": "chatml",
    "lora_rank": 4,
    "lora_dropout": 0.1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "cutoff_len": 96,
    "packing": True,
    "packing_window": 16,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "max_steps": 12,
    "save_steps": 2,
    "save_total_limit": 2,
    "eval_steps": 3,
    "logging_steps": 3,
    "bf16": False,
}
"""More than one epoch of packed rows, with dropout. Checkpoints lie inside of packing windows,
between lines of the log and between evaluations; the best and the newest are kept."""

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"finetuning_type": "full", "lora_rank": None, "lora_dropout": None},
    "workers": {"packing": False, "packing_window": None, "dataloader_num_workers": 2},
    "background": {"save_in_background": True},
    "freeze": {
        "finetuning_type": "freeze",
        "freeze_trainable_layers": 1,
        "lora_rank": None,
        "lora_dropout": None,
    },
}
"""Settings on top of the standard ones; None takes one out."""


@dataclass(frozen=True)
class Whole:
    """A run that nobody hurt."""

    run: Run
    outcome: dict[str, Any]
    seconds: float
    operations: list[str]


class Workshop:
    """Makes runs in numbered folders."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        """Let a child write the tiny model and its rows."""
        self.zygote = zygote
        self.folder = folder
        self.inputs = folder / "inputs"
        self._num_runs = 0
        self._wholes: dict[str, Whole] = {}
        self.inputs.mkdir(parents=True)
        maker = Run(zygote, self.inputs, {"output_dir": "."})
        child = maker.start_words([str(self.inputs)], module="fault_injection.inputs")
        if child.wait() != 0:
            raise RuntimeError(f"the inputs could not be made:\n{child.text()}")
        # Prepares the rows, so that no later run of these differs from the next in that.
        self.whole(max_steps=1)

    def run(self, **settings: Any) -> Run:
        """Return a run that has not started.

        Args:
            settings: On top of the standard ones; None takes one out.
        """
        files = {
            "model_name_or_path": str(self.inputs / "model"),
            "train_file": str(self.inputs / "rows.jsonl"),
            "val_file": str(self.inputs / "val.jsonl"),
            "prepared_dir": str(self.inputs / "prepared"),
        }
        values = {**files, **STANDARD, **settings}
        given = {name: value for name, value in values.items() if value is not None}
        return Run(self.zygote, self._new_folder(), given)

    def whole(self, **settings: Any) -> Whole:
        """Return the run of these settings that nobody hurts; it is made once.

        Raises:
            RuntimeError: It does not end well.
        """
        key = json.dumps(settings, sort_keys=True)
        if key not in self._wholes:
            run = self.run(**settings)
            if run.train() != 0:
                raise RuntimeError(f"the run without a fault failed:\n{run.said()}")
            (child,) = run.children
            self._wholes[key] = Whole(run, run.outcome(), child.seconds(), child.operations())
        return self._wholes[key]

    def copy_of(self, run: Run) -> Run:
        """Return a run in another folder that stands where this one stands."""
        copy = replace(run, root=self._new_folder(), children=[])
        shutil.copytree(run.folder, copy.folder)
        return copy

    def _new_folder(self) -> Path:
        self._num_runs += 1
        return self.folder / f"{self._num_runs:04d}"

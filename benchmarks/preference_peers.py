"""TRL's DPOTrainer for preference.py, as a process of its own.

    python benchmarks/preference_peers.py CASE.json

In: a case (model folder, pairs as text, their order, settings). Out: `measured.json` in the case's
folder, with seconds and tokens of each step, losses and rewards, and the adapter beside it. It runs
in the peers' environment, so nothing of luthier is imported here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from throughput_peers import StepCounter, lora_of, settings_of
from transformers import set_seed

PARTS = ("prompt", "chosen", "rejected")
LOGGED = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}


class PolicyCounter(StepCounter):
    """Counts what the policy is given: the reference reads the same pairs, without gradient."""

    def _count(self, _model: torch.nn.Module, _args: Any, given: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            super()._count(_model, _args, given)


def check_tokens(found: Iterable[Any], pairs: list[dict[str, Any]]) -> None:
    """Compare the ids that TRL made with those that luthier made.

    Raises:
        SystemExit: They differ.
    """
    for number, (row, pair) in enumerate(zip(found, pairs, strict=True)):
        for part in PARTS:
            if row[f"{part}_ids"] != pair[f"{part}_ids"]:
                sys.exit(f"pair {number}: TRL's tokens of {part} aren't luthier's")


def main() -> None:
    """Train one case and write what was measured."""
    from trl import DPOConfig, DPOTrainer

    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(case["rows"]).open(encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    pairs = [pairs[number] for number in case["order"]]
    set_seed(case["seed"])
    counter = PolicyCounter()
    chosen = {**settings_of(case), "bf16": case["precision"] == "bf16", **case["trl"]}
    trainer = DPOTrainer(
        model=case["model"],
        args=DPOConfig(**chosen),
        train_dataset=Dataset.from_list([{part: pair[part] for part in PARTS} for pair in pairs]),
        peft_config=lora_of(case),
        callbacks=[counter],
    )
    check_tokens(trainer.train_dataset, pairs)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    on_gpu = case["device"] == "cuda"
    measured = {
        "steps": [
            {**step, **{name: log[key] for key, name in LOGGED.items()}}
            for step, log in zip(counter.steps, logs, strict=True)
        ],
        "gpu_bytes": torch.cuda.max_memory_reserved() if on_gpu else 0,
    }
    folder = Path(case["folder"])
    trainer.save_model(str(folder / "model"))
    (folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()

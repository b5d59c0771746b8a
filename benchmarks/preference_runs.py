"""Contestants of preference.py as processes of their own: how each runs, what it took and learned.

In: what all are given (`Inputs`) and which contestant. Out: `result.json` in the run's folder, with
seconds and tokens of each step, the largest resident memory of the process, and what the trained
adapter makes of held-out pairs. Nothing here loads torch, as in `throughput_runs.py`.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from throughput_runs import (
    HERE,
    BenchmarkError,
    Contestant,
    Inputs,
    Run,
    luthier_settings,
    peer_case,
    read_luthier,
    run_luthier,
    run_process,
    write_case,
)

BETA = 0.1
TRL_COMMON = {
    "beta": BETA,
    # The rows stand in luthier's order: both take the same pairs in the same steps.
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
}
PRECOMPUTED = {**TRL_COMMON, "precompute_ref_log_probs": True}
LUTHIER = {
    "stage": "dpo",
    "pref_loss": "sigmoid",
    "pref_beta": BETA,
    "packing": "padding_free",
}
CONTESTANTS = (
    Contestant("trl-defaults", "TRL at its defaults", "trl", TRL_COMMON),
    Contestant("trl-precomputed", "TRL, reference precomputed", "trl", PRECOMPUTED),
    Contestant(
        "trl-tuned",
        "TRL tuned (precomputed, no checkpointing, frozen weights in bf16)",
        "trl",
        {
            **PRECOMPUTED,
            "gradient_checkpointing": False,
            "model_init_kwargs": {"dtype": "bfloat16"},
        },
    ),
    Contestant("luthier", "luthier", "luthier", LUTHIER),
)
"""All, in the order of the table."""

Pairs = list[dict[str, Any]]


def measure_run(run: Run, inputs: Inputs, python: str, learning_rate: float) -> dict[str, Any]:
    """Train one contestant and measure it; `result.json` in its folder holds what is returned.

    Args:
        run: Which contestant, and how.
        inputs: What all are given.
        python: The interpreter that has its packages.
        learning_rate: The highest one; it falls to 0 in a line.

    Raises:
        BenchmarkError: It failed, or was given other tokens than those of its pairs.
    """
    folder = inputs.folder / run.key
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pairs = read_lines(inputs.folder / "train-pairs.jsonl")
    batches = batch_order(pairs, inputs.batch_rows, run.seed)
    if run.contestant.system == "luthier":
        usage = run_luthier(dpo_settings(run, inputs, learning_rate), folder, inputs)
        measured = read_luthier(folder / "model")
        add_logged(measured["steps"], read_lines(folder / "model" / "metrics.jsonl"))
        read = [sum(pairs[number]["read"] for number in batch) for batch in batches]
    else:
        case = {
            **peer_case(run, inputs, folder),
            "rows": str(inputs.folder / "train-pairs.jsonl"),
            "order": [number for batch in batches for number in batch],
            "learning_rate": learning_rate,
        }
        case["trl"] = {**run.contestant.settings, "max_length": inputs.cutoff_len}
        command = [python, str(HERE / "preference_peers.py"), str(write_case(folder, case))]
        usage = run_process(command, folder / "log.txt", inputs)
        measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
        read = [sum(separate_tokens(pairs[number]) for number in batch) for batch in batches]
    check_tokens(measured["steps"], read)
    for step, batch in zip(measured["steps"], batches, strict=True):
        step["tokens"] = sum(separate_tokens(pairs[number]) for number in batch)
    result = {
        "round": run.number,
        "contestant": run.contestant.name,
        "tuning": run.tuning,
        **measured,
        "memory_bytes": measured["gpu_bytes"] or usage.peak_bytes,
        "wall_s": usage.wall_s,
        "others": usage.others,
        "heldout": held_out(folder, inputs),
    }
    # Weights take much room, and all that is asked of them is known by now.
    for name in ("model", "prepared", "trainer"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def dpo_settings(run: Run, inputs: Inputs, learning_rate: float) -> dict[str, Any]:
    """Return the settings of `luthier train`: those of TRL, in luthier's names."""
    return {
        **luthier_settings(run, inputs),
        "learning_rate": learning_rate,
        "per_device_train_batch_size": inputs.batch_rows,
        # A folder of its own, or the second round would find the reference's numbers computed.
        "prepared_dir": str(inputs.folder / run.key / "prepared"),
    }


def batch_order(pairs: Pairs, batch_rows: int, seed: int) -> list[list[int]]:
    """Return the numbers of the pairs of each step, as luthier takes them in its first epoch."""
    from luthier.batches.sampling import epoch_batches

    return epoch_batches([pair["read"] for pair in pairs], batch_rows, seed, epoch=0)


def separate_tokens(pair: dict[str, Any]) -> int:
    """Return the tokens of a pair as two passes read them: the prompt twice, both answers once."""
    prompt, chosen, rejected = (len(pair[f"{p}_ids"]) for p in ("prompt", "chosen", "rejected"))
    return 2 * prompt + chosen + rejected


def check_tokens(steps: Sequence[dict[str, float]], read: Sequence[int]) -> None:
    """Compare what a model was given with what the pairs of each step have.

    Raises:
        BenchmarkError: They differ: these were other pairs, or they were cut.
    """
    given = [step["tokens"] for step in steps]
    if given != list(read):
        raise BenchmarkError(f"the steps read {given} tokens; their pairs have {list(read)}")


def add_logged(steps: Sequence[dict[str, float]], logs: Pairs) -> None:
    """Add loss, accuracy and margin of each step of `luthier train`, as its log has them."""
    for step, log in zip(steps, (log for log in logs if log["kind"] == "train"), strict=True):
        step["loss"] = log["loss"]
        step["accuracy"] = log["rewards/accuracies"]
        step["margin"] = log["rewards/margins"]


def held_out(folder: Path, inputs: Inputs) -> dict[str, float]:
    """Return what the adapter of a run makes of held-out pairs: see `rewards`."""
    policy = scores(str(folder / "model"), folder, inputs)
    reference = scores(inputs.model, inputs.folder / "before", inputs)
    return rewards(policy, reference)


def scores(model: str, folder: Path, inputs: Inputs) -> list[list[float]]:
    """Return the log-probabilities that a model gives held-out answers, or find them computed."""
    path = folder / "log_probs.json"
    if not path.is_file():
        folder.mkdir(exist_ok=True)
        case = {
            "model": model,
            "pairs": str(inputs.folder / "heldout-pairs.jsonl"),
            "folder": str(folder),
            "device": inputs.device,
        }
        run_job("score", case, inputs)
    return json.loads(path.read_text(encoding="utf-8"))


def rewards(
    policy: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Compare two models' log-probabilities of chosen and rejected answers.

    Returns:
        Means over pairs: `accuracy` (the chosen answer has the higher reward; of equal ones, half
        count), `margin` and DPO's `loss`. Of the reference itself: 0.5, 0 and log 2.
    """
    margins = [
        BETA * ((ours[0] - its[0]) - (ours[1] - its[1]))
        for ours, its in zip(policy, reference, strict=True)
    ]
    right = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    losses = [max(-margin, 0.0) + math.log1p(math.exp(-abs(margin))) for margin in margins]
    means = [sum(values) / len(margins) for values in (right, margins, losses)]
    return dict(zip(("accuracy", "margin", "loss"), means, strict=True))


def run_job(job: str, case: dict[str, Any], inputs: Inputs) -> None:
    """Run a job of `preference_inputs.py` in luthier's environment."""
    folder = Path(case["folder"])
    command = [sys.executable, str(HERE / "preference_inputs.py"), job]
    run_process([*command, str(write_case(folder, case))], folder / f"{job}.log", inputs)


def read_lines(path: Path) -> Pairs:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

"""Settings changed on the way: refused with a diff; where allowed, each row is trained on once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fault_injection.harness import Run
from fault_injection.inputs import write_rows
from fault_injection.report import Report
from fault_injection.workshop import Workshop
from luthier.checkpoints.listing import newest_good

REFUSED = 5


def stopped(workshop: Workshop, **settings: Any) -> Run:
    """Return a run that was killed in its fifth step."""
    run = workshop.run(**settings)
    assert run.train(faults=[{"function": "clip_gradients", "call": 5, "do": "SIGKILL"}]) == -9
    return run


def fitting(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without a packing window where no window is packed."""
    return settings if settings["packing"] is True else {**settings, "packing_window": None}


@pytest.fixture(scope="module")
def stopped_run(workshop: Workshop) -> Run:
    """A run that was killed, to be copied."""
    return stopped(workshop)


DATA = "data (files, template and their settings, as a hash): "
CHANGES = [
    (["--gradient_accumulation_steps", "2"], "gradient_accumulation_steps: 4 -> 2"),
    (["--seed", "7"], "seed: 42 -> 7"),
    (["--cutoff_len", "64"], DATA),
]
MORE_CHANGES = [
    (["--per_device_train_batch_size", "2"], "per_device_train_batch_size: 1 -> 2"),
    (["--packing_window", "8"], "packing_window: 16 -> 8"),
    (["--learning_rate", "0.1"], "learning_rate: 0.01 -> 0.1"),
    (["--lr_scheduler_type", "linear"], "lr_scheduler_type: cosine -> linear"),
    (["--max_steps", "20"], "max_steps: 12 -> 20"),
    (["--template", "llama3"], DATA),
    (["--lora_rank", "2"], "lora_rank: 4 -> 2"),
    (["--model_name_or_path", "poisoned"], "model_name_or_path: "),
]


@pytest.mark.parametrize(
    ("flags", "line"),
    [*CHANGES, *(pytest.param(*change, marks=pytest.mark.slow) for change in MORE_CHANGES)],
    ids=str,
)
def test_what_changes_the_mathematics_is_refused(
    workshop: Workshop, stopped_run: Run, flags: list[str], line: str, report: Report
):
    run = workshop.copy_of(stopped_run)
    before = run.outcome()
    flags = [str(workshop.inputs / flag) if flag == "poisoned" else flag for flag in flags]
    assert run.train("--resume_from_checkpoint", *flags) == REFUSED
    assert "this checkpoint was made with other settings: " in run.said()
    assert line in run.said()
    assert run.outcome() == before
    report("a setting changed on resume", run.children[-1].line(line))


def test_other_rows_are_refused(workshop: Workshop, tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", 40)
    run = stopped(workshop, train_file=str(tmp_path / "rows.jsonl"))
    write_rows(tmp_path / "rows.jsonl", 41)
    assert run.train("--resume_from_checkpoint") == REFUSED
    assert "data (files, template and their settings, as a hash): " in run.said()
    assert "--allow_change data" in run.said()


@pytest.mark.parametrize(
    ("start", "change"),
    [
        ({"packing": False}, {"per_device_train_batch_size": 2}),
        pytest.param(
            {"packing": False}, {"gradient_accumulation_steps": 3}, marks=pytest.mark.slow
        ),
        ({"packing": True}, {"packing": False}),
        pytest.param({"packing": False}, {"group_by_length": True}, marks=pytest.mark.slow),
        pytest.param({"packing": True}, {"packing_window": 8}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_with_a_change_that_is_allowed_each_row_is_seen_once(
    workshop: Workshop,
    tmp_path: Path,
    start: dict[str, Any],
    change: dict[str, Any],
    report: Report,
):
    """No row of this run has a number for its loss, so events.jsonl names the rows of each step."""
    path = tmp_path / "rows.jsonl"
    write_rows(path, 40, poisoned=range(40))
    settings: dict[str, Any] = {
        "model_name_or_path": str(workshop.inputs / "poisoned"),
        "train_file": str(path),
        "max_steps": None,
        "num_train_epochs": 1,
        "val_file": None,
        "eval_steps": None,
        "max_nonfinite_steps": 1000,
        **start,
    }
    run = stopped(workshop, **fitting(settings))
    changed = fitting({**run.settings, **change})
    run.settings = {name: value for name, value in changed.items() if value is not None}
    # The message of the refusal names all that is to be allowed.
    assert run.train("--resume_from_checkpoint") == REFUSED
    names = run.said().partition("--allow_change ")[2].strip()
    assert set(change) <= set(names.split(","))
    code = run.train("--resume_from_checkpoint", "--allow_change", names)
    assert code == 0, run.said()
    account = run.children[-1].line("of this epoch's 40 rows were trained on before")
    assert account
    seen = Counter(row["row"] for e in run.outcome()["events"] for row in e["rows"])
    assert seen == Counter(range(40))
    newest, _ = newest_good(run.folder)
    assert newest is not None
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    assert state["progress"]["num_rows_seen"] == 40
    report("a setting changed with --allow_change", account)

"""kill -9 at any moment: the run goes on and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from fault_injection.report import Report
from fault_injection.scenarios import Trial, judge, kill_at_operations, kill_at_times
from fault_injection.workshop import VARIANTS, Workshop
from luthier.checkpoints.listing import inspect_checkpoints

Settings = dict[str, Any]

OTHERS = [name for name in VARIANTS if name != "lora"]
TAKEN_OVER = "its lock is taken over"


def one_of_each_kind(operations: Sequence[str]) -> list[int]:
    """Return the last operation of each kind: numbers and random parts of names make none."""
    kinds: dict[str, int] = {}
    for number, operation in enumerate(operations, start=1):
        event, path = operation.split(" ", 1)
        kinds[event + re.sub(r"[0-9a-f]{8,}|\d+", "N", path)] = number
    return sorted(kinds.values())


def at_times(workshop: Workshop, tries: int, seed: int, settings: Settings) -> str:
    """Kill runs at random times, and return what the user saw when one went on."""
    trials = list(kill_at_times(workshop, tries, seed, settings))
    assert [trial for trial in trials if trial.problems] == []
    assert len(trials) == tries
    return first_line(trials)


def at_operations(workshop: Workshop, numbers: Sequence[int], settings: Settings) -> str:
    """Kill runs before operations, and return what the user saw when one went on."""
    trials = list(kill_at_operations(workshop, numbers, settings))
    assert [trial for trial in trials if trial.problems] == []
    assert len(trials) == len(numbers) > 0
    return first_line(trials)


def first_line(trials: Sequence[Trial]) -> str:
    """Return the first notice of a lock: a run that dies early enough has none yet."""
    return next(filter(None, (trial.line(TAKEN_OVER) for trial in trials)), "")


def test_at_random_times(workshop: Workshop, report: Report):
    seen = at_times(workshop, 2, 0, {})
    report("kill -9 at a random time", seen, tries=2)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "tries"), [("lora", 50), *((name, 10) for name in OTHERS)])
def test_at_many_random_times(workshop: Workshop, variant: str, tries: int, report: Report):
    seen = at_times(workshop, tries, 1, VARIANTS[variant])
    report("kill -9 at a random time", seen, tries=tries)


def test_before_some_operations(workshop: Workshop, report: Report):
    numbers = one_of_each_kind(workshop.whole().operations)[::20]
    seen = at_operations(workshop, numbers, {})
    report("kill -9 before a file operation", seen, tries=len(numbers))


@pytest.mark.slow
def test_before_every_operation(workshop: Workshop, report: Report):
    numbers = range(1, len(workshop.whole().operations) + 1)
    seen = at_operations(workshop, numbers, {})
    report("kill -9 before a file operation", seen, tries=len(numbers))


@pytest.mark.slow
@pytest.mark.parametrize("variant", OTHERS)
def test_before_an_operation_of_each_kind(workshop: Workshop, variant: str, report: Report):
    settings = VARIANTS[variant]
    numbers = one_of_each_kind(workshop.whole(**settings).operations)
    seen = at_operations(workshop, numbers, settings)
    report("kill -9 before a file operation", seen, tries=len(numbers))


@pytest.mark.parametrize("stride", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_before_operations_of_the_start(workshop: Workshop, stride: int, report: Report):
    """The rows are prepared in a folder that these operations make."""
    settings = {"prepared_dir": "prepared", "max_steps": 2, "eval_steps": 2}
    run = workshop.run(**settings)
    assert run.train() == 0, run.said()
    operations = run.children[0].operations()
    begins = next(i for i, operation in enumerate(operations) if "step-000002" in operation)
    assert any("/prepared/" in operation for operation in operations[:begins])
    outcome, numbers = run.outcome(), range(1, begins, stride)
    for number in numbers:
        hurt = workshop.run(**settings)
        assert hurt.train(kill_at=number) == -signal.SIGKILL
        hurt.go_on()
        assert hurt.outcome() == outcome, operations[number - 1]
        assert hurt.leftovers() == [], operations[number - 1]
    report("kill -9 while the data is prepared and the run starts", "", tries=len(numbers))


@pytest.mark.parametrize("stride", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_while_an_earlier_run_is_removed(workshop: Workshop, stride: int, report: Report):
    whole = workshop.whole()
    first = workshop.copy_of(whole.run)
    assert first.train("--overwrite_output_dir") == 0, first.said()
    operations = first.children[0].operations()
    is_done = next(i for i, operation in enumerate(operations) if ".staging-run.yaml" in operation)
    assert sum("out/checkpoints" in operation for operation in operations[:is_done]) > 8
    numbers = range(1, is_done + 1, stride)
    for number in numbers:
        run = workshop.copy_of(whole.run)
        assert run.train("--overwrite_output_dir", kill_at=number) == -signal.SIGKILL
        assert run.train("--overwrite_output_dir") == 0, run.said()
        assert judge(run, whole) == (), operations[number - 1]
    report("kill -9 while an earlier run is removed", "", tries=len(numbers))


@pytest.mark.slow
def test_again_and_again(workshop: Workshop):
    """Each start is killed a little later than the one before; every one of them gets on."""
    whole = workshop.whole()
    run = workshop.run()
    for step in (3, 5, 7, 11):
        found = inspect_checkpoints(run.folder)
        done, flags = (found[-1].step, ["--resume_from_checkpoint"]) if found else (0, [])
        fault = {"function": "clip_gradients", "call": step - done, "do": "SIGKILL"}
        assert run.train(*flags, faults=[fault]) == -signal.SIGKILL, run.said()
    run.go_on()
    assert judge(run, whole) == ()

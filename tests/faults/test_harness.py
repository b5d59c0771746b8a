"""The fault suite's own tools: a fault strikes where it should, and a difference is seen."""

from __future__ import annotations

import os
import signal

import pytest

from fault_injection.harness import WAIT_S, Zygote
from fault_injection.scenarios import send
from fault_injection.workshop import Workshop


def test_the_process_that_forks_has_one_thread(zygote: Zygote):
    assert zygote.num_threads == 1


def test_a_run_without_a_fault_is_the_same_twice(workshop: Workshop):
    whole = workshop.whole()
    assert whole.outcome["progress"]["step"] == 12
    assert 1 < whole.outcome["progress"]["epoch"] < 3
    again = workshop.run()
    assert again.train() == 0, again.said()
    assert again.outcome() == whole.outcome
    assert again.leftovers() == []
    (child,) = again.children
    assert len(child.operations()) == len(whole.operations)


def test_another_seed_is_seen_as_a_difference(workshop: Workshop):
    whole = workshop.whole()
    other = workshop.run(seed=1)
    assert other.train() == 0, other.said()
    differs = {name for name, value in other.outcome().items() if value != whole.outcome[name]}
    assert {"tensors", "metrics"} <= differs


def test_a_run_dies_right_before_the_operation_that_was_named(workshop: Workshop):
    whole = workshop.whole()
    number = next(
        place
        for place, operation in enumerate(whole.operations, start=1)
        if operation.startswith("os.rename") and "step-000004" in operation
    )
    run = workshop.run()
    assert run.train(kill_at=number) == -signal.SIGKILL
    (child,) = run.children
    assert len(child.operations()) == number
    names = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert names[-1] == "step-000002"
    assert names[0].startswith(".staging-step-000004-")


def test_a_signal_comes_at_the_call_that_was_named(workshop: Workshop):
    run = workshop.run()
    fault = {"function": "clip_gradients", "call": 3, "do": "SIGKILL"}
    assert run.train("--logging_steps", "1", faults=[fault]) == -signal.SIGKILL
    assert "step     2 " in run.said()
    assert "step     3 " not in run.said()


def test_a_child_that_does_not_end_is_said_to_hang(workshop: Workshop):
    run = workshop.run()
    fault = {"function": "clip_gradients", "call": 1, "do": "SIGSTOP"}
    child = run.start(faults=[fault])
    child.wait_for("step     0 ")
    with pytest.raises(TimeoutError, match="still runs after"):
        child.wait(timeout_s=0.5)
    send(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_a_dead_process_that_forks_is_said_to_be_dead():
    started = Zygote()
    os.kill(started.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the process that forks died, exit code -9"):
        started.end_of(1, WAIT_S)
    with pytest.raises(RuntimeError, match="the process that forks died, exit code -9"):
        started.start()

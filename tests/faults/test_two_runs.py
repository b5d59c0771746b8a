"""Two runs in one folder: the second is refused; a dead one's lock is in nobody's way."""

from __future__ import annotations

import signal

import pytest

from fault_injection.report import Report
from fault_injection.scenarios import judge, send
from fault_injection.workshop import Workshop

REFUSED = 5


@pytest.mark.parametrize(
    "flag",
    [
        "--overwrite_output_dir",
        pytest.param("--resume_from_checkpoint", marks=pytest.mark.slow),
        pytest.param(None, marks=pytest.mark.slow),
    ],
)
def test_the_second_is_refused_and_the_first_goes_on(
    workshop: Workshop, flag: str | None, report: Report
):
    whole = workshop.whole()
    run = workshop.run()
    first = run.start(faults=[{"function": "clip_gradients", "call": 5, "do": "SIGSTOP"}])
    first.wait_for("step-000004")
    second = run.start(*([flag] if flag else []))
    assert second.wait() == REFUSED
    if flag is not None:
        assert f"another process is writing here: process {first.pid} on " in second.text()
        assert "Loading" not in second.text()
    send(first.pid, signal.SIGCONT)
    assert first.wait() == 0, first.text()
    assert judge(run, whole) == ()
    report("a second run in the folder of a running one", second.line("another process"))


def test_two_that_start_at_once(workshop: Workshop):
    whole = workshop.whole()
    run = workshop.run()
    both = [run.start(), run.start()]
    codes = sorted(child.wait() for child in both)
    assert codes == [0, REFUSED], [child.text() for child in both]
    refused = next(child for child in both if child.wait() == REFUSED)
    reasons = ("another process is writing here", "output_dir holds a run already")
    assert any(reason in refused.text() for reason in reasons), refused.text()
    assert judge(run, whole) == ()


def test_the_lock_of_a_dead_process_is_taken_over(workshop: Workshop, report: Report):
    whole = workshop.whole()
    run = workshop.run()
    fault = {"function": "clip_gradients", "call": 5, "do": "SIGKILL"}
    dead = run.start(faults=[fault])
    assert dead.wait() == -signal.SIGKILL
    child = run.go_on()
    assert f"The process that trained here died (process {dead.pid} on " in child.text()
    assert "its lock is taken over" in child.text()
    assert judge(run, whole) == ()
    report("the lock of a dead process", child.line("its lock is taken over"))


@pytest.mark.slow
def test_a_worker_that_outlives_its_run_holds_no_lock(workshop: Workshop):
    settings = {"packing": False, "packing_window": None, "dataloader_num_workers": 2}
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    faults = [
        {"function": "Precision.backward", "call": 20, "do": "worker=SIGSTOP"},
        {"function": "clip_gradients", "call": 5, "do": "SIGKILL"},
    ]
    child = run.start(faults=faults)
    assert child.wait() == -signal.SIGKILL
    run.go_on()
    assert judge(run, whole) == ()
    send(child.pid, signal.SIGKILL, to_group=True)

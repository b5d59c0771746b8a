"""A loader worker that dies or hangs: said by name, and the run goes on from its checkpoint."""

from __future__ import annotations

import signal

import pytest

from fault_injection.report import Report
from fault_injection.scenarios import judge, send
from fault_injection.workshop import VARIANTS, Workshop

FAILED = 5


def hurt_worker(workshop: Workshop, signal_name: str) -> str:
    settings = VARIANTS["workers"]
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    fault = {"function": "Precision.backward", "call": 14, "do": f"worker={signal_name}"}
    code = run.train(faults=[fault])
    send(run.children[-1].pid, signal.SIGKILL, to_group=True)  # What is stopped would stay.
    assert code == FAILED, run.said()
    verb = "died" if signal_name == "SIGKILL" else "hangs"
    assert f"error: a worker process that builds batches {verb}: " in run.said()
    assert "Go on with --resume_from_checkpoint" in run.said()
    assert "Traceback" not in run.said()
    seen = run.children[-1].line("error: a worker process")
    run.go_on()
    assert judge(run, whole) == ()
    return seen


def test_a_worker_that_is_killed(workshop: Workshop, report: Report):
    report("kill -9 of a loader worker", hurt_worker(workshop, "SIGKILL"))


@pytest.mark.slow
def test_a_worker_that_hangs(workshop: Workshop, report: Report):
    report("a loader worker that hangs (SIGSTOP)", hurt_worker(workshop, "SIGSTOP"))

"""The thread beside training: one job, its error handed over, and a process that waits for it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from luthier.checkpoints.background import Background

LONG_S = 60.0


def test_a_job_runs_beside_the_caller() -> None:
    background, held, ran_in = Background(), threading.Event(), list[str]()

    def job() -> None:
        held.wait(LONG_S)
        ran_in.append(threading.current_thread().name)

    background.start(job)
    assert background.is_busy
    background.wait(0.0)
    assert ran_in == []
    held.set()
    background.wait(LONG_S)
    assert not background.is_busy
    assert ran_in == ["checkpoint-writer"]
    background.raise_error()


def test_its_error_is_raised_once_and_where_it_is_asked_for() -> None:
    background = Background()

    def job() -> None:
        raise ZeroDivisionError("in the job")

    background.start(job)
    background.wait(LONG_S)
    with pytest.raises(ZeroDivisionError, match="in the job"):
        background.raise_error()
    background.raise_error()
    done = list[int]()
    background.start(lambda: done.append(1))
    background.wait(LONG_S)
    assert done == [1]


def test_without_a_job_there_is_nothing_to_wait_for() -> None:
    background = Background()
    background.wait(LONG_S)
    assert not background.is_busy


ENDS = """
import sys, threading
from luthier.checkpoints.background import Background
started, main = threading.Event(), threading.main_thread()

def job():
    started.set()
    while main.is_alive():  # The job outlives the last line of the program.
        threading.Event().wait(0.01)
    print("written", flush=True)

Background().start(job)
started.wait()
"""


def test_a_process_that_ends_waits_for_the_job() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, check=True)
    assert done.stdout == "written\n"

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError, LuthierError
from luthier.corpus.runners import InProcess, Processes, Runner, default_runner


def slow_square(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)
    return number * number


def own_process(_item: Any) -> int:
    return os.getpid()


def refuse(item: str) -> str:
    raise DataError("this can't be used", where=item, mend="Mend it.")


def die(_item: Any) -> None:
    os._exit(9)


@pytest.mark.parametrize("runner", [InProcess(), Processes(2)])
def test_results_come_in_the_order_of_the_items(runner: Runner):
    assert list(runner.map(slow_square, range(20))) == [n * n for n in range(20)]


@pytest.mark.parametrize("runner", [InProcess(), Processes(2)])
def test_nothing_to_do(runner: Runner):
    assert list(runner.map(slow_square, [])) == []


@pytest.mark.parametrize("runner", [InProcess(), Processes(2)])
def test_an_error_arrives_whole(runner: Runner):
    with pytest.raises(DataError, match="can't be used") as caught:
        list(runner.map(refuse, ["a.jsonl:7"]))
    assert caught.value.where == "a.jsonl:7"
    assert caught.value.mend == "Mend it."


def test_processes_are_others():
    assert os.getpid() not in set(Processes(2).map(own_process, range(4)))
    assert set(InProcess().map(own_process, range(4))) == {os.getpid()}


def test_a_worker_that_dies_is_said():
    with pytest.raises(LuthierError, match=r"worker process died(.|\n)*preprocessing_num_workers"):
        list(Processes(2).map(die, range(4)))


def test_one_worker_is_this_process():
    assert default_runner(1) == InProcess()
    assert default_runner(3) == Processes(3)


def test_without_a_number_there_is_one_for_each_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert default_runner(None) == Processes(4)


def test_a_generator_left_early_ends_its_workers(tmp_path: Path):
    results: Any = Processes(2).map(slow_square, range(1000))
    assert next(results) == 0
    results.close()
    assert list(results) == []

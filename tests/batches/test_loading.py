"""Worker processes that die or hang are named, and are not waited for."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from luthier.batches import loading
from luthier.batches.loading import make_loader, worker_errors
from luthier.batches.settings import BatchSettings
from luthier.core.errors import RunError


class Rows:
    """Rows of which one does something to the process that reads it."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> int:
        if row == 2:
            self.act()
        return row


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(600)


def read(act: Any) -> list[Any]:
    settings = BatchSettings(dataloader_num_workers=1)
    with worker_errors():
        collate: Any = list
        return list(make_loader(Rows(act), [[0], [1], [2], [3]], collate, settings))


def test_a_worker_that_is_killed() -> None:
    died = r"a worker process that builds batches died: DataLoader worker .*pid"
    with pytest.raises(RunError, match=died):
        read(die)


def test_a_worker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.WORKER_TIMEOUT_S < 30
    monkeypatch.setattr(loading, "WORKER_TIMEOUT_S", 1)
    with pytest.raises(RunError, match="builds batches hangs: DataLoader timed out") as caught:
        read(hang)
    assert caught.value.mend is not None
    assert "dataloader_num_workers" in caught.value.mend


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), worker_errors():
        raise RuntimeError("something else")
    assert read(lambda: None) == [[0], [1], [2], [3]]

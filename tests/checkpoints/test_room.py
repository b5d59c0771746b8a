"""Room on the disk: asked for before, missed in the middle, waited for, given up."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from luthier.checkpoints.room import MARGIN_BYTES, NoRoomError, Room
from luthier.contracts.notice import Notice
from luthier.core.errors import RunError
from luthier.core.units import MIB


class Stop:
    """A request that a test makes."""

    requested = False
    has_work = True

    def take_checkpoint_request(self) -> bool:
        return False


@pytest.fixture
def set_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk have so many free bytes."""
    usage = shutil.disk_usage(tmp_path)

    def set_free(num_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=num_bytes))

    return set_free


def never_told(notice: Notice) -> None:
    pytest.fail(str(notice))


def test_it_is_written_where_there_is_room(tmp_path: Path, set_free: Callable[[int], None]) -> None:
    set_free(MARGIN_BYTES + 100)
    done: list[str] = []
    Room(tmp_path / "new").write(lambda: done.append("written"), 100, never_told)
    assert done == ["written"]


def test_without_room_nothing_is_begun(tmp_path: Path, set_free: Callable[[int], None]) -> None:
    set_free(3 * MIB)
    with pytest.raises(
        NoRoomError,
        match=r"new: the disk has no room for the checkpoint: it needs 14.0 MiB, 3.0 MiB are free",
    ) as caught:
        Room(tmp_path / "new").write(lambda: pytest.fail("begun"), 10 * MIB, never_told)
    assert isinstance(caught.value, RunError)
    assert "earlier checkpoints are intact" in str(caught.value.mend)
    assert not (tmp_path / "new").exists()


RUST = (
    "Error while serializing: I/O error: No space left on device (os error {})",
    'Error while serializing: IoError(Os {{ code: {}, kind: StorageFull, message: "x" }})',
)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("rust", [None, *RUST], ids=["system", "display", "debug"])
def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path, number: int, rust: str | None) -> None:
    def write() -> None:
        if rust is not None:
            raise SafetensorError(rust.format(number))
        raise OSError(number, os.strerror(number))

    cause = "Error while serializing" if rust is not None else os.strerror(number)
    message = rf"no room for the checkpoint \({cause}.*\): it needs 4.0 MiB, .+ are free"
    with pytest.raises(NoRoomError, match=message):
        Room(tmp_path).write(write, 10, never_told)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        SafetensorError('Os { code: 13, kind: PermissionDenied, message: "Permission denied" }'),
        SafetensorError("Permission denied, and no number"),
    ],
)
def test_what_is_no_lack_of_room_is_not_waited_for(tmp_path: Path, error: Exception) -> None:
    def write() -> None:
        raise error

    message = r"the checkpoint could not be written: .*Permission denied.* \(.+ free\)"
    with pytest.raises(RunError, match=message) as caught:
        Room(tmp_path, "pause", retry_s=0.0).write(write, 10, never_told)
    assert not isinstance(caught.value, NoRoomError)


def test_a_pause_ends_once_there_is_room(tmp_path: Path, set_free: Callable[[int], None]) -> None:
    set_free(0)
    told: list[Notice] = []
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        if len(tries) < 4:  # The disk fills up while it is written, three times.
            raise OSError(errno.ENOSPC, "No space left on device")

    def tell(notice: Notice) -> None:
        told.append(notice)
        set_free(MARGIN_BYTES + 20)

    Room(tmp_path, "pause", retry_s=0.0).write(write, 10, tell)
    assert len(tries) == 4
    (notice,) = told
    assert notice.setting == "on_full_disk"
    assert "it needs 4.0 MiB, 0 B are free; the run waits for room in" in str(notice)


def test_a_request_to_stop_ends_the_pause(tmp_path: Path, set_free: Callable[[int], None]) -> None:
    set_free(0)
    stop = Stop()

    def tell(notice: Notice) -> None:
        stop.requested = True

    with pytest.raises(NoRoomError, match="no room"):
        Room(tmp_path, "pause", stop, retry_s=0.0).write(lambda: None, 10, tell)


ENDS = """
import shutil, sys
from pathlib import Path
from luthier.checkpoints.background import Background
from luthier.checkpoints.room import Room
usage = shutil.disk_usage("/")
shutil.disk_usage = lambda path: usage._replace(free=0)
room = Room(Path(sys.argv[1]), "pause", retry_s=0.01)
background = Background()

def write():
    try:
        room.write(lambda: None, 10, lambda notice: None)
    except Exception as error:
        print(type(error).__name__, flush=True)

background.start(write)
"""


def test_a_process_that_ends_waits_for_no_room(tmp_path: Path) -> None:
    """Else the thread would hold it for ever."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "NoRoomError\n"

"""What a store leaves on the disk: retention, full disks, errors beside training, kills."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier.checkpoints import snapshot as snapshot_module
from luthier.checkpoints.listing import FOLDER, list_checkpoints, newest_good
from luthier.checkpoints.manifest import MANIFEST, read_manifest, verify
from luthier.checkpoints.store import CheckpointStore
from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress
from luthier.core.errors import RunError
from luthier.core.files import STAGING_PREFIX
from luthier.core.units import MIB

Make = Callable[..., CheckpointStore]


@dataclass
class Stop:
    """A request that a test makes."""

    requested: bool = False
    has_work: bool = True

    def take_checkpoint_request(self) -> bool:
        return False


def write_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights.txt").write_text("weights" * 100)


def save_and_wait(store: CheckpointStore, step: int) -> None:
    store.save(Progress(step=step), {})
    store.wait()


def steps_of(run_folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(run_folder)]


def files_of(run_folder: Path) -> list[str]:
    return sorted(path.name for path in (run_folder / FOLDER).iterdir())


@pytest.mark.parametrize("background", [False, True])
def test_what_was_sealed_is_said_once(bare_store: Make, tmp_path: Path, background: bool) -> None:
    store = bare_store(save_in_background=background)
    assert store.sealed() == []
    store.save(Progress(step=1), {})
    store.save(Progress(step=2), {})
    store.wait()
    sealed = store.sealed()
    assert [(step, path) for step, path, _ in sealed] == [
        (step, str(tmp_path / FOLDER / f"step-{step:06d}")) for step in (1, 2)
    ]
    assert all(waited_s > 0 for _, _, waited_s in sealed)
    assert store.sealed() == []


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("best", [1, 2, 3, 4, 5])
def test_retention_keeps_the_best_and_the_newest(
    bare_store: Make, tmp_path: Path, limit: int, best: int
) -> None:
    store = bare_store(limit)
    future_s = time.time() + 1e6
    for step in range(1, 6):
        store.save(Progress(step=step), {"eval_loss": abs(step - best) + 1.0})
        found = steps_of(tmp_path)
        assert step in found, "the newest is never removed"
        best_so_far = min(range(1, step + 1), key=lambda seen: abs(seen - best))
        assert best_so_far in found, "nor is the best"
        # File times say nothing: each older checkpoint is dated in the future.
        for number, path in enumerate(list_checkpoints(tmp_path)):
            os.utime(path, (future_s - number, future_s - number))
            os.utime(path / MANIFEST, (future_s - number, future_s - number))
    newest = list(range(6 - limit, 6))
    expected = newest if best in newest else sorted({best, *newest[min(1, limit - 1) :]})
    assert steps_of(tmp_path) == expected
    assert not list((tmp_path / FOLDER).glob(f"{STAGING_PREFIX}*"))


def test_without_a_limit_all_are_kept(bare_store: Make, tmp_path: Path) -> None:
    for step in range(1, 5):
        bare_store().save(Progress(step=step), {})
    assert steps_of(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("limit", [1, 2])
def test_going_back_does_not_remove_what_is_written_next(
    bare_store: Make, tmp_path: Path, limit: int
) -> None:
    """A run that goes on from step 2 although 9 exists, perhaps because 9 is damaged."""
    bare_store().save(Progress(step=2), {})
    bare_store().save(Progress(step=9), {})
    store = bare_store(limit)
    for step in (3, 4):
        store.save(Progress(step=step), {})
        assert step in steps_of(tmp_path)
    assert len(steps_of(tmp_path)) == limit


def test_saving_a_step_again_replaces_it(bare_store: Make, tmp_path: Path) -> None:
    bare_store().save(Progress(step=1), {"eval_loss": 2.0})
    bare_store().save(Progress(step=1), {"eval_loss": 1.0})
    assert read_manifest(tmp_path / FOLDER / "step-000001")["metrics"] == {"eval_loss": 1.0}
    assert files_of(tmp_path) == ["step-000001"]


def test_an_error_that_is_not_the_disks_passes_and_leaves_nothing(
    bare_store: Make, tmp_path: Path
) -> None:
    def broken(folder: Path) -> None:
        write_model(folder)
        raise ZeroDivisionError

    bare_store().save(Progress(step=1), {})
    with pytest.raises(ZeroDivisionError):
        bare_store(writer=broken).save(Progress(step=2), {})
    assert files_of(tmp_path) == ["step-000001"]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("where", ["model", "optimizer", "manifest"])
def test_a_disk_that_fills_up_leaves_earlier_checkpoints_intact(
    bare_store: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    background: bool,
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bare_store(1).save(Progress(step=1), {})
    writer = full if where == "model" else write_model
    store = bare_store(1, writer, save_in_background=background)
    if where == "optimizer":
        monkeypatch.setattr(snapshot_module, "save_file", full)
    if where == "manifest":
        monkeypatch.setattr(snapshot_module, "seal", full)
    message = (
        r"no room for the checkpoint \(No space left on device\): it needs 4.0 MiB, .+ are free"
    )
    with pytest.raises(RunError, match=message) as caught:
        save_and_wait(store, 2)
    assert "earlier checkpoints are intact" in str(caught.value)
    verify(tmp_path / FOLDER / "step-000001")
    assert files_of(tmp_path) == ["step-000001"]
    assert store.sealed() == []


def test_room_is_looked_for_before_anything_is_written(
    bare_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_store().save(Progress(step=1), {})
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    store = bare_store(writer=lambda folder: pytest.fail("begun"))
    with pytest.raises(RunError, match=r"it needs 4.0 MiB, 3.0 MiB are free"):
        store.save(Progress(step=2), {})
    assert files_of(tmp_path) == ["step-000001"]
    assert newest_good(tmp_path)[0] == tmp_path / FOLDER / "step-000001"


@pytest.mark.parametrize("background", [False, True])
def test_a_pause_is_told_by_the_thread_that_trains(
    bare_store: Make, tmp_path: Path, background: bool
) -> None:
    told: list[tuple[Notice, threading.Thread]] = []
    has_room = threading.Event()

    def writer(folder: Path) -> None:
        if not has_room.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_model(folder)

    def tell(notice: Notice) -> None:
        told.append((notice, threading.current_thread()))
        has_room.set()

    options = {"tell": tell, "retry_s": 0.001}
    saving = {"on_full_disk": "pause", "save_in_background": background}
    store = bare_store(writer=writer, options=options, **saving)
    store.save(Progress(step=1), {})
    store.wait()
    ((notice, thread),) = told
    assert thread is threading.current_thread()
    assert "it needs 4.0 MiB" in str(notice)
    assert steps_of(tmp_path) == [1]


def test_a_request_to_stop_ends_a_pause_in_the_background(bare_store: Make, tmp_path: Path) -> None:
    stop = Stop(requested=True)

    def writer(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saving = {"on_full_disk": "pause", "save_in_background": True}
    store = bare_store(writer=writer, options={"stop": stop, "retry_s": 0.001}, **saving)
    store.save(Progress(step=1), {})
    with pytest.raises(RunError, match="no room"):
        store.save(Progress(step=2), {})
    assert files_of(tmp_path) == []


def test_one_is_written_at_a_time(bare_store: Make, tmp_path: Path) -> None:
    at_work: list[int] = []
    most: list[int] = []

    def writer(folder: Path) -> None:
        at_work.append(1)
        most.append(len(at_work))
        write_model(folder)
        at_work.pop()

    store = bare_store(writer=writer, save_in_background=True)
    for step in range(1, 6):
        store.save(Progress(step=step), {})
    store.wait()
    assert most == [1] * 5
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("ask", ["sealed", "wait", "save"])
def test_an_error_in_the_background_is_raised_by_the_next_call(
    bare_store: Make, tmp_path: Path, ask: str
) -> None:
    def broken(folder: Path) -> None:
        raise ZeroDivisionError("in the thread")

    store = bare_store(writer=broken, save_in_background=True)
    store.save(Progress(step=1), {})

    def ask_until_it_is_done() -> None:
        while True:
            assert store.sealed() == []

    calls = {
        "wait": store.wait,
        "save": lambda: store.save(Progress(step=2), {}),
        "sealed": ask_until_it_is_done,
    }
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        calls[ask]()
    store.wait()
    assert files_of(tmp_path) == []


KILLED = """
import os, shutil, signal, sys, warnings
from pathlib import Path
import torch
from luthier.checkpoints.listing import newest_good, remove_staging
from luthier.checkpoints.settings import CheckpointSettings
from luthier.checkpoints.store import CheckpointStore, RunState
from luthier.contracts.training import Progress
torch.set_num_threads(1)
warnings.simplefilter("ignore", DeprecationWarning)

class Batches:
    def get_state(self):
        return {}

class Model:
    num_bytes = 10
    def write(self, folder):
        folder.mkdir()
        (folder / "weights").write_text("w")

BOUNDARIES = {"open", "os.rename", "os.mkdir"}
REMOVALS = {"os.remove", "os.rmdir"}  # rmtree names files below an open folder

def save(root, step, loss, limit):
    state = RunState(torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))]), Batches(), None, {})
    settings = CheckpointSettings(save_total_limit=limit)
    CheckpointStore(root, state, lambda _: Model(), settings).save(
        Progress(step=step), {"eval_loss": loss})

def killed_at(number, root, step):
    # In a child: the process ends as by `kill -9` at the number-th touch of the disk.
    child = os.fork()
    if child == 0:
        seen = [0]
        def count(event, args):
            is_write = event in BOUNDARIES and str(root) in str(args[0])
            if is_write or event in REMOVALS:
                seen[0] += 1
                if seen[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        save(root, step, 9.0, 2)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0

def tries(name, step, expected):
    number = 1
    before = Path(sys.argv[1]) / name
    for earlier, loss in ((1, 1.0), (2, 3.0), (3, 2.0)):
        save(before, earlier, loss, None)
    while True:
        root = Path(sys.argv[1]) / f"{name}-{number}"
        shutil.copytree(before, root)
        was_killed = killed_at(number, root, step)
        remove_staging(root)
        left = sorted(path.name for path in (root / "checkpoints").iterdir())
        newest, problems = newest_good(root)
        assert problems == [], (number, problems)
        assert newest.name in expected, (number, newest)
        assert "step-000001" in left, (number, left)
        assert not [name for name in left if name.startswith(".")], left
        if not was_killed:
            assert left == sorted({"step-000001", f"step-{step:06d}"}), left
            return number - 1
        number += stride

stride = int(sys.argv[2])
print(tries("new", 4, {"step-000003", "step-000004"}), tries("again", 3, {"step-000003"}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_touch_of_the_disk_leaves_a_good_checkpoint(
    tmp_path: Path, stride: int
) -> None:
    """A new step, and a step that is written again: the best and a good newest always remain."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    new, again = map(int, done.stdout.split())
    assert new > 30
    assert again > 30


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from luthier.checkpoints.settings import CheckpointSettings
from luthier.checkpoints.store import CheckpointStore, RunState
from luthier.contracts.training import Progress

class Batches:
    def get_state(self):
        return {}

class Model:
    num_bytes = 0
    def write(self, folder):
        folder.mkdir()

def save(step, size):
    weight = torch.nn.Parameter(torch.zeros(size))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    state = RunState(optimizer, Batches(), None, {})
    store = CheckpointStore(Path(sys.argv[1]), state, lambda _: Model(), CheckpointSettings())
    store.save(Progress(step=step), {})

save(1, 10)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save(2, 100_000)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE as Linux has it")
def test_a_file_that_can_not_be_written_whole(tmp_path: Path) -> None:
    """safetensors reports a full disk by an error of its own, which is no OSError."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("NoRoomError"), done.stdout
    assert "File too large" in done.stdout
    assert "it needs 4.8 MiB, " in done.stdout
    assert files_of(tmp_path) == ["step-000001"]
    verify(tmp_path / FOLDER / "step-000001")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written(bare_store: Make, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="could not be written: Permission denied"):
            bare_store().save(Progress(step=1), {})
    finally:
        tmp_path.chmod(0o700)


def test_a_run_folder_that_is_a_file(bare_store: Make, tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(RunError, match=r"could not be written: .+ free\)"):
        bare_store().save(Progress(step=1), {})

"""A full disk, a file that may not grow, a closed folder: said plainly, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fault_injection.harness import Run
from fault_injection.report import Report
from fault_injection.scenarios import judge, send
from fault_injection.workshop import VARIANTS, Workshop
from luthier.checkpoints.listing import inspect_checkpoints

CLOSED = 5
SMALL_FILE = 20_000
"""Bytes: less than the optimiser's state, more than what a run writes of itself by then."""

BOTH_WAYS = pytest.mark.parametrize(
    "variant", ["lora", pytest.param("background", marks=pytest.mark.slow)]
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a disk is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, free_bytes: int) -> Path:
    """Leave so many bytes free, and return the file that takes the rest."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free_bytes))
    return ballast


LITTLE_TEXT = 4096
"""Bytes: less than run.yaml and manifest.json, more than what a run prints."""


def wait_until_stopped(pid: int) -> None:
    """Return once a process has got its SIGSTOP."""
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.002)


def at_call(function: str, call: int, what: str) -> dict[str, Any]:
    return {"function": function, "call": call, "do": what}


def names(run: Run) -> list[str]:
    found = inspect_checkpoints(run.folder)
    assert [checkpoint.problem for checkpoint in found] == [None] * len(found)
    return [checkpoint.path.name for checkpoint in found]


@BOTH_WAYS
def test_a_file_that_may_not_grow(workshop: Workshop, variant: str, report: Report):
    settings = VARIANTS[variant]
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    limit = at_call("CheckpointStore.save", 2, f"fsize={SMALL_FILE}")
    assert run.train(faults=[limit]) == CLOSED, run.said()
    assert "the disk has no room for the checkpoint (" in run.said()
    assert "it needs 4." in run.said()
    assert "are free" in run.said()
    assert "earlier checkpoints are intact" in run.said()
    assert "Traceback" not in run.said()
    assert names(run) == ["step-000002"]
    assert run.leftovers() == []
    seen = run.children[-1].line("the disk has no room")
    run.go_on()
    assert judge(run, whole) == ()
    report("a file that may not grow (RLIMIT_FSIZE) at a checkpoint", seen)


def test_a_disk_that_is_too_small(workshop: Workshop, small_disk: Path, report: Report):
    whole = workshop.whole()
    run = workshop.run(output_dir=str(small_disk / "out"))
    child = run.start(faults=[at_call("CheckpointStore.save", 2, "SIGSTOP")])
    child.wait_for("step-000002")
    wait_until_stopped(child.pid)
    ballast = fill(small_disk, 1_000_000)
    send(child.pid, signal.SIGCONT)
    assert child.wait() == CLOSED, child.text()
    assert "the disk has no room for the checkpoint: it needs 4." in child.text()
    assert "KiB are free" in child.text()
    assert names(run) == ["step-000002"]
    assert run.leftovers() == []
    ballast.unlink()
    run.go_on()
    assert judge(run, whole) == ()
    report("a full disk (tmpfs) at a checkpoint", child.line("the disk has no room"))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lora", "background"])
def test_a_run_that_waits_for_room_on_a_small_disk(
    workshop: Workshop, small_disk: Path, variant: str, report: Report
):
    settings = VARIANTS[variant] | {"on_full_disk": "pause"}
    whole = workshop.whole(**settings)
    run = workshop.run(**settings, output_dir=str(small_disk / "out"))
    child = run.start(faults=[at_call("CheckpointStore.save", 2, "SIGSTOP")])
    child.wait_for("step-000002")
    wait_until_stopped(child.pid)
    ballast = fill(small_disk, 1_000_000)
    send(child.pid, signal.SIGCONT)
    child.wait_for("the run waits for room")
    assert child.lives_after(0.5)
    ballast.unlink()
    assert child.wait() == 0, child.text()
    assert judge(run, whole) == ()
    report("a full disk with on_full_disk: pause, room made later", child.line("waits for room"))


def test_a_run_that_waits_until_its_files_may_grow(workshop: Workshop, report: Report):
    settings = {"on_full_disk": "pause"}
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    child = run.start(faults=[at_call("CheckpointStore.save", 2, f"fsize={SMALL_FILE}")])
    child.wait_for("the run waits for room")
    assert names(run) == ["step-000002"]
    _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert child.wait() == 0, child.text()
    assert judge(run, whole) == ()
    report("a full disk with on_full_disk: pause, room made later", child.line("waits for room"))


@pytest.mark.slow
def test_a_run_that_waits_for_room_can_be_stopped(workshop: Workshop):
    whole = workshop.whole(on_full_disk="pause")
    run = workshop.run(on_full_disk="pause")
    child = run.start(faults=[at_call("CheckpointStore.save", 2, f"fsize={SMALL_FILE}")])
    child.wait_for("the run waits for room")
    send(child.pid, signal.SIGTERM)
    assert child.wait() == CLOSED, child.text()
    assert "the disk has no room for the checkpoint" in child.text()
    assert names(run) == ["step-000002"]
    run.go_on()
    assert judge(run, whole) == ()


def test_no_room_for_the_final_model(workshop: Workshop, report: Report):
    whole = workshop.whole()
    run = workshop.run()
    limit = at_call("save_final_model", 1, "fsize=4096")
    assert run.train(faults=[limit]) == CLOSED, run.said()
    assert "the trained model could not be written" in run.said()
    assert "go on with --resume_from_checkpoint: the checkpoints are intact" in run.said()
    assert "Traceback" not in run.said()
    assert names(run)[-1] == "step-000012"
    seen = run.children[-1].line("could not be written")
    run.go_on()
    assert judge(run, whole) == ()
    report("no room for the final model", seen)


@pytest.mark.parametrize(
    ("function", "call"),
    [("write_run_yaml", 1), pytest.param("write_manifest", 2, marks=pytest.mark.slow)],
)
def test_no_room_for_the_run_s_own_notes(workshop: Workshop, function: str, call: int):
    """run.yaml and manifest.json are written outside of any checkpoint."""
    whole = workshop.whole()
    run = workshop.run()
    limit = at_call(function, call, f"fsize={LITTLE_TEXT}")
    assert run.train(faults=[limit]) == CLOSED, run.said()
    assert "error: the disk is full" in run.said()
    assert "Traceback" not in run.said()
    assert run.leftovers() == []
    run.go_on()
    assert judge(run, whole) == ()


def test_an_output_folder_that_can_not_be_made(workshop: Workshop, tmp_path: Path, report: Report):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    run = workshop.run(output_dir=str(tmp_path / "file" / "out"))
    assert run.train() == CLOSED
    assert f"{run.folder}: output_dir can't be written" in run.said()
    assert "Loading" not in run.said()
    report("an output folder that can't be made", run.children[-1].line("output_dir can't"))


def test_an_output_folder_whose_parents_are_missing_is_made(workshop: Workshop, tmp_path: Path):
    run = workshop.run(output_dir=str(tmp_path / "a" / "b" / "out"), max_steps=2)
    assert run.train() == 0, run.said()
    assert (run.folder / "adapter_model.safetensors").is_file()


def test_a_read_only_disk(workshop: Workshop, small_disk: Path, report: Report):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = workshop.run(output_dir=str(small_disk / "out"))
    assert run.train() == CLOSED
    assert "output_dir can't be written: Read-only file system" in run.said()
    assert "Loading" not in run.said()
    report("a read-only disk", run.children[-1].line("output_dir can't"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(workshop: Workshop, tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    run = workshop.run(output_dir=str(closed / "out"))
    assert run.train() == CLOSED
    assert "output_dir can't be written: Permission denied" in run.said()
    assert "Loading" not in run.said()

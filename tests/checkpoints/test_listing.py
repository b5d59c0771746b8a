"""Which checkpoints a run has: by step and manifest, whatever the file times say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.checkpoints.listing import (
    DOOMED_PREFIX,
    FOLDER,
    best_checkpoint,
    checkpoint_name,
    find_by_name,
    inspect_checkpoints,
    list_checkpoints,
    newest_good,
    remove_checkpoint,
    remove_staging,
)
from luthier.checkpoints.manifest import MANIFEST, seal
from luthier.core.errors import RunError
from luthier.core.files import STAGING_PREFIX


def make(run: Path, step: int, loss: float | None = None, part: int = 0) -> Path:
    """Write a checkpoint of one file."""
    return make_in(run / FOLDER / checkpoint_name(step, part), step, loss, part)


def make_in(folder: Path, step: int, loss: float | None = None, part: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(f'{{"step": {step}}}')
    metrics = {} if loss is None else {"eval_loss": loss}
    seal(folder, {"step": step, "part": part, "metrics": metrics})
    return folder


def names(run: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run)]


def damage(checkpoint: Path) -> None:
    (checkpoint / "state.json").write_text('{"step": 0}')


def test_names() -> None:
    assert checkpoint_name(10) == "step-000010"
    assert checkpoint_name(10, 3) == "step-000010-part-0003"
    assert checkpoint_name(12_345_678) == "step-12345678"


def test_the_order_is_that_of_the_numbers(tmp_path: Path) -> None:
    for step, part in [(999_999, 0), (11, 0), (1_000_000, 0), (10, 12), (10, 0), (10, 3)]:
        make(tmp_path, step, part=part)
    shutil.copytree(tmp_path / FOLDER / "step-1000000", tmp_path / FOLDER / "step-2000000.bak")
    (tmp_path / FOLDER / "step-3000000").write_text("a file")
    # File times say nothing: the oldest checkpoint is the youngest folder.
    os.utime(tmp_path / FOLDER / "step-000010", (4e9, 4e9))
    in_parts = ["step-000010", "step-000010-part-0003", "step-000010-part-0012"]
    assert names(tmp_path) == [*in_parts, "step-000011", "step-999999", "step-1000000"]
    found, problems = newest_good(tmp_path)
    assert (found, problems) == (tmp_path / FOLDER / "step-1000000", [])
    assert [(c.step, c.part) for c in inspect_checkpoints(tmp_path)][1] == (10, 3)


def test_the_newest_good_passes_over_damaged_ones(tmp_path: Path) -> None:
    for step in range(1, 6):
        make(tmp_path, step)
    folder = tmp_path / FOLDER
    (folder / "step-000005" / MANIFEST).unlink()
    damage(folder / "step-000004")
    (folder / "step-000003" / "state.json").unlink()
    for found in (newest_good(tmp_path), find_by_name(tmp_path, "latest")):
        assert found == (
            folder / "step-000002",
            [
                "step-000005: this folder is not a finished checkpoint: it has no manifest.json",
                "step-000004: the content of state.json has changed since it was sealed",
                "step-000003: state.json is missing from the checkpoint",
            ],
        )
    sealed = ["step-000001", "step-000002", "step-000003", "step-000004"]
    assert names(tmp_path) == sealed, "sealed, though not verified"


def test_the_best_has_the_lowest_loss_and_verifies(tmp_path: Path) -> None:
    for step, loss in [(1, 3.0), (2, 1.5), (3, None), (4, 1.0), (5, 1.5)]:
        make(tmp_path, step, loss)
    assert find_by_name(tmp_path, "best") == (tmp_path / FOLDER / "step-000004", [])
    damage(tmp_path / FOLDER / "step-000004")
    found, problems = find_by_name(tmp_path, "best")
    assert found == tmp_path / FOLDER / "step-000002", "of equal losses the earlier one"
    assert problems == ["step-000004: the content of state.json has changed since it was sealed"]
    assert best_checkpoint(list_checkpoints(tmp_path)) == tmp_path / FOLDER / "step-000004"


def test_where_nothing_was_evaluated_nothing_is_best(tmp_path: Path) -> None:
    make(tmp_path, 1)
    assert find_by_name(tmp_path, "best") == (None, [])
    assert best_checkpoint(list_checkpoints(tmp_path)) is None


def test_no_checkpoints(tmp_path: Path) -> None:
    assert newest_good(tmp_path) == (None, [])
    assert list_checkpoints(tmp_path) == []
    assert best_checkpoint([]) is None
    assert inspect_checkpoints(tmp_path) == []
    remove_staging(tmp_path)


def test_a_renamed_checkpoint_is_none(tmp_path: Path) -> None:
    """It would pass for a later step than it holds."""
    make(tmp_path, 7)
    (tmp_path / FOLDER / "step-000007").rename(tmp_path / FOLDER / "step-000099")
    make(tmp_path, 3)
    found, problems = newest_good(tmp_path)
    assert found == tmp_path / FOLDER / "step-000003"
    assert problems == ["step-000099: its manifest is that of step 7, part 0"]
    assert names(tmp_path) == ["step-000003"]


def test_what_is_found_of_each(tmp_path: Path) -> None:
    make(tmp_path, 1, 2.5)
    damage(make(tmp_path, 2, 1.5))
    (make(tmp_path, 3) / MANIFEST).write_text("{")
    (tmp_path / FOLDER / "step-000001" / ".DS_Store").write_text("x" * 100)
    first, second, third = inspect_checkpoints(tmp_path)
    assert (first.eval_loss, first.problem, first.unknown_files) == (2.5, None, (".DS_Store",))
    assert first.written is not None
    assert first.written.endswith("+00:00")
    size = sum(file.stat().st_size for file in first.path.iterdir())
    assert first.num_bytes == size > 100
    assert second.problem == "the content of state.json has changed since it was sealed"
    assert (second.eval_loss, second.written is None) == (1.5, False)
    assert third.problem is not None
    assert third.problem.startswith("the checkpoint's manifest is damaged")
    assert (third.eval_loss, third.written, third.unknown_files) == (None, None, ())


def test_a_checkpoint_is_removed_whole(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    remove_checkpoint(folder)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_checkpoint_that_can_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, 1)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RunError, match="an old checkpoint can't be removed: Permission denied"):
        remove_checkpoint(folder)
    assert names(tmp_path) == [], "what is being removed passes for no checkpoint"


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    make(tmp_path, 1)
    unfinished = tmp_path / FOLDER / f"{STAGING_PREFIX}step-000002-abc" / "model"
    unfinished.mkdir(parents=True)
    (unfinished / "weights").write_text("half")
    make_in(tmp_path / FOLDER / f"{STAGING_PREFIX}old-0123abcd", 1)
    make_in(tmp_path / FOLDER / f"{DOOMED_PREFIX}step-000000-0123abcd", 0)
    damage(make_in(tmp_path / FOLDER / f"{STAGING_PREFIX}step-000003-0123abcd", 3))
    make_in(tmp_path / FOLDER / f"{STAGING_PREFIX}step-000001-0123abcd", 1)
    assert names(tmp_path) == ["step-000001"]
    before = (tmp_path / FOLDER / "step-000001").stat().st_ino
    remove_staging(tmp_path)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["step-000001"]
    assert (tmp_path / FOLDER / "step-000001").stat().st_ino == before


@pytest.mark.parametrize("part", [0, 2])
def test_a_complete_checkpoint_gets_its_name(tmp_path: Path, part: int) -> None:
    """The run was killed after the older one of this step had been moved away."""
    name = checkpoint_name(10, part)
    make_in(tmp_path / FOLDER / f"{STAGING_PREFIX}{name}-0123abcd", 10, 1.5, part)
    make_in(tmp_path / FOLDER / f"{STAGING_PREFIX}old-0123abcd", 10, part=part)
    remove_staging(tmp_path)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [name]
    assert newest_good(tmp_path) == (tmp_path / FOLDER / name, [])
    assert inspect_checkpoints(tmp_path)[0].eval_loss == 1.5


def test_listing_loads_no_torch() -> None:
    code = "import luthier.checkpoints.listing, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""The checkpoints of a run, verified, with what a resumed run would go on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.checkpoints.listing import FOLDER, checkpoint_name
from luthier.checkpoints.manifest import MANIFEST, seal
from luthier.core.errors import RunError
from luthier.recipes.checkpoint_list import checkpoint_list


def make(run: Path, step: int, loss: float | None = None, part: int = 0) -> Path:
    folder = run / FOLDER / checkpoint_name(step, part)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    metrics = {} if loss is None else {"eval_loss": loss}
    seal(folder, {"step": step, "part": part, "metrics": metrics})
    return folder


def test_latest_and_best_are_those_that_verify(tmp_path: Path):
    for step, loss in [(1, 2.0), (2, 1.0), (3, 1.5), (4, None), (5, None)]:
        make(tmp_path, step, loss)
    make(tmp_path, 4, part=2)
    listed = checkpoint_list(tmp_path)
    assert listed.latest is not None
    assert listed.best is not None
    assert (listed.latest.path.name, listed.best.path.name) == ("step-000005", "step-000002")
    for step in (2, 5):
        (tmp_path / FOLDER / checkpoint_name(step) / "state.json").write_text("[]")
    listed = checkpoint_list(tmp_path)
    marks = {checkpoint.path.name: listed.marks(checkpoint) for checkpoint in listed.found}
    assert marks == {
        "step-000001": [],
        "step-000002": [],
        "step-000003": ["best"],
        "step-000004": [],
        "step-000004-part-0002": ["latest"],
        "step-000005": [],
    }
    damaged = [checkpoint.path.name for checkpoint in listed.damaged()]
    assert damaged == ["step-000002", "step-000005"]


def test_one_may_be_both(tmp_path: Path):
    make(tmp_path, 1, 2.0)
    listed = checkpoint_list(tmp_path)
    assert listed.marks(listed.found[0]) == ["latest", "best"]


def test_a_run_without_checkpoints(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("")
    listed = checkpoint_list(tmp_path)
    assert (listed.found, listed.latest, listed.best) == ((), None, None)
    assert listed.as_json()["checkpoints"] == []


@pytest.mark.parametrize("path", ["", "none", "file"])
def test_a_path_that_is_no_run(tmp_path: Path, path: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"there is no run here\n  Name the output_dir of a run"):
        checkpoint_list(tmp_path / path)


def test_it_is_plain_json(tmp_path: Path):
    make(tmp_path, 1, 2.0)
    (make(tmp_path, 2) / MANIFEST).unlink()
    (tmp_path / FOLDER / "step-000001" / "notes.txt").write_text("x")
    as_json = checkpoint_list(tmp_path).as_json()
    assert json.loads(json.dumps(as_json)) == as_json
    assert (as_json["run"], as_json["latest"]) == (str(tmp_path), "step-000001")
    first, second = as_json["checkpoints"]
    assert (first["step"], first["part"], first["eval_loss"]) == (1, 0, 2.0)
    assert (first["problem"], first["unknown_files"]) == (None, ["notes.txt"])
    assert "not a finished checkpoint" in second["problem"]

"""`luthier checkpoints`: a table, what resumes, and an exit code for damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.checkpoints.listing import FOLDER, checkpoint_name
from luthier.checkpoints.manifest import seal
from luthier.cli import checkpoints
from luthier.core.errors import RunError


def make(run: Path, step: int, loss: float | None = None, part: int = 0) -> Path:
    folder = run / FOLDER / checkpoint_name(step, part)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    (folder / "weights").write_bytes(bytes(2048))
    metrics = {} if loss is None else {"eval_loss": loss}
    seal(folder, {"step": step, "part": part, "metrics": metrics})
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    make(tmp_path, 1, 1.25)
    make(tmp_path, 1200, 2.5)
    make(tmp_path, 1200, part=3)
    return tmp_path


def test_each_checkpoint_has_its_line(run_folder: Path, capture: Any):
    out = capture(checkpoints)
    checkpoints.run(str(run_folder), as_json=False)
    head, first, second, third, last = out.getvalue().splitlines()
    assert head.split() == [
        *("checkpoint", "step", "part", "written", "size", "eval", "loss", "verified")
    ]
    assert first.split()[:3] == ["step-000001", "1", "-"]
    assert "+00:00" in first
    assert first.split()[-5:] == ["2.5", "KiB", "1.2500", "best", "ok"]
    assert second.split()[:3] == ["step-001200", "1,200", "-"]
    assert third.split()[:3] == ["step-001200-part-0003", "1,200", "3"]
    assert third.split()[-3:] == ["-", "latest", "ok"]
    assert last == "A bare --resume_from_checkpoint goes on from step-001200-part-0003."


def test_damage_is_shown_and_is_an_error(run_folder: Path, capture: Any):
    out = capture(checkpoints)
    (run_folder / FOLDER / "step-001200-part-0003" / "weights").write_bytes(bytes(2047))
    with pytest.raises(RunError, match="1 checkpoint is damaged: step-001200-part-0003") as caught:
        checkpoints.run(str(run_folder), as_json=False)
    assert caught.value.exit_code == 5
    assert caught.value.mend == "A bare --resume_from_checkpoint goes on from step-001200."
    assert "weights has 2047" in " ".join(out.getvalue().split())


def test_nothing_good_is_left(run_folder: Path, capture: Any):
    capture(checkpoints)
    for folder in (run_folder / FOLDER).iterdir():
        (folder / "state.json").unlink()
    with pytest.raises(RunError, match="3 checkpoints are damaged: step-000001, step-001200, step"):
        checkpoints.run(str(run_folder), as_json=False)
    with pytest.raises(RunError, match="has nothing to go on from"):
        checkpoints.run(str(run_folder), as_json=True)


def test_what_luthier_did_not_write_is_named_safely(run_folder: Path, capture: Any):
    out = capture(checkpoints)
    (run_folder / FOLDER / "step-000001" / "a\x1b[2Jb").write_text("x")
    checkpoints.run(str(run_folder), as_json=False)
    assert "not luthier's" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_run_without_checkpoints(tmp_path: Path, capture: Any):
    (tmp_path / "run.yaml").write_text("")
    out = capture(checkpoints)
    checkpoints.run(str(tmp_path), as_json=False)
    assert out.getvalue() == "This run has no checkpoints yet.\n"


def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(RunError, match="there is no run here"):
        checkpoints.run(str(tmp_path), as_json=False)


def luthier(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from luthier.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_as_a_command_without_torch(run_folder: Path):
    done = luthier("checkpoints", str(run_folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"] == "step-000001"
    (run_folder / FOLDER / "step-000001" / "weights").unlink()
    done = luthier("checkpoints", str(run_folder), "--json")
    assert done.returncode == 5
    problems = [found["problem"] for found in json.loads(done.stdout)["checkpoints"]]
    assert problems == ["weights is missing from the checkpoint", None, None]
    assert "error: " in done.stderr
    assert "1 checkpoint is damaged: step-000001" in done.stderr

"""All of a run at one moment: nothing of it changes afterwards, and all of it comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.checkpoints.manifest import read_manifest, verify
from luthier.checkpoints.snapshot import RunState, Snapshot, load_snapshot, take_snapshot
from luthier.contracts.training import Accumulation, Progress
from luthier.engine.memory import MicroBatches


class Part:
    """A part of a run whose state is one list; its `get_state` hands out the very list."""

    def __init__(self, *values: int) -> None:
        self.values = list(values)

    def get_state(self) -> dict[str, Any]:
        return {"values": self.values}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.values = state["values"]


class Batches(Part):
    """A batch source whose position is all that matters here."""

    def epochs_done(self) -> float:
        return 0.0

    def windows_per_epoch(self) -> int:
        return 1

    def windows(self) -> Any:
        raise NotImplementedError

    def window_rows(self) -> tuple[int, ...]:
        return ()

    def take_back(self) -> None: ...


class Scaler:
    """The two methods of a GradScaler that a checkpoint needs."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "growth_factor": 2.0, "_growth_tracker": 7}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]


class Weights:
    """A model of 400 bytes."""

    num_bytes = 400

    def __init__(self, is_copy: bool) -> None:
        self.is_copy = is_copy

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "weights").write_bytes(b"w" * 400)


def run_state(scaler: Any = None, parts: Any = None, done: Accumulation | None = None) -> RunState:
    weight = torch.nn.Parameter(torch.zeros(100))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(100)
    optimizer.step()
    batches = Batches(1, 2)
    return RunState(
        optimizer, batches, scaler, {"data": "abc"}, parts or {}, done or Accumulation()
    )


def take(state: RunState, *, as_copy: bool = False, **metrics: float) -> Snapshot:
    progress = Progress(step=10, num_steps=20, num_rows_seen=80)
    return take_snapshot(state, progress, metrics, Weights, as_copy=as_copy)


def written(state: RunState, folder: Path) -> Path:
    folder.mkdir()
    take(state).write(folder)
    return folder


def test_the_manifest_says_what_it_is(tmp_path: Path) -> None:
    take(run_state(), eval_loss=1.5, eval_perplexity=float("inf")).write(tmp_path)
    manifest = verify(tmp_path)
    assert (manifest["step"], manifest["part"], manifest["fingerprint"]) == (10, 0, {"data": "abc"})
    assert manifest["metrics"] == {"eval_loss": 1.5, "eval_perplexity": None}
    assert set(manifest["files"]) == {
        *("model/weights", "optimizer.safetensors", "optimizer.json", "state.json"),
        *("random.safetensors", "random.json"),
    }
    assert "Infinity" not in (tmp_path / "manifest.json").read_text()


def test_a_loss_that_is_no_number_is_no_loss() -> None:
    assert take(run_state(), eval_loss=float("nan")).facts["metrics"] == {"eval_loss": None}


def test_the_model_is_told_whether_it_must_be_a_copy() -> None:
    for as_copy in (False, True):
        model = take(run_state(), as_copy=as_copy).model
        assert isinstance(model, Weights)
        assert model.is_copy is as_copy


def test_its_size_is_known_before_it_is_written(tmp_path: Path) -> None:
    plain = take(run_state())
    plain.write(tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    on_disk = sum(file.stat().st_size for file in files if file.name != "manifest.json")
    headers = on_disk - plain.num_bytes
    assert 0 < headers < 1000
    inside = take(run_state(done=Accumulation(1, torch.tensor(0.5))))
    assert inside.num_bytes - plain.num_bytes == 100 * 4 + 4


def test_nothing_of_a_copy_changes_afterwards(tmp_path: Path) -> None:
    part, done = Part(3), Accumulation(1, torch.tensor(0.5))
    state = run_state(parts={"part": part}, done=done)
    (weight,) = state.optimizer.param_groups[0]["params"]
    snapshot = take(state, as_copy=True)
    part.values.append(4)
    weight.grad.fill_(7.0)
    state.optimizer.param_groups[0]["lr"] = 9.0
    state.optimizer.step()
    assert done.loss_total is not None
    done.loss_total += 1
    done.num_done = 2
    snapshot.write(tmp_path)
    fresh = run_state(parts={"part": Part()})
    load_snapshot(tmp_path, fresh, Progress())
    assert fresh.optimizer.state_dict()["state"][0]["step"] == 1
    saved = json.loads((tmp_path / "optimizer.json").read_text())
    assert saved["param_groups"][0]["lr"] == 1e-3
    assert fresh.optimizer.param_groups[0]["params"][0].grad[0] == 1.0
    assert fresh.parts["part"].get_state() == {"values": [3]}
    assert (fresh.accumulation.num_done, fresh.accumulation.loss_total) == (1, torch.tensor(0.5))


def test_the_part_of_a_step_comes_back(tmp_path: Path) -> None:
    snapshot = take(run_state(done=Accumulation(3, torch.tensor(0.5))), eval_loss=1.0)
    assert (snapshot.step, snapshot.name) == (10, "step-000010-part-0003")
    snapshot.write(tmp_path)
    assert "gradients.safetensors" in read_manifest(tmp_path)["files"]
    fresh = run_state()
    fresh.optimizer.zero_grad()
    load_snapshot(tmp_path, fresh, Progress())
    assert (fresh.accumulation.num_done, fresh.accumulation.loss_total) == (3, torch.tensor(0.5))
    assert torch.equal(fresh.optimizer.param_groups[0]["params"][0].grad, torch.ones(100))


def test_between_two_steps_nothing_is_accumulated(tmp_path: Path) -> None:
    folder = written(run_state(), tmp_path / "a")
    assert not (folder / "gradients.safetensors").exists()
    state = run_state(done=Accumulation(2, torch.tensor(1.0)))
    load_snapshot(folder, state, Progress())
    assert state.accumulation == Accumulation()


def test_the_scalers_state_comes_back(tmp_path: Path) -> None:
    folder = written(run_state(scaler=Scaler(1024.0)), tmp_path / "a")
    fresh = Scaler(1.0)
    load_snapshot(folder, run_state(scaler=fresh), Progress())
    assert fresh.scale == 1024.0
    load_snapshot(written(run_state(), tmp_path / "b"), run_state(scaler=fresh), Progress())
    assert fresh.scale == 1024.0


def test_named_parts_come_back_and_unknown_ones_stay(tmp_path: Path) -> None:
    saved = {"micro_batches": MicroBatches(max_positions=512), "old": Part(5)}
    folder = written(run_state(parts=saved), tmp_path / "a")
    fresh = {"micro_batches": MicroBatches(), "new": Part(7)}
    load_snapshot(folder, run_state(parts=fresh), Progress())
    assert fresh["micro_batches"].max_positions == 512  # type: ignore[union-attr]
    assert fresh["new"].get_state() == {"values": [7]}


def test_progress_and_position_come_back_but_for_the_length(tmp_path: Path) -> None:
    folder = written(run_state(), tmp_path / "a")
    state, progress = run_state(), Progress(num_steps=99)
    state.batches.set_state({"values": [9]})
    load_snapshot(folder, state, progress)
    assert state.batches.get_state() == {"values": [1, 2]}
    assert progress == Progress(step=10, num_steps=99, num_rows_seen=80)


def test_a_state_that_is_no_json_is_found_at_once() -> None:
    """Not in the thread, where nobody could tell which step it was."""

    class Odd(Part):
        def get_state(self) -> dict[str, Any]:
            return {"values": {1, 2}}

    with pytest.raises(TypeError, match="set is not JSON serializable"):
        take(run_state(parts={"odd": Odd()}))


def test_the_files_are_plain(tmp_path: Path) -> None:
    take(run_state()).write(tmp_path)
    kinds = {file.suffix for file in tmp_path.iterdir() if file.is_file()}
    assert kinds == {".json", ".safetensors"}
    assert json.loads((tmp_path / "state.json").read_text())["num_done"] == 0

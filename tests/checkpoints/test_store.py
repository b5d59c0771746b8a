"""Checkpoints of a run: exact resume, retention, damage, full disks."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.batches.collate import CausalLMCollator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import evaluation_batches
from luthier.checkpoints import store as store_module
from luthier.checkpoints.manifest import MANIFEST, read_manifest, verify
from luthier.checkpoints.store import (
    FOLDER,
    MODEL,
    CheckpointStore,
    RunState,
    best_checkpoint,
    list_checkpoints,
    newest_good,
    remove_staging,
)
from luthier.contracts.training import Progress
from luthier.core.errors import RunError
from luthier.core.files import STAGING_PREFIX
from luthier.engine.memory import MicroBatches
from luthier.engine.precision import Precision
from luthier.engine.settings import AdafactorOptimizer
from luthier.evaluation.validation_loss import ValidationLoss
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., Any]


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def assert_bit_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        else:
            assert value == other[name], name


@pytest.mark.parametrize(
    "options",
    [
        {"lora": True},
        {"lora": False},
        {"lora": True, "optimizer": AdafactorOptimizer()},
        {"lora": True, "workers": 1},
    ],
    ids=["lora", "full", "adafactor", "workers"],
)
@pytest.mark.parametrize("cut", [3, 4])
def test_going_on_is_bit_identical(
    make_run: Make, tmp_path: Path, options: dict[str, Any], cut: int
) -> None:
    """Six steps, against three and three more by a run built afresh; an epoch has four."""
    straight = make_run(tmp_path / "a", **options).train_to(6)
    first = make_run(tmp_path / "b", save_every=cut, **options).train_to(cut)
    (checkpoint,) = list_checkpoints(tmp_path / "b")
    second = make_run(tmp_path / "b", checkpoint, **options)
    assert second.training.progress.step == cut
    second.train_to(6)
    assert first.losses + second.losses == straight.losses
    assert_bit_equal(trained(second.training.model), trained(straight.training.model))
    mine = second.training.optimizer.state_dict()
    theirs = straight.training.optimizer.state_dict()
    assert mine["state"].keys() == theirs["state"].keys()
    for index, values in mine["state"].items():
        assert_bit_equal(values, theirs["state"][index])
    groups = json.dumps(mine["param_groups"]), json.dumps(theirs["param_groups"])
    assert groups[0] == groups[1]
    assert second.training.progress == straight.training.progress
    assert second.training.batches.get_state() == straight.training.batches.get_state()


def test_dropout_is_at_work_in_the_test_above(make_run: Make, tmp_path: Path) -> None:
    checkpointed = make_run(tmp_path, save_every=3).train_to(3)
    (checkpoint,) = list_checkpoints(tmp_path)
    second = make_run(tmp_path, checkpoint)
    straight = checkpointed.train_to(6).losses
    torch.manual_seed(0)
    assert second.train_to(6).losses != straight[3:]


def test_evaluations_change_no_later_step(make_run: Make, tmp_path: Path) -> None:
    """Dropout goes on as if nothing had been measured in between."""
    rows = [{"input_ids": [3, 4, 5], "labels": [-100, 4, 5]}]
    evaluator = ValidationLoss(
        batches=lambda: evaluation_batches(rows, [3], CausalLMCollator(0), BatchSettings()),
        objective=SupervisedFineTuning(),
        precision=Precision(torch.float32, "cpu"),
        device=torch.device("cpu"),
    )
    plain = make_run(tmp_path / "a").train_to(4)
    seen = make_run(tmp_path / "b", evaluator=evaluator, eval_every=1).train_to(4)
    assert seen.training.progress.best_eval_loss is not None
    assert seen.losses == plain.losses


def test_a_checkpoint_holds_all_of_a_run(make_run: Make, tmp_path: Path) -> None:
    run = make_run(tmp_path, save_every=3).train_to(3)
    (checkpoint,) = list_checkpoints(tmp_path)
    assert checkpoint == tmp_path / FOLDER / "step-000003"
    manifest = verify(checkpoint)
    assert (manifest["step"], manifest["fingerprint"]) == (3, {"data": "abc"})
    names = set(manifest["files"])
    assert f"{MODEL}/adapter_model.safetensors" in names
    plain = {name for name in names if not name.startswith(MODEL)}
    assert plain == {
        *("optimizer.safetensors", "optimizer.json", "random.safetensors", "random.json"),
        "state.json",
    }
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["batches"] == {"epoch": 0, "window": 3}
    assert state["scaler"] is None
    assert state["progress"]["step"] == 3
    assert run.training.progress.num_rows_seen == state["progress"]["num_rows_seen"] == 6
    assert not list(checkpoint.rglob("*.pt"))
    assert not list(checkpoint.rglob("*.bin"))


def test_load_keeps_the_length_of_the_new_run(make_run: Make, tmp_path: Path) -> None:
    make_run(tmp_path, save_every=2).train_to(2)
    (checkpoint,) = list_checkpoints(tmp_path)
    run = make_run(tmp_path, checkpoint)
    assert (run.training.progress.step, run.training.progress.num_steps) == (2, 6)


class Scaler:
    """The two methods of a GradScaler that a checkpoint needs."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "growth_factor": 2.0, "_growth_tracker": 7}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]


class NoBatches:
    """A batch source whose position is all that matters here."""

    state: Mapping[str, Any] = {"epoch": 0, "window": 0}

    def epochs_done(self) -> float:
        return 0.0

    def windows_per_epoch(self) -> int:
        return 1

    def windows(self) -> Any:
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        return dict(self.state)

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.state = state


def write_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights.txt").write_text("weights" * 100)


@pytest.fixture
def bare_store(tmp_path: Path) -> Callable[..., CheckpointStore]:
    """Make a store around an optimiser of one number: a checkpoint in a millisecond."""

    def make(
        limit: int | None = None,
        writer: Any = write_model,
        scaler: Any = None,
        micro_batches: Any = None,
    ) -> CheckpointStore:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])
        state = RunState(optimizer, NoBatches(), scaler, {}, micro_batches)
        return CheckpointStore(tmp_path, state, writer, limit)

    return make


def steps_of(run_folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(run_folder)]


def test_the_scalers_state_comes_back(bare_store: Make, tmp_path: Path) -> None:
    path = Path(bare_store(scaler=Scaler(1024.0)).save(Progress(step=1), {}))
    fresh = Scaler(1.0)
    bare_store(scaler=fresh).load(path, Progress())
    assert fresh.scale == 1024.0


def test_the_size_of_micro_batches_comes_back(bare_store: Make, tmp_path: Path) -> None:
    saved, fresh = MicroBatches(max_positions=512), MicroBatches()
    path = Path(bare_store(micro_batches=saved).save(Progress(step=1), {}))
    bare_store(micro_batches=fresh).load(path, Progress())
    assert fresh.max_positions == 512


def test_a_checkpoint_without_a_size_leaves_it_as_it_is(bare_store: Make, tmp_path: Path) -> None:
    path = Path(bare_store().save(Progress(step=1), {}))
    fresh = MicroBatches(max_positions=7)
    bare_store(micro_batches=fresh).load(path, Progress())
    assert fresh.max_positions == 7


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


def test_a_loss_that_is_no_number_is_never_the_best(bare_store: Make, tmp_path: Path) -> None:
    store = bare_store()
    for step, loss in enumerate([math.nan, 3.0, 2.0, math.inf, 4.0]):
        store.save(Progress(step=step), {"eval_loss": loss, "eval_perplexity": math.exp(2)})
    found = list_checkpoints(tmp_path)
    best = best_checkpoint(found)
    assert best is not None
    assert best.name == "step-000002"
    assert read_manifest(found[0])["metrics"]["eval_loss"] is None
    assert "NaN" not in (found[0] / MANIFEST).read_text()
    assert best_checkpoint([found[0], found[3]]) is None


def test_newest_goes_by_number(bare_store: Make, tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 20):
        bare_store().save(Progress(step=step), {})
    shutil.copytree(tmp_path / FOLDER / "step-1000000", tmp_path / FOLDER / "step-2000000.bak")
    (tmp_path / FOLDER / "step-3000000").write_text("a file")
    assert steps_of(tmp_path) == [20, 999_999, 1_000_000]
    found, problems = newest_good(tmp_path)
    assert found is not None
    assert found.name == "step-1000000"
    assert problems == []


def test_newest_good_passes_over_damaged_ones(bare_store: Make, tmp_path: Path) -> None:
    for step in range(1, 6):
        bare_store().save(Progress(step=step), {})
    folder = tmp_path / FOLDER
    (folder / "step-000005" / MANIFEST).unlink()
    flip_bit(folder / "step-000004" / "optimizer.safetensors", -1)
    (folder / "step-000003" / "state.json").unlink()
    found, problems = newest_good(tmp_path)
    assert found == folder / "step-000002"
    assert problems == [
        "step-000005: this folder is not a finished checkpoint: it has no manifest.json",
        "step-000004: the content of optimizer.safetensors has changed since it was sealed",
        "step-000003: state.json is missing from the checkpoint",
    ]
    assert steps_of(tmp_path) == [1, 2, 3, 4]  # sealed, though not verified


def flip_bit(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_no_checkpoints(tmp_path: Path) -> None:
    assert newest_good(tmp_path) == (None, [])
    assert list_checkpoints(tmp_path) == []
    assert best_checkpoint([]) is None
    remove_staging(tmp_path)


def test_saving_a_step_again_replaces_it(bare_store: Make, tmp_path: Path) -> None:
    bare_store().save(Progress(step=1), {"eval_loss": 2.0})
    path = Path(bare_store().save(Progress(step=1), {"eval_loss": 1.0}))
    assert read_manifest(path)["metrics"] == {"eval_loss": 1.0}
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["step-000001"]


def test_what_a_killed_run_left_is_removed(bare_store: Make, tmp_path: Path) -> None:
    bare_store().save(Progress(step=1), {})
    left = tmp_path / FOLDER / f"{STAGING_PREFIX}step-000002-abc" / MODEL
    left.mkdir(parents=True)
    (left / "weights").write_text("half")
    assert steps_of(tmp_path) == [1]
    assert newest_good(tmp_path)[0] == tmp_path / FOLDER / "step-000001"
    remove_staging(tmp_path)
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["step-000001"]


def test_an_error_that_is_not_the_disks_passes_and_leaves_nothing(
    bare_store: Make, tmp_path: Path
) -> None:
    def broken(folder: Path) -> None:
        write_model(folder)
        raise ZeroDivisionError

    bare_store().save(Progress(step=1), {})
    with pytest.raises(ZeroDivisionError):
        bare_store(writer=broken).save(Progress(step=2), {})
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["step-000001"]


@pytest.mark.parametrize("where", ["model", "optimizer", "manifest"])
def test_a_full_disk_leaves_earlier_checkpoints_intact(
    bare_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = Path(bare_store(1).save(Progress(step=1), {}))
    store = bare_store(1, writer=full if where == "model" else write_model)
    if where == "optimizer":
        monkeypatch.setattr(store_module, "save_optimizer", full)
    if where == "manifest":
        monkeypatch.setattr(store_module, "seal", full)
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(
        RunError, match=r"could not be written: No space left on device \(3.0 MiB free\)"
    ) as caught:
        store.save(Progress(step=2), {})
    assert "earlier checkpoints are intact" in str(caught.value)
    verify(path)
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["step-000001"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from luthier.checkpoints.store import CheckpointStore, RunState
from luthier.contracts.training import Progress

class Batches:
    def get_state(self):
        return {}

def save(step, size):
    weight = torch.nn.Parameter(torch.zeros(size))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    state = RunState(optimizer, Batches(), None, {})
    CheckpointStore(Path(sys.argv[1]), state, lambda folder: folder.mkdir(), None).save(
        Progress(step=step), {})

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
    assert done.stdout.startswith("RunError"), done.stdout
    assert "File too large" in done.stdout
    assert " free)" in done.stdout
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["step-000001"]
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

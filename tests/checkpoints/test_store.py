"""Checkpoints of a run: exact resume from anywhere, and in the background too."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.batches.collate import CausalLMCollator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import evaluation_batches
from luthier.checkpoints.listing import FOLDER, MODEL, list_checkpoints, newest_good
from luthier.checkpoints.manifest import MANIFEST, verify
from luthier.engine.loop import train
from luthier.engine.precision import Precision
from luthier.engine.settings import AdafactorOptimizer, LionOptimizer, MuonOptimizer
from luthier.evaluation.validation_loss import ValidationLoss
from luthier.models.save import take_model
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
        {"lora": True, "optimizer": LionOptimizer()},
        {"lora": False, "optimizer": MuonOptimizer()},
        {"lora": True, "workers": 1},
    ],
    ids=["lora", "full", "adafactor", "lion", "muon", "workers"],
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
    settings = BatchSettings(packing=False)
    evaluator = ValidationLoss(
        batches=lambda: evaluation_batches(rows, [3], CausalLMCollator(0), settings),
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
    assert f"{MODEL}/adapter_model.safetensors" in manifest["files"]
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["batches"] == run.training.batches.get_state()
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


@dataclass
class StopAfter:
    """Asks to stop before a micro-batch."""

    micro_batches: int
    has_work: bool = False
    asked: int = 0

    @property
    def requested(self) -> bool:
        self.asked += 1
        return self.asked > self.micro_batches

    def take_checkpoint_request(self) -> bool:
        return False


@pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])
@pytest.mark.parametrize("stop_at", range(1, 11))
def test_a_stop_anywhere_is_bit_identical(
    make_run: Make, tmp_path: Path, stop_at: int, background: bool
) -> None:
    """Windows of three micro-batches: some of the stops lie in the middle of one."""
    options: dict[str, Any] = {"accumulation_steps": 3, "save_in_background": background}
    straight = make_run(tmp_path / "a", **options).train_to(4)
    stopped = make_run(tmp_path / "b", stop=StopAfter(stop_at), **options)
    stopped.train_to(4)
    checkpoint, problems = newest_good(tmp_path / "b")
    assert checkpoint is not None
    assert problems == []
    second = make_run(tmp_path / "b", checkpoint, **options)
    second.train_to(4)
    assert stopped.losses + second.losses == straight.losses
    assert_bit_equal(trained(second.training.model), trained(straight.training.model))
    assert second.training.progress == straight.training.progress


def test_stops_in_the_middle_are_among_them(make_run: Make, tmp_path: Path) -> None:
    names: set[str] = set()
    for stop_at in range(1, 8):
        run = tmp_path / str(stop_at)
        make_run(run, accumulation_steps=3, stop=StopAfter(stop_at)).train_to(4)
        names |= {path.name for path in list_checkpoints(run)}
    assert names == {
        *("step-000000-part-0001", "step-000000-part-0002", "step-000001"),
        *("step-000001-part-0001", "step-000001-part-0002", "step-000002", "step-000003"),
    }


@dataclass
class Held:
    """A model whose writing a test holds up."""

    write: Callable[[Path], None]
    num_bytes: int


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_the_background_writes_the_moment_of_the_call(
    make_run: Make, tmp_path: Path, tiny_tokenizer: Any, lora: bool
) -> None:
    """The writer is held up until training has changed every weight; its files are the same."""
    held, free = threading.Event(), threading.Event()
    free.set()

    def taker(event: threading.Event) -> Any:
        def take(model: Any, as_copy: bool) -> Held:
            taken = take_model(model, tiny_tokenizer, [3], as_copy=as_copy)

            def write(folder: Path) -> None:
                assert event.wait(60)
                taken.write(folder)

            return Held(write, taken.num_bytes)

        return lambda model: partial(take, model)

    options: dict[str, Any] = {"lora": lora, "save_every": 3}
    make_run(tmp_path / "a", take_model=taker(free), **options).train_to(6)
    run = make_run(tmp_path / "b", take_model=taker(held), save_in_background=True, **options)
    run.training.progress.num_steps = 6
    seen: list[tuple[int, bool]] = []

    class Releases:
        """Lets the writer go once two more steps are taken."""

        has_work = False

        @property
        def requested(self) -> bool:
            step = run.training.progress.step
            seen.append((step, bool(list_checkpoints(tmp_path / "b"))))
            if step == 5:
                held.set()
            return False

        def take_checkpoint_request(self) -> bool:
            return False

    train_with_stop(run, Releases())
    assert (4, False) in seen, "training went on while the writer was held up"
    name = f"{FOLDER}/step-000003"
    assert hashes(tmp_path / "b" / name) == hashes(tmp_path / "a" / name)
    assert len(list_checkpoints(tmp_path / "b")) == 2


def train_with_stop(run: Any, stop: Any) -> None:
    train(replace(run.training, stop=stop))


def hashes(checkpoint: Path) -> dict[str, str]:
    """Of all files but those that say how the settings of the run differ."""
    return {
        path.relative_to(checkpoint).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }

"""Trackers in real runs: what they show, also after a stop, and what their failures do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes import watching
from luthier.recipes.watching import TRACKER_IDS, flat_settings, read_tracker_ids
from luthier.trackers.registry import Known
from luthier.trackers.tensorboard import TensorBoard
from luthier.trackers.tracker import Opened

board = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is not installed (extra: board)",
)


def points(folder: Path, name: str) -> dict[int, float]:
    found = board.EventAccumulator(str(folder), size_guidance={board.SCALARS: 0}).Reload()
    events = found.Scalars(name)
    assert len({event.step for event in events}) == len(events), "a step is shown twice"
    return {event.step: event.value for event in events}


def logged(run: Any, kind: str, name: str) -> dict[int, float]:
    return {record["step"]: record[name] for record in run.metrics() if record["kind"] == kind}


def test_tensorboard_shows_what_the_run_logs_also_after_a_stop(small_run):
    settings = {"report_to": "tensorboard", "save_steps": 2, "eval_steps": 2}
    first = small_run.train(stop_after=5, **settings)
    folder = first.folder / "logs" / "tensorboard"
    assert set(points(folder, "train/loss")) == set(range(1, 6))
    # Go on from before the newest: two steps are made once more.
    checkpoint = str(first.folder / "checkpoints/step-000002")
    again = small_run.train("--resume_from_checkpoint", checkpoint, **settings)
    for kind, name, shown in (
        ("train", "loss", "train/loss"),
        ("train", "learning_rate", "train/learning_rate"),
        ("eval", "eval_loss", "eval/loss"),
    ):
        assert points(folder, shown) == pytest.approx(logged(again, kind, name), rel=1e-5)
    known = read_tracker_ids(first.folder)
    assert (known["tensorboard"]["id"], known["tensorboard"]["place"]) == ("out", str(folder))
    assert f"tensorboard: {folder}" in first.screen.said


def test_histograms_are_of_what_is_trained_and_change_nothing(small_run):
    plain = small_run.train(output_dir=str(small_run.folder / "a"), max_steps=4)
    drawn = small_run.train(max_steps=4, report_to="tensorboard", log_histograms=2)
    assert drawn.losses() == plain.losses()
    folder = drawn.folder / "logs" / "tensorboard"
    found = board.EventAccumulator(str(folder), size_guidance={board.HISTOGRAMS: 0}).Reload()
    names = found.Tags()["histograms"]
    trained = {name.partition("/")[2] for name in names}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert set(names) == {f"{kind}/{n}" for kind in ("weights", "gradients") for n in trained}
    for name in names:
        assert [event.step for event in found.Histograms(name)] == [2, 4]
    assert any(event.histogram_value.sum_squares for event in found.Histograms(names[-1]))


def test_a_folder_of_ones_own(small_run, tmp_path: Path):
    logs = tmp_path / "all logs"
    small_run.train(max_steps=1, report_to="tensorboard", run_name="violin", logging_dir=str(logs))
    assert set(points(logs / "violin" / "tensorboard", "train/loss")) == {1}


def test_trainer_transformers_is_shown_too(small_run):
    run = small_run.train(trainer="transformers", report_to="tensorboard")
    shown = points(run.folder / "logs" / "tensorboard", "train/loss")
    assert shown == pytest.approx(logged(run, "train", "loss"), rel=1e-5)


class Broken(TensorBoard):
    """A tracker whose network is away."""

    def open(self, run: Any) -> Opened:
        raise ConnectionError("no route to tracker.test")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: Known(Broken, "json", name) for name in ("wandb", "mlflow")}
    monkeypatch.setattr(watching, "TRACKERS", {**watching.TRACKERS, **known})


@pytest.mark.usefixtures("broken")
def test_a_tracker_that_fails_stops_nothing(small_run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("luthier.recipes.train.require_packages", lambda settings: None)
    plain = small_run.train(output_dir=str(small_run.folder / "a"))
    run = small_run.train(report_to=["wandb", "tensorboard", "mlflow"])
    assert run.result.finished
    assert run.losses() == plain.losses()
    notices = [str(n) for n in run.screen.notices if n.setting == "report_to"]
    assert sorted(notice.split(" (")[0] for notice in notices) == [
        "report_to: mlflow -> none",
        "report_to: wandb -> none",
    ]
    assert all("ConnectionError: no route to tracker.test" in notice for notice in notices)
    recorded = [n["asked"] for n in run.manifest()["notices"] if n["setting"] == "report_to"]
    assert sorted(recorded) == ["mlflow", "wandb"]
    assert len(points(run.folder / "logs" / "tensorboard", "train/loss")) == 8


class Memory(TensorBoard):
    """A tracker that can't take anything back, and remembers the steps of `train/loss`."""

    rewinds = False
    steps: ClassVar[list[int]] = []

    def open(self, run: Any) -> Opened:
        return Opened("id", "here")

    def log(self, step: int, metrics: Any) -> None:
        self.steps.extend([step] if "train/loss" in metrics else [])

    def close(self, *, failed: bool) -> None:
        pass


def test_no_step_is_shown_twice_however_often_a_run_is_stopped(
    small_run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "TRACKERS", {"tensorboard": Known(Memory, "json", "board")})
    settings = {"report_to": "tensorboard", "save_steps": 2}
    first = small_run.train(stop_after=6, **settings)
    again = ("--resume_from_checkpoint", str(first.folder / "checkpoints/step-000002"))
    # The second part ends behind what the first had shown already.
    small_run.train(*again, stop_after=3, **settings)
    small_run.train(*again, **settings)
    assert Memory.steps == list(range(1, 9))


def test_an_unknown_tracker(small_run):
    with pytest.raises(SettingsError, match=r"report_to is 'wandbb'(.|\n)*Did you mean wandb\?"):
        small_run.config(report_to="wandbb")


def test_trackers_are_shown_no_secret(small_run, train_as: Any, monkeypatch: pytest.MonkeyPatch):
    shown: list[Any] = []

    class Curious(Broken):
        def open(self, run: Any) -> Opened:
            shown.append(run.settings)
            return super().open(run)

    known = Known(Curious, "json", "board")
    monkeypatch.setattr(watching, "TRACKERS", {"tensorboard": known})
    config = small_run.config(max_steps=1, report_to="tensorboard")
    monkeypatch.setenv("MY_API_KEY", str(small_run.model))
    train_as(config)
    assert shown[0]["model_name_or_path"] == "***"
    assert shown[0]["learning_rate"] == 0.01
    assert flat_settings(config)["model_name_or_path"] == str(small_run.model)


def test_no_file_without_trackers(small_run):
    run = small_run.train(max_steps=1)
    assert not (run.folder / TRACKER_IDS).exists()
    assert not (run.folder / "logs").exists()
    assert json.loads((run.folder / "manifest.json").read_text())["outcome"]["finished"]

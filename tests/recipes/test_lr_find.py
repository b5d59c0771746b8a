"""A range test from settings to files: what it leaves, and that a run never notices it."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RunError, SettingsError
from luthier.engine.lr_range import exponential_rates
from luthier.recipes import lr_find
from luthier.recipes.lr_find import FoundRate, find_learning_rate, settle_steps
from luthier.recipes.run_config import RunConfig

FAST: dict[str, Any] = {"min_lr": 1e-5, "max_lr": 10.0, "num_steps": 30}


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch):
    """Write pages without plotly's 5 MB, where a test is not about them."""
    monkeypatch.setattr(lr_find, "lr_page", lambda record: f"page of {record['kind']}")


def find(config: RunConfig, screen: Any, stop: Any = None, **asked: Any) -> FoundRate:
    from luthier.engine.interrupt import StopSignals

    stop = stop or StopSignals(lambda name: None)
    return find_learning_rate(config, screen, stop, **(FAST | asked))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_it_finds_a_valley_and_writes_it_down(small_run: Any, recorder: Any):
    found = find(small_run.config(), recorder)
    folder = small_run.folder / "out" / "lr-find"
    assert found.folder == folder
    assert files(small_run.folder / "out") == ["lr-find/lr_find.html", "lr-find/lr_find.json"]
    assert found.suggestion.verdict in ("clear", "faint")
    assert found.suggestion.rate is not None
    assert 1e-4 < found.suggestion.rate < 1.0
    record = json.loads((folder / "lr_find.json").read_text(encoding="utf-8"))
    assert record["suggestion"] == found.suggestion.rate
    assert record["curve"]["loss"] == list(found.curve.losses)
    assert record["curve"]["learning_rate"] == pytest.approx(
        [exponential_rates(1e-5, 10.0, 29)(i) for i in range(len(found.curve.rates))]
    )
    assert (record["min_lr"], record["max_lr"], record["num_steps"]) == (1e-5, 10.0, 30)
    assert record["settings"]["schedule"]["learning_rate"] == 1e-2
    assert (folder / "lr_find.html").read_text(encoding="utf-8") == "page of luthier lr-find"
    assert recorder.evaluations == recorder.checkpoints == []


def test_a_run_after_it_is_the_same_run(small_run: Any, recorder: Any):
    alone = small_run.train(output_dir=str(small_run.folder / "alone"))
    find(small_run.config(), recorder)
    after = small_run.train()
    assert weights(after.folder) == weights(alone.folder)
    assert after.losses() == alone.losses()
    assert (after.folder / "lr-find" / "lr_find.json").is_file()


def test_it_leaves_a_run_that_is_there_as_it_is(small_run: Any, recorder: Any):
    trained = small_run.train()
    before = {name: (trained.folder / name).read_bytes() for name in files(trained.folder)}
    find(small_run.config(), recorder)
    now = {name: (trained.folder / name).read_bytes() for name in files(trained.folder)}
    assert {name for name in now if name not in before} == {
        "lr-find/lr_find.html",
        "lr-find/lr_find.json",
    }
    assert {name: now[name] for name in before} == before
    # And a run that takes the place of another leaves the test.
    small_run.train("--overwrite_output_dir")
    assert (trained.folder / "lr-find" / "lr_find.json").is_file()


def test_a_repeat_takes_the_place_of_the_earlier_one(
    small_run: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
):
    find(small_run.config(), recorder)

    def no_page(record: dict[str, Any]) -> str:
        raise OSError("no room")

    monkeypatch.setattr(lr_find, "lr_page", no_page)
    with pytest.raises(OSError, match="no room"):
        find(small_run.config(), recorder, num_steps=20)
    folder = small_run.folder / "out" / "lr-find"
    # A page of the earlier one beside the new numbers would tell something else.
    assert files(folder) == ["lr_find.json"]
    assert json.loads((folder / "lr_find.json").read_text("utf-8"))["num_steps"] == 20


def test_two_tests_are_the_same_to_the_last_bit(small_run: Any, recorder: Any):
    one, other = (find(small_run.config(), recorder) for _ in range(2))
    assert one.curve == other.curve


def test_a_stop_leaves_what_was_measured(small_run: Any, recorder: Any):
    class AfterFive:
        has_work = False

        @property
        def requested(self) -> bool:
            return len(recorder.steps) >= 5

        def take_checkpoint_request(self) -> bool:
            return False

    found = find(small_run.config(), recorder, AfterFive())
    assert (found.end, found.suggestion.verdict) == ("stopped", "too_few")
    record = json.loads((found.folder / "lr_find.json").read_text("utf-8"))
    assert (record["end"], len(record["curve"]["loss"])) == ("stopped", 4)
    assert found.words()[1] == "It was stopped before its end."


def test_freezing_and_the_reference_loop_are_tested_by_the_loop(small_run: Any, recorder: Any):
    config = small_run.config(
        finetuning_type="freeze", freeze_trainable_layers=1, trainer="transformers"
    )
    found = find(config, recorder)
    assert files(small_run.folder / "out") == ["lr-find/lr_find.html", "lr-find/lr_find.json"]
    assert len(found.curve.losses) > 8
    told = [str(notice) for notice in recorder.notices if notice.setting == "trainer"]
    assert told == [
        "trainer: transformers -> luthier "
        "(the test runs in luthier's own loop, on the same rows and losses)"
    ]
    record = json.loads((found.folder / "lr_find.json").read_text("utf-8"))
    assert record["settings"]["run"]["trainer"] == "transformers"


PAIRS = [
    {"instruction": f"Name {i} colours.", "chosen": "Red and blue.", "rejected": "No, never."}
    for i in range(20)
]


@pytest.mark.parametrize("stage", ["dpo", "orpo"])
def test_pairs_are_tested_as_they_are_trained(
    small_run: Any, recorder: Any, write_file: Any, stage: str
):
    pairs = write_file("pairs.jsonl", "\n".join(map(json.dumps, PAIRS)))
    config = small_run.config(stage=stage, train_file=str(pairs), val_file=None)
    found = find(config, recorder)
    assert files(small_run.folder / "out") == ["lr-find/lr_find.html", "lr-find/lr_find.json"]
    # Whether it rises again at 10 is the loss's affair; that it falls on the way is the test's.
    assert found.suggestion.fall is not None
    assert found.suggestion.fall > 0.1
    if stage == "dpo":
        assert found.curve.start == pytest.approx(math.log(2), abs=1e-5)


def test_a_model_that_is_broken_is_recorded_without_nan(
    small_run: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
):
    module = importlib.import_module("luthier.engine.lr_range")
    monkeypatch.setattr(module, "_window_loss", lambda run, window: math.nan)
    found = find(small_run.config(), recorder)
    text = (found.folder / "lr_find.json").read_text("utf-8")
    assert found.suggestion.verdict == "no_start"
    assert json.loads(text)["start_loss"] is None
    assert "NaN" not in text


@pytest.mark.parametrize(
    ("asked", "windows", "steps", "told"),
    [
        (None, 500, 100, None),
        (None, 100, 100, None),
        (None, 62, 62, "num_steps: 100 -> 62 (one pass over the rows)"),
        (None, 10, 40, r"num_steps: 100 -> 40 (4.0 passes over the few rows: .*heart)"),
        (25, 500, 25, None),
        (200, 100, 200, r"num_steps: 2.0 passes over the few rows: .*"),
    ],
)
def test_how_many_steps(
    recorder: Any, asked: int | None, windows: int, steps: int, told: str | None
):
    assert settle_steps(asked, windows, recorder) == steps
    notices = [str(notice) for notice in recorder.notices]
    assert len(notices) == (told is not None)
    if told is not None:
        assert notices[0].startswith(told.partition(".*")[0])


def test_a_folder_that_cant_be_made(small_run: Any, recorder: Any, tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    config = small_run.config(output_dir=str(tmp_path / "file" / "out"))
    with pytest.raises(RunError, match=r"lr-find: output_dir can't be written: .*\n  Choose"):
        find(config, recorder)


def test_many_processes_are_refused(small_run: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="trains in one process"):
        find(small_run.config(), recorder)

"""What a run has left is read as it lies there: whole, torn, of an older version, or damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RunError
from luthier.core.lock import LOCK, locked_folder
from luthier.recipes.run_record import find_runs, read_run

MakeRun = Callable[..., Path]

SETTINGS = {
    "run": {"stage": "sft", "seed": 7},
    "schedule": {"learning_rate": 2e-5},
    "training": {"num_train_epochs": 2.0, "max_steps": None},
}
METRICS = [
    {"kind": "eval", "step": 0, "epoch": 0.0, "eval_loss": 3.0, "elapsed_seconds": 0.5},
    {"kind": "train", "step": 2, "epoch": 0.5, "loss": 2.5, "elapsed_seconds": 2.0},
    {"kind": "train", "step": 4, "epoch": 1.0, "loss": None, "elapsed_seconds": 4.0},
    {"kind": "eval", "step": 4, "epoch": 1.0, "eval_loss": None, "elapsed_seconds": 4.5},
    {"kind": "save", "step": 4, "epoch": 1.0, "seconds": 0.25},
    {"kind": "sample", "step": 4, "epoch": 1.0, "seconds": 0.75},
]
MANIFEST = {
    "started": "2026-11-24T10:00:00+00:00",
    "settings": SETTINGS,
    "model": {"name": "tiny"},
    "outcome": {"steps": 4, "finished": False, "seconds": 5.0},
    "earlier": [
        {"started": "2026-11-24T08:00:00+00:00", "outcome": {"seconds": 10.0}},
        {"started": "2026-11-24T09:00:00+00:00"},
    ],
}


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run's folder; a file that is None is left out."""

    def make(name: str = "run", **files: str | None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        given = {
            "run_yaml": json.dumps(SETTINGS),  # JSON is YAML.
            "manifest_json": json.dumps(MANIFEST),
            "metrics_jsonl": lines(METRICS),
        }
        for file, text in (given | files).items():
            if text is not None:
                (folder / file.replace("_", ".")).write_text(text, encoding="utf-8")
        return folder

    return make


def test_a_run_is_read_whole(make_run: MakeRun) -> None:
    run = read_run(
        make_run(
            events_jsonl=lines([{"kind": "outlier", "step": 3, "message": "odd", "rows": []}]),
            samples_jsonl=lines([{"step": 4, "prompt": "Hi", "answer": "Ho"}]),
        )
    )
    assert run.settings == SETTINGS
    assert run.flat_settings["learning_rate"] == 2e-5
    assert run.manifest["model"] == {"name": "tiny"}
    assert [record["step"] for record in run.train] == [2, 4]
    assert [record["step"] for record in run.evaluations] == [0, 4]
    assert [record["seconds"] for record in (*run.saves, *run.samplings)] == [0.25, 0.75]
    assert [event["message"] for event in run.events] == ["odd"]
    assert [sample["answer"] for sample in run.samples] == ["Ho"]
    assert run.state == "stopped"


def test_the_numbers_that_are_asked_for_most(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert run.last_metrics == {"loss": None, "eval_loss": None}
    assert run.best_eval_loss == 3.0
    assert (run.step, run.num_steps) == (4, 8)
    assert run.seconds == 15.0
    assert run.started == "2026-11-24T08:00:00+00:00"


def test_the_length_of_a_run_is_what_is_known_of_it(make_run: MakeRun) -> None:
    def length(name: str, max_steps: int | None, finished: bool, metrics: list[Any]) -> Any:
        settings = SETTINGS | {"training": {"num_train_epochs": 2.0, "max_steps": max_steps}}
        outcome = {"steps": 4, "finished": finished}
        manifest = MANIFEST | {"settings": settings, "outcome": outcome}
        written = {"manifest_json": json.dumps(manifest), "metrics_jsonl": lines(metrics)}
        return read_run(make_run(name, **written)).num_steps

    assert length("counted", 30, False, METRICS) == 30
    assert length("finished", 30, True, METRICS) == 4
    assert length("not begun", None, False, []) is None


def test_the_pace_is_that_of_the_newest_start(make_run: MakeRun) -> None:
    def pace(name: str, *clock: tuple[int, float]) -> float | None:
        metrics = [
            {"kind": "train", "step": s, "elapsed_seconds": t, "seconds_per_step": 9.0}
            for s, t in clock
        ]
        return read_run(make_run(name, metrics_jsonl=lines(metrics))).seconds_per_step

    assert pace("one piece", (2, 4.0), (4, 6.0), (6, 8.0)) == 1.0
    assert pace("went on", (2, 40.0), (4, 80.0), (6, 8.0), (10, 10.0)) == 0.5
    assert pace("one line", (2, 40.0), (4, 8.0)) == 9.0
    assert pace("none") is None


def test_a_torn_last_line_is_not_read(make_run: MakeRun) -> None:
    torn = '{"kind": "train", "step": 6, "lo'
    run = read_run(
        make_run(
            metrics_jsonl=lines(METRICS) + torn,
            events_jsonl=lines([{"step": 1}]) + torn,
            samples_jsonl=torn,
        )
    )
    assert run.step == 4
    assert len(run.events) == 1
    assert run.samples == ()


@pytest.mark.parametrize("file", ["metrics_jsonl", "events_jsonl", "samples_jsonl"])
@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_damaged_line_is_named(make_run: MakeRun, file: str, line: str) -> None:
    folder = make_run(**{file: lines([{"step": 1}]) + line + "\n" + lines([{"step": 2}])})
    with pytest.raises(RunError, match=rf"{file.replace('_', '.')}:2: this line is no record"):
        read_run(folder)


def test_the_state_follows_from_the_lock_and_the_manifest(make_run: MakeRun) -> None:
    def with_outcome(outcome: Any) -> str:
        return json.dumps(MANIFEST | {"outcome": outcome})

    stopped = make_run("stopped")
    finished = make_run("finished", manifest_json=with_outcome({"steps": 4, "finished": True}))
    killed = make_run("killed", manifest_json=with_outcome(None))
    (killed / LOCK).write_text('{"pid": 1}')
    states = [read_run(folder).state for folder in (stopped, finished, killed)]
    assert states == ["stopped", "finished", "broken off"]
    with locked_folder(killed, lambda line: None):
        assert read_run(killed).state == "running"


def test_a_run_of_an_older_version_is_read_as_far_as_it_goes(make_run: MakeRun) -> None:
    text = "run:\n  stage: sft\nschedule:\n  learning_rate: 2e-05\n"
    run = read_run(make_run(run_yaml=text, manifest_json=None, metrics_jsonl=None))
    assert run.flat_settings == {"stage": "sft", "learning_rate": 2e-5}
    assert (run.manifest, run.train, run.last_metrics, run.samples) == ({}, (), {}, ())
    assert (run.step, run.num_steps, run.seconds, run.best_eval_loss) == (0, None, 0.0, None)
    assert run.started is None
    assert run.state == "broken off"


def test_flat_settings_of_a_file_written_by_hand_are_found(make_run: MakeRun) -> None:
    text = "learning_rate: 2.0e-5\nrun:\n  seed: 3\n"
    run = read_run(make_run(run_yaml=text, manifest_json=None))
    assert run.flat_settings == {"learning_rate": 2e-5, "seed": 3}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"run_yaml": None}, "this folder holds no run: run.yaml is missing"),
        ({"manifest_json": '{"started": '}, "manifest.json: the manifest is damaged"),
        ({"manifest_json": "[]"}, "manifest.json: the manifest is damaged"),
        ({"run_yaml": "a: [", "manifest_json": None}, "run.yaml: these are no settings"),
        ({"run_yaml": "one", "manifest_json": None}, "run.yaml: these are no settings"),
    ],
)
def test_what_is_no_run_is_refused(
    make_run: MakeRun, files: dict[str, str | None], problem: str
) -> None:
    with pytest.raises(RunError, match=problem):
        read_run(make_run(**files))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="there is no such folder"):
        find_runs(tmp_path / "nowhere")


def test_runs_are_found_at_any_depth_and_once(make_run: MakeRun, tmp_path: Path) -> None:
    outer, inner = make_run("b"), make_run("a/deep/one")
    again = make_run("b/again")
    make_run("b/checkpoints/step-000004")
    make_run(".hidden/run")
    (tmp_path / "a" / "circle").symlink_to(tmp_path, target_is_directory=True)
    assert find_runs(tmp_path) == [inner, outer, again]
    assert find_runs(inner) == [inner]


def test_a_link_to_a_run_elsewhere_is_followed(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("disk/run")
    (tmp_path / "runs").mkdir()
    link = tmp_path / "runs" / "linked"
    link.symlink_to(run, target_is_directory=True)
    assert find_runs(tmp_path / "runs") == [link]


def test_a_real_run_is_read_the_same_from_its_manifest_and_its_yaml(small_run: Any) -> None:
    trained = small_run.train()
    run = read_run(trained.folder)
    assert run.state == "finished"
    assert (run.step, run.num_steps) == (8, 8)
    assert run.flat_settings["learning_rate"] == 1e-2
    assert run.last_eval["eval_loss"] == trained.result.last_eval["eval_loss"]
    (trained.folder / "manifest.json").unlink()
    assert read_run(trained.folder).settings == run.settings


def test_reading_runs_loads_no_torch() -> None:
    code = "import sys, luthier.recipes.run_record; print({'torch', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

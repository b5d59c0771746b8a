"""`luthier watch` follows a run that begins, goes on, goes back and ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import watch
from luthier.cli.terminal import Stopped
from luthier.cli.watch import PlainView, follow
from luthier.core.errors import RunError
from luthier.core.files import append_jsonl, write_text
from luthier.core.lock import locked_folder


class Script:
    """Does one thing at each wait, as another process would."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self._acts: Iterator[Callable[[], object]] = iter(acts)

    def __call__(self, seconds: float = 0.0) -> None:
        next(self._acts)()


class Run:
    """A run that another process might be at work on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = ExitStack()

    def take_lock(self) -> None:
        self.folder.mkdir()
        self._lock.enter_context(locked_folder(self.folder, lambda line: None))

    def begin(self) -> None:
        settings = {"run": {"stage": "sft"}, "training": {"max_steps": 4}}
        (self.folder / "manifest.json").write_text(json.dumps({"settings": settings}))
        (self.folder / "run.yaml").write_text("{}")

    def step(self, step: int) -> None:
        record = {"kind": "train", "step": step, "epoch": 0.1, "loss": 1.0, "elapsed_seconds": step}
        append_jsonl(self.folder / "metrics.jsonl", record)

    def go_back(self) -> None:
        write_text(self.folder / "metrics.jsonl", "")

    def end(self, finished: bool | None) -> None:
        outcome = None if finished is None else {"finished": finished, "steps": 4, "seconds": 5.0}
        (self.folder / "manifest.json").write_text(json.dumps({"outcome": outcome}))
        self._lock.close()


@pytest.fixture
def made(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def test_a_run_is_followed_from_before_it_is_there_to_its_end(made: Run, capture: Any) -> None:
    out = capture(watch)
    script = Script(
        made.take_lock,
        lambda: None,
        made.begin,
        lambda: made.step(1),
        lambda: made.step(2),
        made.go_back,
        lambda: made.step(1),
        lambda: made.end(finished=True),
    )
    ended = follow(made.folder, PlainView(watch.console), script)
    assert ended.state == "finished"
    lines = out.getvalue().splitlines()
    assert lines[0] == f"Waiting for a run in {made.folder}; Ctrl-C ends this"
    assert lines[1] == f"A run begins in {made.folder}: its data and model are being read"
    assert lines[2] == f"{made.folder}  sft  running"
    assert [line[:24] for line in lines[3:]] == [
        "step     1  epoch 0.10  ",
        "step     2  epoch 0.10  ",
        "The run went back to ste",
        "step     1  epoch 0.10  ",
    ]


@pytest.mark.parametrize(("finished", "code"), [(True, None), (False, 75), (None, 1)])
@pytest.mark.parametrize("terminal", [False, True])
def test_the_exit_code_says_how_it_ended(
    made: Run,
    capture: Any,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool | None,
    code: int | None,
    terminal: bool,
) -> None:
    out = capture(watch, terminal=terminal)
    made.take_lock()
    made.begin()
    made.step(1)
    made.step(2)
    monkeypatch.setattr(watch.time, "sleep", Script(lambda: made.end(finished)))
    if code is None:
        watch.run(str(made.folder))
    else:
        with pytest.raises(SystemExit) as end:
            watch.run(str(made.folder))
        assert end.value.code == code
    last = out.getvalue().strip().splitlines()[-1]
    assert last.endswith(
        {
            None: "finished after 5.0 s: step 4",
            75: "stopped after 5.0 s: step 4",
            1: "broken off after 2.0 s: step 2",
        }[code]
    )
    assert "loss 1.0000" in out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_ctrl_c_leaves_the_run_alone(
    made: Run, capture: Any, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    out = capture(watch, terminal=terminal)
    monkeypatch.setattr(watch.time, "sleep", interrupt)
    with pytest.raises(Stopped):
        watch.run(str(made.folder))
    assert "Waiting for a run" in out.getvalue()
    assert out.getvalue().strip().endswith("Nobody watches any more; the run goes on.")
    assert not made.folder.exists()


def test_a_run_at_work_without_a_metric_is_shown_in_a_terminal(
    made: Run, capture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = capture(watch, terminal=True)
    made.take_lock()
    made.begin()
    monkeypatch.setattr(watch.time, "sleep", Script(lambda: made.end(finished=True)))
    watch.run(str(made.folder))
    assert "running (process " in out.getvalue()


def test_a_damaged_file_ends_the_watching(made: Run) -> None:
    made.folder.mkdir()
    made.begin()
    (made.folder / "manifest.json").write_text("{")
    with pytest.raises(RunError, match="the manifest is damaged"):
        follow(made.folder, PlainView(watch.console), Script())


def test_a_sweep_is_answered_with_its_newest_trial(made: Run) -> None:
    made.folder.mkdir()
    (made.folder / "sweep.json").write_text("{}")
    with pytest.raises(RunError, match="this is a sweep, and no run") as caught:
        follow(made.folder, PlainView(watch.console), Script())
    assert (caught.value.mend or "").endswith("trial-0000")
    for name in ("trial-0000", "trial-0001"):
        (made.folder / name).mkdir()
    with pytest.raises(RunError) as caught:
        follow(made.folder, PlainView(watch.console), Script())
    assert (caught.value.mend or "").endswith(f"luthier watch {made.folder / 'trial-0001'}")

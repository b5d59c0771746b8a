"""Which checkpoint a run goes back to, and what is left of those after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.checkpoints.manifest import seal
from luthier.engine.guards import DivergedError, Event
from luthier.recipes.rollback import go_back


def make_checkpoint(run: Path, name: str) -> Path:
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}", encoding="utf-8")
    step = int(name.split("-")[1])
    seal(folder, {"step": step, "metrics": {}, "fingerprint": {}})
    return folder


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_back_to_before_the_update_that_led_astray(tmp_path: Path) -> None:
    for step in (4, 8, 9, 11):
        make_checkpoint(tmp_path, f"step-{step:06d}")
    events: list[Event] = []
    target = go_back(tmp_path, DivergedError.at("x", [10, 11]), events.append)
    # Step 9 made the update: the checkpoint after it holds it.
    assert target.name == "step-000008"
    assert names(tmp_path) == ["step-000004", "step-000008"]
    (event,) = events
    assert (event.kind, event.step) == ("rollback", 10)
    assert (
        event.message
        == "going back to step-000008; the rows of steps 9, 10, 11 will be passed over"
    )


def test_the_only_one_will_do(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "step-000009")
    assert go_back(tmp_path, DivergedError.at("x", [10]), lambda event: None).name == "step-000009"


def test_a_damaged_one_is_passed_over_and_left(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "step-000004")
    damaged = make_checkpoint(tmp_path, "step-000006")
    (damaged / "state.json").write_text("[]", encoding="utf-8")
    assert go_back(tmp_path, DivergedError.at("x", [9]), lambda event: None).name == "step-000004"


def test_without_a_checkpoint_from_before_there_is_no_way_back(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "step-000012")
    diverged = DivergedError.at("the loss of step 10 is nan", [10])
    with pytest.raises(DivergedError) as raised:
        go_back(tmp_path, diverged, lambda event: None)
    assert raised.value is diverged
    assert names(tmp_path) == ["step-000012"]

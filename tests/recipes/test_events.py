"""events.jsonl: rows with where they come from, and nothing of steps that will come again."""

from __future__ import annotations

from pathlib import Path

from luthier.contracts.notice import Notice
from luthier.engine.guards import Event
from luthier.recipes.events import EventFile, read_events


def test_an_event_is_written_and_told(tmp_path: Path) -> None:
    told: list[Notice] = []
    path = tmp_path / "events.jsonl"
    file = EventFile(path, lambda rows: [f"a.json:{row + 1}" for row in rows], told.append)
    file(Event("nonfinite", 4, "the loss of step 4 is nan", (6, 2)))
    file(Event("overfitting", 5, "it overfits"))
    assert read_events(path) == [
        {
            "kind": "nonfinite",
            "step": 4,
            "message": "the loss of step 4 is nan",
            "rows": [{"row": 6, "origin": "a.json:7"}, {"row": 2, "origin": "a.json:3"}],
        },
        {"kind": "overfitting", "step": 5, "message": "it overfits", "rows": []},
    ]
    assert [str(notice) for notice in told] == [
        f"nonfinite: the loss of step 4 is nan (rows: {path})",
        "overfitting: it overfits",
    ]


def test_going_on_drops_what_will_come_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventFile(path, lambda rows: [], lambda notice: None)
    file.go_on_after(0)
    assert read_events(path) == []
    for kind, step in (("spike", 2), ("nonfinite", 7), ("spike", 8), ("rollback", 9)):
        file(Event(kind, step, "x"))
    with path.open("a") as stream:
        stream.write('{"kind": "sp')  # The process was killed while it wrote.
    file.go_on_after(5, pass_over={6, 7})
    kept = [(event["kind"], event["step"]) for event in read_events(path)]
    assert kept == [("spike", 2), ("nonfinite", 7), ("rollback", 9)]

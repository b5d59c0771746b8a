"""events.jsonl: what was out of the ordinary in a run, with the rows that it happened at."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

from luthier.contracts.notice import Notice
from luthier.core.files import append_jsonl, read_jsonl, write_jsonl
from luthier.engine.guards import Event
from luthier.recipes.run_record import EVENTS as EVENTS


class EventFile:
    """Writes the events of a run, and tells each in one line."""

    def __init__(
        self,
        path: Path,
        origins: Callable[[Sequence[int]], list[str]],
        tell: Callable[[Notice], None],
    ) -> None:
        """Remember where to.

        Args:
            path: The file.
            origins: From numbers of prepared rows to where they come from, as file:line.
            tell: Told each event.
        """
        self._path = path
        self._origins = origins
        self._tell = tell

    def __call__(self, event: Event) -> None:
        """Write and tell one event."""
        origins = self._origins(event.rows) if event.rows else []
        record = {
            "kind": event.kind,
            "step": event.step,
            "message": event.message,
            "rows": [
                {"row": row, "origin": origin}
                for row, origin in zip(event.rows, origins, strict=True)
            ],
        }
        append_jsonl(self._path, record)
        rows = f" (rows: {self._path})" if event.rows else ""
        self._tell(Notice(event.kind, "", "", event.message + rows))

    def go_on_after(self, step: int, pass_over: Container[int] = ()) -> None:
        """Take out the events that will come again.

        Args:
            step: The last one that is done.
            pass_over: Steps that will not come again.
        """
        if not self._path.exists():
            return
        kept = [
            event
            for event in read_events(self._path)
            if event["step"] <= step or event["step"] in pass_over or event["kind"] == "rollback"
        ]
        write_jsonl(self._path, kept)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run; a last line that a killed run left torn is not read."""
    return read_jsonl(path)

"""What a target is: a file of its own that writes one format, and opens what it wrote.

A new target is a new module with a class that keeps this Protocol, and a line in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from luthier.export.check import CheckResult
from luthier.export.probe import Probe
from luthier.export.source import Source

Tell = Callable[[str], None]
"""Told a line about what takes time."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a target wrote, or finds again.

    Attributes:
        folder: Its own folder; what lies in it and below it belongs to the artifact.
        kind: Its type, for example Q8_0; None for a target without types.
        main: The file in the folder that its program opens; empty where that is the folder.
        notes: What a reader has to know, such as a width that fell back to another type.
    """

    folder: Path
    kind: str | None = None
    main: str = ""
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """What its program opens."""
        return self.folder / self.main


class Target(Protocol):
    """One format.

    Attributes:
        name: What the user writes, for example gguf.
        needs_type: Whether `--to NAME` alone is not enough; else `kind` may be None.
        needs_weights: Whether it reads the merged weights. Where no target does, nothing is merged.
    """

    name: str
    needs_type: bool
    needs_weights: bool

    def types(self) -> tuple[str, ...]:
        """Return the types that it writes, as the user spells them; none if there is no choice."""
        ...

    def bits(self, kind: str | None) -> float:
        """Return about how many bits a weight takes, for the room on the disk."""
        ...

    def require(self) -> None:
        """See that the packages are there, before anything slow.

        Raises:
            MissingExtraError: One is not.
        """
        ...

    def refuse(self, source_config: Mapping[str, Any]) -> None:
        """Refuse a model that the format does not know, by its config.json.

        Raises:
            ModelError: The format has no such architecture.
        """
        ...

    def write(self, source: Source, kind: str | None, folder: Path, tell: Tell) -> Artifact:
        """Write the artifact.

        Args:
            source: The trained model.
            kind: One of `types`, or None.
            folder: Empty; it is renamed when all is well.
            tell: Told what takes time.
        """
        ...

    def check(self, artifact: Artifact, probe: Probe) -> CheckResult:
        """Open the artifact with its own program and hold it against the trained model.

        `check_runtime` does the comparing; a target brings a `Runtime`.
        """
        ...

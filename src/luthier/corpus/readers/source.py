"""A source: one file or one hub data set, and what the user declared about its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

SourceFormat = Literal["auto", "alpaca", "sharegpt", "messages", "text", "record"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    Attributes:
        name: What the user calls it, the hub name, or the end of the path that tells it from
            other files. It stays the same when the folder is moved.
        path: The file, or None for a data set from the hub.
        hub: The name on the hub, or None for a file.
        format: `auto` looks at the fields of each row; the others are declared. `record` is
            that of a prepared corpus.
        columns: Declared names of fields, by the words of dataset_info.json (`prompt`, ...).
        tags: Declared names of keys and roles within messages (`role_tag`, `user_tag`, ...).
        splits: Splits of the hub data set; the first one that it has is read.
        subset: Configuration of the hub data set.
        folder: Folder within the hub data set.
        num_samples: Use this many of its rows, drawn by seed.
        weight: Its share in a mixture, for the step `sample`.
        category: The category of all its rows.
        part: Where several files share a name, which of them this is.
    """

    name: str
    path: Path | None = None
    hub: str | None = None
    format: SourceFormat = "auto"
    columns: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    tags: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    splits: tuple[str, ...] = ("train",)
    subset: str | None = None
    folder: str | None = None
    num_samples: int | None = None
    weight: float | None = None
    category: str | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        assert (self.path is None) != (self.hub is None), "a source is a file or a hub name"

    @property
    def key(self) -> str:
        """What no other source of the run has: an id of a row is this, `#` and its number."""
        return self.name if self.part is None else f"{self.name}/{self.part}"

    @property
    def label(self) -> str:
        """How messages call it: by its path, unless the user gave it a name."""
        if self.path is None or not self.path.as_posix().endswith(self.name):
            return self.key
        return str(self.path)

    def as_json(self) -> dict[str, Any]:
        """Return what decides its rows beside the bytes of the file, for hashes and manifests."""
        return {
            "name": self.name,
            "file": None if self.path is None else self.path.name,
            "hub": self.hub,
            "format": self.format,
            "columns": dict(self.columns),
            "tags": dict(self.tags),
            "splits": list(self.splits) if self.hub else None,
            "subset": self.subset,
            "folder": self.folder,
            "num_samples": self.num_samples,
            "category": self.category,
            "part": self.part,
        }

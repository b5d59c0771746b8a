"""What the user asks `luthier export` for; loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the user asked for.

    Attributes:
        model: A run folder, a checkpoint, an adapter or model folder, or a hub name.
        targets: Each as NAME or NAME:TYPE.
        out: Folder that the artifacts go into; None: exports/ in the run's folder.
        dtype: Type of the weights of hf; None: that of the base.
        data: File of rows to check with; None: the run's validation rows.
        overwrite: Whether an artifact of the same name is replaced.
    """

    model: str
    targets: Sequence[str]
    out: str | None = None
    dtype: str | None = None
    data: str | None = None
    overwrite: bool = False

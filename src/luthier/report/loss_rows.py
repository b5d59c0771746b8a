"""Rows with the loss of each of their tokens, before training and after, as coloured text.

In: what stands in a run's shown_rows.json. Out: rows for the page; each piece has a class of loss,
the same as `luthier inspect --with_losses` has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from luthier.report.curves import value
from luthier.report.words import Text, number, say

LIMITS = (0.5, 2.0, 5.0)
"""Upper edges of the classes of losses, in nats; the last class has none."""


@dataclass(frozen=True, slots=True)
class ColouredPiece:
    """A stretch of text.

    Attributes:
        css: Class on the page: of its loss, `seen` where it is not taught.
        loss: As text; empty where it carries none.
    """

    text: str
    css: str
    loss: str


@dataclass(frozen=True, slots=True)
class ColouredText:
    """A row under one model."""

    title: Text
    mean: Text | None
    pieces: list[ColouredPiece]


@dataclass(frozen=True, slots=True)
class LossRow:
    """A row: where it comes from, what is said of its answer, and its texts side by side."""

    origin: str
    side: Text
    judgement: Text | None
    texts: list[ColouredText]


def loss_rows(found: Mapping[str, Any]) -> list[LossRow]:
    """Return the rows of a shown_rows.json; what it does not hold is left out."""
    moments: list[tuple[str, Text]] = []
    if found.get("has_before"):
        moments.append(("before", say("run_before")))
    if found.get("step") is not None:
        moments.append(("after", say("run_step", step=number(found["step"]))))
    if len(moments) == 2:
        moments[1] = ("after", say("run_after"))
    return [
        LossRow(
            origin=str(row.get("origin") or ""),
            side=say("validation" if row.get("side") == "val" else "training"),
            judgement=None if row.get("judgement") is None else say(f"run_{row['judgement']}"),
            texts=[_text(title, row.get("pieces") or (), moment) for moment, title in moments],
        )
        for row in found.get("rows") or ()
    ]


def legend() -> list[tuple[str, Text]]:
    """Return the classes of loss and what each stands for."""
    return [(f"l{at}", say(f"run_loss_{at}")) for at in range(len(LIMITS) + 1)]


def _text(title: Text, pieces: Sequence[Mapping[str, Any]], moment: str) -> ColouredText:
    shown = [_piece(piece, value(piece, moment)) for piece in pieces]
    losses = [loss for piece in pieces if (loss := value(piece, moment)) is not None]
    mean = say("run_mean_loss", loss=f"{fmean(losses):.3f}") if losses else None
    return ColouredText(title, mean, shown)


def _piece(piece: Mapping[str, Any], loss: float | None) -> ColouredPiece:
    text = str(piece.get("text") or "")
    if loss is None:
        return ColouredPiece(text, "seen", "")
    at = next((at for at, limit in enumerate(LIMITS) if loss < limit), len(LIMITS))
    return ColouredPiece(text, f"l{at}", f"{loss:.2f}")

"""What an artifact is asked, and what the trained model said to it.

In: the trained model, base and adapter apart. Out: rendered chats with their ids, a few rows with
the model's log-probabilities, and its greedy answers, kept as a small folder beside an artifact so
that it can be checked anywhere.

Of each place of a row the folder keeps the likeliest tokens and the mass of all others, which count
as one token: the KL divergence of that is never more than the whole one, and hardly less.

Shape suffixes: T places of a row that are followed by a token, V vocabulary, K kept tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier.core.files import write_json
from luthier.export.source import read_json

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int32]

PROBE_FOLDER = "probe"
PROBE_JSON = "probe.json"
NUM_KEPT = 1024
"""Likeliest tokens of each place that are kept: all but a few thousandths of the probability."""

_LEAST_MASS = 1e-9


@dataclass(frozen=True, slots=True)
class ProbeChat:
    """A conversation up to where an answer begins.

    Attributes:
        messages: Turns of role and content; none of a text, which no template renders.
        text: As the trained template renders them, or the text.
        ids: Its tokens.
    """

    messages: tuple[Mapping[str, str], ...]
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowLogProbs:
    """What the trained model said at each place of a row.

    Attributes:
        kept_log_probs: (T, K) of the likeliest tokens, the likeliest first; float32.
        kept_ids: (T, K) which tokens those are.
        next_log_probs: (T,) of the token that follows; float32.
        num_tokens: Size of the vocabulary.
    """

    kept_log_probs: FloatArray
    kept_ids: IntArray
    next_log_probs: FloatArray
    num_tokens: int

    @classmethod
    def of(cls, log_probs_TV: FloatArray, ids: Sequence[int]) -> RowLogProbs:
        """Keep what is needed of a row's log-probabilities.

        Args:
            log_probs_TV: Of each place but the last.
            ids: The row's tokens, one more than places.
        """
        num_tokens = log_probs_TV.shape[1]
        order = np.argsort(-log_probs_TV, axis=1, kind="stable")[:, :NUM_KEPT]
        kept = np.take_along_axis(log_probs_TV, order, axis=1)
        return cls(
            kept.astype(np.float32),
            order.astype(np.int32),
            next_log_probs(log_probs_TV, ids),
            num_tokens,
        )

    def divergence(self, log_probs_TV: FloatArray) -> npt.NDArray[np.float64]:
        """Return the KL divergence of another model from the trained one, in nats, by place.

        Args:
            log_probs_TV: The other's. Tokens beyond this vocabulary belong to the rest.
        """
        other = np.take_along_axis(log_probs_TV, self.kept_ids, axis=1).astype(np.float64)
        kept = self.kept_log_probs.astype(np.float64)
        kept_mass = np.exp(kept)
        divergence = (kept_mass * (kept - other)).sum(axis=1)
        rest = np.maximum(1 - kept_mass.sum(axis=1), _LEAST_MASS)
        other_rest = np.maximum(1 - np.exp(other).sum(axis=1), _LEAST_MASS)
        return divergence + rest * (np.log(rest) - np.log(other_rest))

    def same_top(self, log_probs_TV: FloatArray) -> npt.NDArray[np.bool_]:
        """Return at which places another model has the same likeliest token."""
        return self.kept_ids[:, 0] == log_probs_TV.argmax(axis=1)


@dataclass(frozen=True, slots=True)
class Probe:
    """What an artifact is asked.

    Attributes:
        origin: Where the rows are from, in words.
        chats: For the template and the tokenizer.
        rows: Token ids, about 512 in all.
        log_probs: What the trained model said to each row.
        prompts: Token ids that ask for an answer.
        answers: The trained model's greedy answers.
        stopped: Whether each answer ended by itself.
        max_new_tokens: Longest answer.
        stop_token_ids: Any of these ends an answer.
        day: When the chats were rendered, as ISO 8601, where the template writes the date.
    """

    origin: str
    chats: tuple[ProbeChat, ...]
    rows: tuple[tuple[int, ...], ...]
    log_probs: tuple[RowLogProbs, ...]
    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    stopped: tuple[bool, ...]
    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    day: str | None = None

    @property
    def perplexity(self) -> float:
        """The trained model's on the rows, of all tokens but the first of each."""
        return perplexity([row.next_log_probs for row in self.log_probs])


def next_log_probs(log_probs_TV: FloatArray, ids: Sequence[int]) -> FloatArray:
    """Return the log-probability of each token of a row but the first."""
    following = np.asarray(ids[1:], dtype=np.int64)
    return np.take_along_axis(log_probs_TV, following[:, None], axis=1)[:, 0].astype(np.float32)


def perplexity(next_log_probs_of_rows: Sequence[FloatArray]) -> float:
    """Return the perplexity of rows, each token counted once."""
    mean = -float(np.concatenate(next_log_probs_of_rows).astype(np.float64).mean())
    with np.errstate(over="ignore"):
        return float(np.exp(mean))


def write_probe(probe: Probe, folder: Path) -> None:
    """Write a probe as JSON and one npz file; a few MB."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for number, row in enumerate(probe.log_probs):
        arrays |= {
            f"kept_{number}": row.kept_log_probs,
            f"ids_{number}": row.kept_ids,
            f"next_{number}": row.next_log_probs,
        }
    np.savez(folder / "log_probs.npz", **arrays)
    known = {
        "origin": probe.origin,
        "chats": [asdict(chat) for chat in probe.chats],
        "rows": probe.rows,
        "vocabulary": [row.num_tokens for row in probe.log_probs],
        "prompts": probe.prompts,
        "answers": probe.answers,
        "stopped": probe.stopped,
        "max_new_tokens": probe.max_new_tokens,
        "stop_token_ids": probe.stop_token_ids,
        "day": probe.day,
    }
    write_json(folder / PROBE_JSON, known)


def read_probe(folder: Path) -> Probe:
    """Read what `write_probe` wrote.

    Raises:
        ModelError: It is missing or damaged.
    """
    known = read_json(folder / PROBE_JSON)
    with np.load(folder / "log_probs.npz", allow_pickle=False) as arrays:
        log_probs = tuple(
            RowLogProbs(
                arrays[f"kept_{number}"], arrays[f"ids_{number}"], arrays[f"next_{number}"], size
            )
            for number, size in enumerate(known["vocabulary"])
        )
    return Probe(
        origin=known["origin"],
        chats=tuple(
            ProbeChat(tuple(chat["messages"]), chat["text"], tuple(chat["ids"]))
            for chat in known["chats"]
        ),
        rows=tuple(map(tuple, known["rows"])),
        log_probs=log_probs,
        prompts=tuple(map(tuple, known["prompts"])),
        answers=tuple(known["answers"]),
        stopped=tuple(known["stopped"]),
        max_new_tokens=known["max_new_tokens"],
        stop_token_ids=tuple(known["stop_token_ids"]),
        day=known["day"],
    )

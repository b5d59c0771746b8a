"""Hold an artifact against the model that it was made from; one shape for all targets.

In: an artifact opened by its own program (`Runtime`), and a `Probe`. Out: a `CheckResult`; it has
passed where it names no problem. Greedy text is shown and never judged: rounding alone turns it
into another, equally good one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import numpy as np

from luthier.export.probe import FloatArray, Probe, ProbeChat, next_log_probs, perplexity


@dataclass(frozen=True, slots=True)
class Bound:
    """How far an artifact of a type may be from the trained model.

    Attributes:
        kl: Mean KL divergence of a place, in nats, at most.
        top1: Share of places with the same likeliest token, at least.
    """

    kl: float
    top1: float


# What a model of 135M parameters loses (F16 4e-6 / 1.00, Q8_0 .0037 / .955, Q6_K .0085 / .951,
# Q4_K_M .047 / .881, Q4_0 .248 / .711), with room: larger models lose less.
_WHOLE = Bound(1e-3, 0.99)
_EIGHT = Bound(0.03, 0.93)
_FOUR = Bound(0.15, 0.80)
BOUNDS: Mapping[str, Bound] = {
    **dict.fromkeys(("float32", "float16", "F32", "F16", "fp32", "fp16"), _WHOLE),
    # bfloat16 keeps 8 bits of each weight: 8e-5 / .996 there, up to .002 where it was merged so.
    **dict.fromkeys(("bfloat16", "BF16", "bf16"), Bound(0.003, 0.98)),
    **dict.fromkeys(("Q8_0", "Q6_K", "int8", "fp8"), _EIGHT),
    **dict.fromkeys(("Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S"), _FOUR),
    **dict.fromkeys(("Q4_1", "Q4_0", "int4"), Bound(0.5, 0.6)),
}
"""By the name of a type; of one that is not named here, as of float32."""


class Runtime(Protocol):
    """An artifact, opened by the program that it is made for. Nothing of luthier's helps it."""

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """Return the ids that ask for the next answer, by its own template and tokenizer.

        None where the program renders no chats.
        """
        ...

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text that is rendered already, with nothing put before or behind."""
        ...

    def stop_token_ids(self) -> frozenset[int]:
        """Return the ids that end an answer if nobody says otherwise."""
        ...

    def log_probs(self, ids: Sequence[int]) -> FloatArray:
        """Return log-probabilities (T, V), float32, of what follows each token but the last.

        The row is computed in one go.
        """
        ...

    def cached_log_probs(self, ids: Sequence[int]) -> FloatArray | None:
        """Return the same, computed a token at a time with its cache; None if it has none."""
        ...

    def answer(self, ids: Sequence[int], max_new_tokens: int) -> tuple[str, bool]:
        """Return its greedy answer without special tokens, and whether it ended by itself."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt's answers, side by side.

    Attributes:
        prompt: Its end, as text or ids.
        trained: What the trained model says.
        artifact: What the artifact says.
    """

    prompt: str
    trained: str
    artifact: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found. None: not looked at, or the program can't tell.

    Attributes:
        kl: Mean KL divergence from the trained model, in nats.
        top1: Share of places with the same likeliest token.
        ppl: Perplexity on the probe's rows.
        ppl_ratio: That, divided by the trained model's.
        ids_equal: Whether chats become the ids of the training.
        stops: Whether answers end where they did.
        cached_equal: Whether decoding with a cache gives the same probabilities.
        samples: Answers side by side.
        problems: What is out of bounds, and by how much; empty where it passed.
        not_checked: Why the artifact was not run, and the command that checks it elsewhere.
    """

    kl: float | None = None
    top1: float | None = None
    ppl: float | None = None
    ppl_ratio: float | None = None
    ids_equal: bool | None = None
    stops: bool | None = None
    cached_equal: bool | None = None
    samples: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = ()
    not_checked: str | None = None

    @property
    def verdict(self) -> str:
        """`passed`, `failed` or `not checked`."""
        if self.problems:
            return "failed"
        return "passed" if self.not_checked is None else "not checked"


def bound_of(kind: str | None) -> Bound:
    """Return how far an artifact of a type may be from the trained model."""
    return BOUNDS.get(kind or "", _WHOLE)


def check_runtime(
    runtime: Runtime, probe: Probe, bound: Bound, *, with_cache: bool = True
) -> CheckResult:
    """Ask an artifact everything that a probe holds.

    Args:
        runtime: The artifact, opened.
        probe: What to ask, and what the trained model said.
        bound: Of the artifact's type.
        with_cache: Whether decoding with a cache is held against decoding without.
    """
    problems: list[str] = []
    ids_equal = _check_ids(runtime, probe, problems)
    kl, top1, ppl = _check_rows(runtime, probe, bound, problems)
    cached_equal = _check_cache(runtime, probe, bound, problems) if with_cache else None
    samples, stops = _check_answers(runtime, probe, problems)
    return CheckResult(
        kl=kl,
        top1=top1,
        ppl=ppl,
        ppl_ratio=None if ppl is None else ppl / probe.perplexity,
        ids_equal=ids_equal,
        stops=stops,
        cached_equal=cached_equal,
        samples=samples,
        problems=tuple(problems),
    )


def _check_ids(runtime: Runtime, probe: Probe, problems: list[str]) -> bool | None:
    found_problem: str | None = None
    # A template that writes the date renders other chats on another day.
    is_of_today = probe.day in (None, date.today().isoformat())
    for chat in probe.chats:
        # The text alone first: where it already differs, the template is not to blame.
        ids = runtime.text_ids(chat.text)
        if ids != list(chat.ids):
            found_problem = f"the tokenizer differs: {_difference(ids, chat)}"
            break
        told = runtime.chat_ids(chat.messages) if chat.messages and is_of_today else None
        if told is not None and told != list(chat.ids):
            found_problem = f"the chat template differs: {_difference(told, chat)}"
            break
    if found_problem is not None:
        problems.append(found_problem)
    return found_problem is None if probe.chats else None


def _difference(ids: Sequence[int], chat: ProbeChat) -> str:
    pairs = enumerate(zip(ids, chat.ids, strict=False))
    place = next((i for i, (one, other) in pairs if one != other), min(len(ids), len(chat.ids)))
    here, there = list(ids[place : place + 4]), list(chat.ids[place : place + 4])
    return (
        f"from token {place} on it gives {here} ..., training had {there} ... ({chat.text!r:.80})"
    )


def _check_rows(
    runtime: Runtime, probe: Probe, bound: Bound, problems: list[str]
) -> tuple[float | None, float | None, float | None]:
    divergences: list[Any] = []
    same: list[Any] = []
    nexts: list[FloatArray] = []
    for ids, trained in zip(probe.rows, probe.log_probs, strict=True):
        log_probs = runtime.log_probs(ids)
        if log_probs.shape[1] < trained.num_tokens:
            problems.append(
                f"the vocabulary has {log_probs.shape[1]:,} tokens, the trained model "
                f"{trained.num_tokens:,}"
            )
            return None, None, None
        divergences.append(trained.divergence(log_probs))
        same.append(trained.same_top(log_probs))
        nexts.append(next_log_probs(log_probs, ids))
    if not divergences:
        return None, None, None
    kl = float(np.concatenate(divergences).mean())
    top1 = float(np.concatenate(same).mean())
    # Written so that nan is out of bounds, too.
    if not kl <= bound.kl:
        problems.append(f"its KL divergence is {kl:.3g}, at most {bound.kl:g} is allowed")
    if not top1 >= bound.top1:
        problems.append(
            f"its likeliest token is the trained model's at {top1:.1%} of the places, at least "
            f"{bound.top1:.0%} is wanted"
        )
    return kl, top1, perplexity(nexts)


_NUM_CACHED = 32
_CACHE_SLACK = 1e-3


def _check_cache(runtime: Runtime, probe: Probe, bound: Bound, problems: list[str]) -> bool | None:
    if not probe.rows:
        return None
    ids = probe.rows[0][:_NUM_CACHED]
    cached = runtime.cached_log_probs(ids)
    if cached is None:
        return None
    whole = runtime.log_probs(ids).astype(np.float64)
    kl = float((np.exp(whole) * (whole - cached)).sum(axis=1).mean())
    # Its own rounding, not that of its weights: no type is allowed more than a little.
    allowed = max(_CACHE_SLACK, bound.kl / 10)
    if not abs(kl) <= allowed:
        problems.append(
            f"decoding with its cache gives other probabilities than without: KL {kl:.3g}, at "
            f"most {allowed:g} is allowed"
        )
        return False
    return True


def _check_answers(
    runtime: Runtime, probe: Probe, problems: list[str]
) -> tuple[tuple[Sample, ...], bool]:
    missing = sorted(set(probe.stop_token_ids) - runtime.stop_token_ids())
    if missing:
        problems.append(f"it does not stop at {missing}, which end an answer")
    runs_on: list[str] = []
    samples: list[Sample] = []
    chats = {chat.ids: chat.text for chat in probe.chats}
    asked = zip(probe.prompts, probe.answers, probe.stopped, strict=True)
    for ids, trained, stopped in asked:
        answer, ended = runtime.answer(ids, probe.max_new_tokens)
        samples.append(Sample(chats.get(ids, f"{len(ids)} tokens"), trained, answer))
        # It said the same and did not end there; another answer may be a longer one.
        if stopped and not ended and answer.startswith(trained):
            runs_on.append(answer[len(trained) :])
    if runs_on:
        problems.append(f"an answer runs on past its end: {runs_on[0]!r:.60}")
    return tuple(samples), not (missing or runs_on)

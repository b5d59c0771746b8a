"""A run that is at work as a picture in the terminal, and as plain lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from luthier.cli.corpus_tables import VISIBLE
from luthier.cli.curve import draw_curve
from luthier.core.units import format_bytes, format_count, format_seconds
from luthier.recipes.run_record import RunRecord

STYLES = {"running": "cyan", "finished": "green", "stopped": "yellow", "broken off": "red"}
"""The colour of each state of a run."""

_CURVE_HEIGHT = 8
_NUM_SAMPLES = 3
_NUM_EVENTS = 3
_ONE_LINE = {**VISIBLE, ord("\n"): "⏎", ord("\t"): " "}


def draw_run(run: RunRecord, width: int, silent_s: float, holder: str) -> Group:
    """Return a picture of a run.

    Args:
        run: As it is now.
        width: Columns of the terminal.
        silent_s: Seconds since it last wrote down anything.
        holder: Which process is at work.
    """
    parts: list[RenderableType] = [_head(run, silent_s, holder)]
    parts.append(_progress(run, width, silent_s))
    losses = _finite(run.train, "loss")
    if len(losses) > 1:
        for line in draw_curve(losses, width=min(60, width - 12), height=_CURVE_HEIGHT):
            parts.append(Text(line, style="cyan", no_wrap=True))
    if run.train:
        parts.append(_one_line(metric_words(run.last_train), "cyan"))
    if run.evaluations:
        parts.append(_one_line(evaluation_words(run.last_eval) + _best(run), "green"))
    for sample in newest_samples(run)[:_NUM_SAMPLES]:
        parts.append(_one_line(sample_words(sample), ""))
    for event in run.events[-_NUM_EVENTS:]:
        parts.append(_one_line(event_words(event), "yellow"))
    return Group(*parts)


def new_lines(before: RunRecord | None, run: RunRecord) -> Iterator[Text]:
    """Yield what a run has written down since it was looked at last, a line each.

    Args:
        before: As it was then; None: everything is new.
        run: As it is now; it may have gone back to a checkpoint meanwhile.
    """
    if before is None:
        yield _head(run, 0.0, "")
    fresh: list[tuple[int, int, Text]] = []
    for order, (name, words, style) in enumerate(
        (("train", metric_words, ""), ("evaluations", evaluation_words, "green"))
    ):
        old, new = getattr(before, name, ()), getattr(run, name)
        kept = _num_same(old, new)
        if name == "train" and kept < len(old):
            yield Text(f"The run went back to step {new[kept - 1]['step'] if kept else 0}")
        for record in new[kept:]:
            text = Text(f"step {record['step']:5}  {words(record)}", style=style)
            fresh.append((record["step"], order, text))
    for sample in run.samples[_num_same(getattr(before, "samples", ()), run.samples) :]:
        text = Text(f"step {sample['step']:5}  {sample_words(sample)}")
        fresh.append((sample["step"], 2, text))
    for event in run.events[_num_same(getattr(before, "events", ()), run.events) :]:
        fresh.append((event["step"], 3, Text(event_words(event), style="yellow")))
    yield from (text for *_, text in sorted(fresh, key=lambda one: one[:2]))


def metric_words(metrics: Mapping[str, Any]) -> str:
    """Return the metrics of training in one line; a number that is not finite is a dash."""
    parts = [
        _number("epoch", metrics.get("epoch"), ".2f"),
        _number("loss", metrics.get("loss"), ".4f"),
        _number("lr", metrics.get("learning_rate"), ".1e"),
        _number("grad norm", metrics.get("grad_norm"), ".3f"),
    ]
    for name in ("reward", "rewards/accuracies", "rewards/margins"):
        if name in metrics:
            parts.append(_number(name, metrics[name], "+.3f"))
    if metrics.get("tokens_per_second") is not None:
        parts.append(f"{format_count(metrics['tokens_per_second'])} tokens/s")
    if metrics.get("memory_bytes") is not None:
        parts.append(format_bytes(metrics["memory_bytes"]))
    return "  ".join(parts)


def evaluation_words(metrics: Mapping[str, Any]) -> str:
    """Return the metrics of a validation in one line."""
    parts = [_number("validation loss", metrics.get("eval_loss"), ".4f")]
    for name, label, form in (
        ("eval_perplexity", "perplexity", ".2f"),
        ("eval_bits_per_byte", "bits per byte", ".4f"),
        ("eval_reward", "reward", "+.3f"),
        ("eval_rewards/accuracies", "pairs ranked right", ".1%"),
    ):
        if name in metrics:
            parts.append(_number(label, metrics[name], form))
    return "  ".join(parts)


def event_words(event: Mapping[str, Any]) -> str:
    """Return an event in one line."""
    return f"step {event['step']}: {_shown(str(event.get('message', event.get('kind'))))}"


def sample_words(sample: Mapping[str, Any]) -> str:
    """Return a prompt and its answer in one line; dots for an answer that was cut off."""
    prompt, answer = (_shown(str(sample.get(name, ""))) for name in ("prompt", "answer"))
    return f"{prompt} → {answer}" + (" …" if sample.get("finish_reason") == "length" else "")


def progress_words(run: RunRecord, silent_s: float) -> str:
    """Return how far a run is and how long it will take; empty before the first line of its log.

    Args:
        run: As it is now.
        silent_s: Seconds since it last wrote down anything: they are over.
    """
    length, pace = run.num_steps, run.seconds_per_step
    if length is None or not run.train:
        return ""
    words = f"step {run.step:,} of {length:,}"
    if run.state == "running" and pace is not None:
        left = max(0.0, (length - run.step) * pace - silent_s)
        words += f", about {format_seconds(left)} left"
    return words


def newest_samples(run: RunRecord) -> list[Mapping[str, Any]]:
    """Return the answers of the last time that the prompts were answered."""
    if not run.samples:
        return []
    step = run.samples[-1]["step"]
    return [sample for sample in run.samples if sample["step"] == step]


def _head(run: RunRecord, silent_s: float, holder: str) -> Text:
    settings = run.flat_settings
    words = [str(settings[n]) for n in ("stage", "model_name_or_path") if settings.get(n)]
    text = Text.assemble((str(run.folder), "bold"), "  ", " · ".join(words))
    text.append(f"  {run.state}", style=STYLES[run.state])
    if run.state == "running" and holder:
        silent = f"; last line {format_seconds(silent_s)} ago" if run.train else ""
        text.append(f" ({holder}{silent})", style="dim")
    return text


def _progress(run: RunRecord, width: int, silent_s: float) -> RenderableType:
    words = progress_words(run, silent_s)
    if not words or run.num_steps is None:
        return Text("before the first line of the log", style="dim")
    length = max(run.num_steps, 1)
    line = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=length, completed=run.step, width=max(8, min(40, width - 40)))
    line.add_row(bar, Text(words))
    return line


def _best(run: RunRecord) -> str:
    best = run.best_eval_loss
    if best is None or len(run.evaluations) < 2:
        return ""
    step = next(r["step"] for r in run.evaluations if r.get("eval_loss") == best)
    return f"  (best {best:.4f}, step {step:,})"


def _finite(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [r[name] for r in records if r.get(name) is not None and math.isfinite(r[name])]


def _num_same(old: Sequence[Any], new: Sequence[Any]) -> int:
    """Return how many records two readings have in common, from the first on."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(old), len(new)))


def _number(label: str, value: float | None, form: str) -> str:
    return f"{label} -" if value is None else f"{label} {value:{form}}"


def _shown(text: str) -> str:
    return text.translate(_ONE_LINE)


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")

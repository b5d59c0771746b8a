"""The tables of a run's page: validations, data, samples, evaluations, what made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.units import format_bytes, format_seconds
from luthier.report.curves import Record, value
from luthier.report.reported_run import ReportedRun, best_eval
from luthier.report.words import Text, has_reason, moment, name_of, number, reason_words, say, share

_MOST_STEPS = 8
"""Columns of samples; more are thinned, for a row of twenty answers is not read."""

_SHOWN_HASH = 16
_NOT_MEASURED = frozenset({"eval_seconds", "eval_supervised_tokens"})
_NOTHING = Text.same("–")


@dataclass(frozen=True, slots=True)
class Table:
    """Names of columns, and rows of as many cells; the first cell of a row is its name."""

    columns: list[Text]
    rows: list[list[Text]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a prompt after a step."""

    step: Text
    text: str
    is_cut_off: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A fixed prompt, and the answers to it, step by step."""

    text: str
    answers: list[Answer | None]


@dataclass(frozen=True, slots=True)
class Samples:
    """The prompts, and at how many steps they were answered.

    Attributes:
        num_shown: Of these steps.
    """

    prompts: list[Prompt]
    num_steps: int
    num_shown: int


@dataclass(frozen=True, slots=True)
class Result:
    """An evaluation as a table; None in `table` where its file can't be read."""

    title: str
    model: str
    base: str | None
    table: Table | None


def metric_text(name: str, number_: float | None) -> str:
    """Return a metric as people read it."""
    if number_ is None:
        return "–"
    if name.endswith("memory_bytes"):
        return format_bytes(number_)
    if name == "seconds" or name.endswith("_seconds"):
        return format_seconds(number_)
    if name.endswith(("accuracy", "accuracies")):
        return f"{100 * number_:.1f} %"
    if abs(number_) >= 1000:
        return number(number_)
    return f"{number_:.4g}" if abs(number_) < 0.01 else f"{number_:.4f}".rstrip("0").rstrip(".")


def is_measured(name: str) -> bool:
    """Whether a value of a validation says how good the model is, and not how it was measured."""
    return name.startswith("eval_") and name not in _NOT_MEASURED


def validations(run: ReportedRun) -> Table | None:
    """Return the first, the best and the last validation side by side; None without one."""
    if not run.evals:
        return None
    best = best_eval(run)
    shown = [("run_first", run.evals[0])]
    if best is not None and best["step"] not in (run.evals[0]["step"], run.evals[-1]["step"]):
        shown.append(("run_best_column", best))
    if len(run.evals) > 1:
        shown.append(("run_last", run.evals[-1]))
    names = dict.fromkeys(name for _, record in shown for name in record)
    rows = [
        [name_of("metrics", name)]
        + [Text.same(metric_text(name, value(record, name))) for _, record in shown]
        for name in names
        if is_measured(name)
    ]
    steps = [say("run_step", step=number(record["step"])) for _, record in shown]
    heads = [
        say(label) + Text(", ", "，") + step for (label, _), step in zip(shown, steps, strict=True)
    ]
    return Table([say("run_metric"), *heads], rows)


def data_counts(manifest: Record) -> Table | None:
    """Return rows, tokens and lengths of the prepared data; None where nothing is recorded."""
    data = manifest.get("data") or {}
    splits: Mapping[str, Any] = data.get("splits") or {}
    if not splits:
        return None
    sides = [side for side in ("train", "val") if side in splits]
    rows: list[list[Text]] = []
    for label, name in (
        ("rows", "rows"),
        ("tokens", "tokens"),
        ("run_taught", "supervised_tokens"),
        ("run_longest", "max_length"),
    ):
        counts = [splits[side].get(name) for side in sides]
        if any(count is not None for count in counts):
            rows.append([say(label), *(_count(count) for count in counts)])
    names = {"train": "training", "val": "validation"}
    return Table([Text.same(""), *(say(names[side]) for side in sides)], rows)


def left_out(manifest: Record) -> Table | None:
    """Return the rows that training does not see, by reason; None where none was counted."""
    counts = (manifest.get("data") or {}).get("counts") or {}
    steps: Sequence[Record] = (manifest.get("corpus") or {}).get("steps") or ()
    found = [
        (reason_words(str(step["name"]), reason).name, num_rows)
        for step in steps
        for reason, num_rows in (step.get("dropped") or {}).items()
    ]
    found += [(_reason(reason), num) for reason, num in (counts.get("dropped") or {}).items()]
    read = steps[0]["rows_in"] if steps else counts.get("rows_read")
    if read is None:
        return None
    rows = [
        [name, _count(num_rows), Text.same(share(num_rows, read))]
        for name, num_rows in sorted(found, key=lambda item: -item[1])
        if num_rows
    ]
    if counts.get("truncated_rows"):
        cut = counts["truncated_rows"]
        rows.append([say("run_cut"), _count(cut), Text.same(share(cut, read))])
    rows.append([say("run_read"), _count(read), _NOTHING])
    return Table([say("reason"), say("rows"), say("share")], rows)


def length_bars(manifest: Record) -> tuple[list[str], list[int]] | None:
    """Return the classes of length of the training rows and how many rows each has."""
    splits: Mapping[str, Any] = (manifest.get("data") or {}).get("splits") or {}
    train: Mapping[str, Any] = splits.get("train") or {}
    histogram: Sequence[tuple[int, int]] = train.get("length_histogram") or ()
    # Edge 0 stands for all that is longer than the last edge.
    ordered = sorted(histogram, key=lambda pair: pair[0] or float("inf"))
    names: list[str] = []
    before = 0
    for edge, _ in ordered:
        names.append(f"{before + 1:,}–{edge:,}" if edge else f"> {before:,}")
        before = edge
    return (names, [count for _, count in ordered]) if names else None


def samples(records: Sequence[Record]) -> Samples:
    """Return the answers to each prompt in the order of the steps."""
    steps = sorted({int(record["step"]) for record in records})
    shown = _spread(steps, _MOST_STEPS)
    by_prompt: dict[str, dict[int, Record]] = {}
    for record in records:
        by_prompt.setdefault(str(record.get("prompt")), {})[int(record["step"])] = record
    prompts = [
        Prompt(text, [_answer(step, found.get(step)) for step in shown])
        for text, found in by_prompt.items()
    ]
    return Samples(prompts, len(steps), len(shown))


def results(found: Mapping[str, Record | None]) -> list[Result]:
    """Return each evaluation as a table, with the base beside it where it was measured."""
    return [_result(name, record) for name, record in found.items()]


def origin_facts(manifest: Record) -> Table:
    """Return the versions, the machine and the hashes that a run's manifest names."""
    luthier, outcome = manifest.get("luthier") or {}, manifest.get("outcome") or {}
    computing, machine = manifest.get("computing") or {}, manifest.get("machine") or {}
    commit = str(luthier.get("commit") or "")[:_SHOWN_HASH]
    gpus = [
        str(gpu.get("name") if isinstance(gpu, Mapping) else gpu)
        for gpu in machine.get("gpus") or ()
    ]
    cpu = machine.get("cpu") or {}
    facts: list[tuple[Text, Any]] = [
        (say("run_started"), moment(manifest.get("started"))),
        (say("run_ended"), moment(manifest.get("ended"))),
        (say("run_parts"), len(manifest.get("earlier") or ()) + 1),
        (Text.same("luthier"), f"{luthier.get('version', '')} {commit}".strip()),
        (
            say("run_device"),
            ", ".join(gpus) or f"{cpu.get('name', '')}, {cpu.get('cores', '?')} cores",
        ),
        (say("run_precision"), computing.get("precision")),
        (say("seed"), manifest.get("seed")),
        (Text.same("Python"), machine.get("python")),
        (Text.same("model"), (manifest.get("model") or {}).get("name")),
        *_hashes(manifest),
        (say("run_weights"), str(outcome.get("weights_sha256") or "")[:_SHOWN_HASH]),
    ]
    rows = [
        [name, Text.same(str(fact))] for name, fact in facts if fact not in (None, "", ", ? cores")
    ]
    return Table([Text.same(""), Text.same("")], rows)


def _hashes(manifest: Record) -> Iterable[tuple[Text, str]]:
    for source in _inputs(manifest):
        if source.get("sha256"):
            name = f"{source.get('name')} "
            yield Text.same(name) + say("run_hashes"), str(source["sha256"])[:_SHOWN_HASH]
    for name, digest in ((manifest.get("model") or {}).get("weights_sha256") or {}).items():
        yield Text.same(f"{name} ") + say("run_hashes"), str(digest)[:_SHOWN_HASH]


def _inputs(manifest: Record) -> list[Record]:
    found = (manifest.get("corpus") or {}).get("inputs") or (manifest.get("data") or {}).get(
        "inputs"
    )
    return [source for side in (found or {}).values() for source in side]


def _count(count: Any) -> Text:
    return _NOTHING if count is None else Text.same(number(count))


def _reason(reason: str) -> Text:
    return (
        reason_words("", reason).name
        if has_reason("", reason)
        else Text.same(reason.replace("_", " "))
    )


def _spread(steps: Sequence[int], most: int) -> list[int]:
    if len(steps) <= most:
        return list(steps)
    return [steps[round(at * (len(steps) - 1) / (most - 1))] for at in range(most)]


def _answer(step: int, record: Record | None) -> Answer | None:
    if record is None:
        return None
    label = say("run_step", step=number(step))
    return Answer(label, str(record.get("answer") or ""), record.get("finish_reason") == "length")


def _result(name: str, record: Record | None) -> Result:
    metrics = (record or {}).get("metrics")
    if record is None or not isinstance(metrics, Mapping):
        return Result(name, "", None, None)
    versus = record.get("versus") or {}
    against: Mapping[str, Any] = versus.get("metrics") or {}
    columns = [say("run_metric"), say("run_value"), say("run_interval"), say("run_rows_measured")]
    if against:
        columns += [say("run_base"), say("run_difference"), say("run_wins")]
    rows: list[list[Text]] = []
    for metric, found in metrics.items():
        row = [
            Text.same(metric),
            Text.same(metric_text(metric, value(found, "value"))),
            Text.same(interval(metric, found)),
            _count(found.get("n")),
        ]
        if against:
            row += _versus(metric, against.get(metric) or {})
        rows.append(row)
    base = versus.get("model")
    title = str(record.get("name") or name)
    return Result(title, str(record.get("model") or ""), base and str(base), Table(columns, rows))


def _versus(metric: str, found: Record) -> list[Text]:
    base, difference = found.get("base") or {}, found.get("difference") or {}
    text = metric_text(metric, value(difference, "value"))
    if value(difference, "value") is not None:
        text = f"{text} ({interval(metric, difference)})"
    games = [found.get(name) for name in ("wins", "ties", "losses")]
    played = "–" if None in games else " / ".join(str(count) for count in games)
    return [
        Text.same(metric_text(metric, value(base, "value"))),
        Text.same(text),
        Text.same(played),
    ]


def interval(metric: str, found: Record) -> str:
    """Return the interval of an estimate, as `0.41 to 0.52`."""
    low, high = value(found, "low"), value(found, "high")
    if low is None or high is None:
        return "–"
    return f"{metric_text(metric, low)} … {metric_text(metric, high)}"

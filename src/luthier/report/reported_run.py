"""What a page says of one run, as plain values, and the main figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from statistics import fmean
from typing import Any

from luthier.core.units import format_bytes, format_seconds
from luthier.report.charts import COLOURS
from luthier.report.curves import Record, column, has, steps_of, tokens, value
from luthier.report.words import Text, about, name_of, number, say, share

_FEW_LOSSES = 10
_REST_COLOUR = "--before"


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A run's folder as plain values; what an older version did not write is empty.

    Attributes:
        name: What the run is called.
        folder: Its path, as commands are to name it.
        state: `running`, `finished`, `stopped` or `broken off`.
        settings: By leaf name.
        manifest: What stands in manifest.json.
        train: Records of metrics.jsonl of training.
        evals: Of validations.
        saves: Of checkpoints.
        samplings: Of each time that prompts were answered.
        events: Records of events.jsonl.
        samples: Records of samples.jsonl.
        results: What `luthier eval` wrote, by the name of the file; None where it is damaged.
        shown_rows: What stands in shown_rows.json.
        num_steps: Steps of the whole run, as far as that can be known.
        seconds: Time at work.
        written: When this was read, as ISO 8601.
    """

    name: str
    folder: str
    state: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    manifest: Record = field(default_factory=dict)
    train: Sequence[Record] = ()
    evals: Sequence[Record] = ()
    saves: Sequence[Record] = ()
    samplings: Sequence[Record] = ()
    events: Sequence[Record] = ()
    samples: Sequence[Record] = ()
    results: Mapping[str, Record | None] = field(default_factory=dict)
    shown_rows: Record = field(default_factory=dict)
    num_steps: int | None = None
    seconds: float = 0.0
    written: str = ""

    @property
    def step(self) -> int:
        """The newest step that is logged, or that the manifest says was done."""
        outcome = self.manifest.get("outcome") or {}
        newest = [int(part[-1]["step"]) for part in (self.train, self.evals) if part]
        return max([*newest, int(outcome.get("steps") or 0)])


@dataclass(frozen=True, slots=True)
class Tile:
    """One main figure: what it is, the figure, and what it means."""

    label: Text
    figure: str
    notes: list[Text]


def summary(run: ReportedRun) -> Text:
    """Return in a sentence what was trained, how and on what."""
    settings = run.settings
    model = str(settings.get("model_name_or_path") or "?").rstrip("/").rpartition("/")[2]
    return say(
        "run_summary",
        stage=name_of("stages", str(settings.get("stage") or "sft")),
        model=model,
        tuning=name_of("tunings", str(settings.get("finetuning_type") or "lora")),
        data=_data_name(run),
    )


def _data_name(run: ReportedRun) -> Text:
    data = run.manifest.get("data") or {}
    sides = data.get("inputs") or (run.manifest.get("corpus") or {}).get("inputs") or {}
    names = [str(source.get("name")) for source in sides.get("train") or ()]
    if not names:
        given = run.settings.get("train_file") or run.settings.get("dataset") or "?"
        names = [str(one) for one in (given if isinstance(given, list) else [given])]
    names = [name.rstrip("/").rpartition("/")[2] for name in names]
    found = Text.same(names[0])
    if names[1:]:
        found = say("and_more", names=found, num=number(len(names) - 1))
    rows = ((data.get("splits") or {}).get("train") or {}).get("rows")
    return found if rows is None else say("run_rows", name=found, rows=number(rows))


def progress(run: ReportedRun) -> Text:
    """Return how far the run came."""
    if run.num_steps is None:
        text = say("run_steps_open", step=number(run.step))
    else:
        text = say("run_steps", step=number(run.step), all=number(run.num_steps))
    epoch = value(run.train[-1], "epoch") if run.train else None
    return (
        text if epoch is None else text + Text(", ", "，") + say("run_epochs", num=f"{epoch:.2f}")
    )


def tiles(run: ReportedRun) -> list[Tile]:
    """Return the main figures; those that nothing is recorded of are left out."""
    found = [_loss(run), _judgement(run), _speed(run)]
    if run.seconds:
        pace = (
            [say("run_per_step", time=format_seconds(run.seconds / run.step))] if run.step else []
        )
        found.append(Tile(say("time"), format_seconds(run.seconds), pace))
    found.append(_memory(run))
    return [tile for tile in found if tile is not None]


def best_eval(run: ReportedRun) -> Record | None:
    """Return the validation with the lowest loss; None without one."""
    known = [record for record in run.evals if value(record, "eval_loss") is not None]
    return min(known, key=lambda record: record["eval_loss"], default=None)


def _loss(run: ReportedRun) -> Tile | None:
    if has(run.evals, "eval_loss"):
        first, last = run.evals[0], run.evals[-1]
        notes: list[Text] = []
        if value(last, "eval_perplexity") is not None:
            notes.append(
                say("run_perplexity", num=_arrow(first, last, "eval_perplexity", "{:.2f}"))
            )
        best = best_eval(run)
        if best is not None and best["step"] != last["step"]:
            loss = f"{best['eval_loss']:.3f}"
            notes.append(say("run_best", loss=loss, step=number(best["step"])))
        return Tile(say("run_val_loss"), _arrow(first, last, "eval_loss", "{:.3f}"), notes)
    losses = [loss for loss in column(run.train, "loss") if loss is not None]
    if not losses:
        return None
    few = max(1, min(_FEW_LOSSES, len(losses) // 4))
    ends = fmean(losses[:few]), fmean(losses[-few:])
    figure = f"{ends[0]:.3f} → {ends[1]:.3f}" if len(losses) > 1 else f"{ends[1]:.3f}"
    return Tile(say("run_train_loss"), figure, [])


def _judgement(run: ReportedRun) -> Tile | None:
    for name, label, form in (
        ("eval_rewards/accuracies", "run_ranked", "{:.1%}"),
        ("eval_reward", "run_reward", "{:.3f}"),
    ):
        if has(run.evals, name):
            figure = _arrow(run.evals[0], run.evals[-1], name, form)
            return Tile(say(label), figure, [])
    return None


def _arrow(first: Record, last: Record, name: str, form: str) -> str:
    ends = [value(first, name), value(last, name)] if first is not last else [value(last, name)]
    return " → ".join("–" if end is None else form.format(end) for end in ends)


def speed(run: ReportedRun) -> float | None:
    """Return the tokens per second of training, over all of the run; None before the first."""
    seconds = sum(
        (value(record, "seconds_per_step") or 0.0) * num_steps
        for record, num_steps in zip(run.train, steps_of(run.train), strict=True)
    )
    return tokens(run.train)[-1] / seconds if seconds else None


def _speed(run: ReportedRun) -> Tile | None:
    found = speed(run)
    if found is None:
        return None
    seen = say("run_seen", num=about(tokens(run.train)[-1]))
    return Tile(say("run_speed"), number(found), [seen])


def _memory(run: ReportedRun) -> Tile | None:
    known = [size for size in column(run.train, "memory_bytes") if size is not None]
    if not known:
        return None
    device = device_name(run.manifest)
    return Tile(say("run_memory"), format_bytes(max(known)), [Text.same(device)] if device else [])


def device_name(manifest: Record) -> str:
    """Return what a run was computed on; empty where the manifest does not say it."""
    machine = manifest.get("machine") or {}
    gpus = machine.get("gpus") or ()
    if (manifest.get("computing") or {}).get("device") == "cuda" and gpus:
        first = gpus[0]
        return str(first.get("name") if isinstance(first, Mapping) else first)
    return str((machine.get("cpu") or {}).get("name") or "")


@dataclass(frozen=True, slots=True)
class TimePart:
    """What a part of the run's time went to.

    Attributes:
        colour: Name of its colour on the page.
    """

    name: Text
    seconds: float
    share: str
    colour: str


def time_parts(run: ReportedRun) -> list[tuple[str, float]]:
    """Return what the run's time went to, in seconds, without parts that took none."""
    train = list(zip(run.train, steps_of(run.train), strict=True))

    def over_steps(name: str) -> float:
        return sum((value(record, name) or 0.0) * num_steps for record, num_steps in train)

    steps = over_steps("seconds_per_step")
    inner = {n: over_steps(f"seconds_{n}") for n in ("data", "forward", "backward", "optimizer")}
    named = sum(inner.values())
    parts = {
        **inner,
        "step_rest" if named else "steps": max(steps - named, 0.0),
        "evaluation": sum(value(record, "eval_seconds") or 0.0 for record in run.evals),
        "saving": sum(value(record, "seconds") or 0.0 for record in run.saves),
        "sampling": sum(value(record, "seconds") or 0.0 for record in run.samplings),
    }
    parts["rest"] = max(run.seconds - sum(parts.values()), 0.0)
    return [(name, seconds) for name, seconds in parts.items() if seconds > 0]


def named_parts(run: ReportedRun) -> list[TimePart]:
    """Return the parts of the run's time in words, each with its colour."""
    parts = time_parts(run)
    total = sum(seconds for _, seconds in parts)
    return [
        TimePart(
            name_of("parts", name),
            seconds,
            share(seconds, total),
            _REST_COLOUR if name == "rest" else colour,
        )
        for (name, seconds), colour in zip(parts, cycle(COLOURS))
    ]

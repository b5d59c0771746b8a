"""Runs side by side: the settings in which they differ, their metrics, their evaluations.

In: runs as plain values. Out: tables with one column a run, for the terminal and for the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from luthier.core.units import format_seconds
from luthier.report.curves import Record, column, value
from luthier.report.reported_run import ReportedRun, speed
from luthier.report.run_tables import Table, interval, is_measured, metric_text
from luthier.report.words import Text, name_of, number, say

_PLACES = frozenset({"output_dir"})
"""Settings in which any two runs differ."""

_NOTHING = Text.same("–")
_MORE_IS_BETTER = ("accuracy", "accuracies", "margins", "reward", "chosen", "/mean")


def settings_table(runs: Sequence[ReportedRun]) -> Table:
    """Return the settings that differ; a run of an older version has fewer of them."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    rows: list[list[Text]] = []
    for name in names:
        shown = [_setting(run, name) for run in runs]
        if name not in _PLACES and len(set(shown)) > 1:
            rows.append([Text.same(name), *map(Text.same, shown)])
    return Table([say("compare_setting"), *_names(runs)], rows)


def metrics_table(runs: Sequence[ReportedRun]) -> Table:
    """Return how far each run came and what it measured: each metric at its last, and its best."""
    rows = [
        [say("compare_state"), *(say(f"run_{run.state}") for run in runs)],
        [name_of("metrics", "steps"), *(Text.same(number(run.step)) for run in runs)],
        [name_of("metrics", "seconds"), *(_seconds(run) for run in runs)],
        [say("run_speed"), *(_speed(run) for run in runs)],
        [say("run_memory"), *(_most(run, "memory_bytes") for run in runs)],
        [_moment("loss", "last"), *(_last(run.train, "loss") for run in runs)],
    ]
    names = dict.fromkeys(name for run in runs for record in run.evals for name in record)
    for name in names:
        if is_measured(name):
            rows.append([_moment(name, "last"), *(_last(run.evals, name) for run in runs)])
            rows.append([_moment(name, "best"), *(_best(run.evals, name) for run in runs)])
    return Table([say("run_metric"), *_names(runs)], rows)


def results_table(runs: Sequence[ReportedRun]) -> Table | None:
    """Return the evaluations by `luthier eval`, each metric with its interval; None without one."""
    keys = dict.fromkeys(
        (file, metric) for run in runs for file in run.results for metric in _measured(run, file)
    )
    rows = [
        [
            Text.same(f"{file.removesuffix('.json')}: {metric}"),
            *(_estimate(metric, _measured(run, file).get(metric)) for run in runs),
        ]
        for file, metric in keys
    ]
    return Table([say("compare_evaluation"), *_names(runs)], rows) if rows else None


def _names(runs: Sequence[ReportedRun]) -> list[Text]:
    return [Text.same(run.name) for run in runs]


def _setting(run: ReportedRun, name: str) -> str:
    if name not in run.settings:
        return "–"
    setting = run.settings[name]
    return setting if isinstance(setting, str) else json.dumps(setting, ensure_ascii=False)


def _moment(name: str, moment: str) -> Text:
    return name_of("metrics", name) + Text(", ", "，") + say(f"compare_{moment}")


def _seconds(run: ReportedRun) -> Text:
    return Text.same(format_seconds(run.seconds)) if run.seconds else _NOTHING


def _speed(run: ReportedRun) -> Text:
    found = speed(run)
    return _NOTHING if found is None else Text.same(number(found))


def _most(run: ReportedRun, name: str) -> Text:
    return _chosen(run.train, name, max)


def _last(records: Sequence[Record], name: str) -> Text:
    return Text.same(metric_text(name, value(records[-1], name))) if records else _NOTHING


def _best(records: Sequence[Record], name: str) -> Text:
    return _chosen(records, name, max if name.endswith(_MORE_IS_BETTER) else min)


def _chosen(records: Sequence[Record], name: str, choose: Callable[[list[float]], float]) -> Text:
    known = [found for found in column(records, name) if found is not None]
    return Text.same(metric_text(name, choose(known))) if known else _NOTHING


def _measured(run: ReportedRun, file: str) -> Mapping[str, Any]:
    metrics = (run.results.get(file) or {}).get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def _estimate(metric: str, found: Record | None) -> Text:
    if found is None:
        return _NOTHING
    text = metric_text(metric, value(found, "value"))
    return Text.same(f"{text} ({interval(metric, found)})" if "low" in found else text)

"""The report of a run: one page that opens offline, on a phone, in the dark and in print.

In: a run's folder as plain values. Out: HTML in English and Chinese. Whatever the run does not have
(validation, samples, a manifest) is said to be missing or left out.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from luthier.contracts.notice import Notice
from luthier.report import contents, run_tables
from luthier.report.curves import MOST_POINTS
from luthier.report.loss_rows import legend, loss_rows
from luthier.report.page import render_page
from luthier.report.reported_run import ReportedRun, named_parts, progress, summary, tiles
from luthier.report.run_charts import length_chart, num_not_finite, run_charts, time_chart
from luthier.report.run_tables import metric_text
from luthier.report.words import Text, moment, say

_MOST_EVENTS = 50
_MOST_ROWS = 8


def run_page(run: ReportedRun) -> str:
    """Return the report of a run."""
    charts = run_charts(run)
    lengths, time = length_chart(run), time_chart(run)
    every = [*charts, *(chart for chart in (lengths, time) if chart is not None)]
    facts = {
        "run": run,
        "written": moment(run.written or None),
        "progress": progress(run),
        "summary": summary(run),
        "tiles": tiles(run),
        "charts": charts,
        "chart_notes": _chart_notes(run),
        "validations": run_tables.validations(run),
        "counts": run_tables.data_counts(run.manifest),
        "left_out": run_tables.left_out(run.manifest),
        "make_up": contents.make_up((run.manifest.get("corpus") or {}).get("statistics") or {}),
        "length_chart": lengths,
        "rows": loss_rows(run.shown_rows),
        "legend": legend(),
        "samples": run_tables.samples(run.samples),
        "results": run_tables.results(run.results),
        "events": [_event(event) for event in run.events[-_MOST_EVENTS:]],
        "num_more_events": max(len(run.events) - _MOST_EVENTS, 0),
        "notices": [_notice(notice) for notice in run.manifest.get("notices") or ()],
        "time_chart": time,
        "time_parts": named_parts(run),
        "metric_text": metric_text,
        "origin": run_tables.origin_facts(run.manifest) if run.manifest else None,
        "command": shlex.join(map(str, run.manifest.get("command") or ())),
        "packages": run.manifest.get("packages") or {},
        "settings": [(name, _plain(setting)) for name, setting in run.settings.items()],
        "manifest": json.dumps(run.manifest, ensure_ascii=False, indent=2),
        "commands": commands(run),
        "version": str((run.manifest.get("luthier") or {}).get("version") or ""),
    }
    return render_page("run.html.jinja", facts, {chart.id: chart.figure for chart in every})


def commands(run: ReportedRun) -> list[tuple[Text, str]]:
    """Return what can be done with a run, and the command for each."""
    folder = shlex.quote(run.folder)
    found = [
        (say("run_do_reproduce"), f"luthier reproduce {folder} --verify"),
        (say("run_do_eval"), f"luthier eval {folder}"),
        (say("run_do_compare"), f"luthier compare {folder} OTHER_RUN --out compare.html"),
    ]
    if run.state != "finished":
        go_on = f"luthier train {shlex.quote(run.folder + '/run.yaml')} --resume_from_checkpoint"
        found.insert(0, (say("run_do_continue"), go_on))
    elif run.settings.get("stage") != "rm":
        found.insert(2, (say("run_do_chat"), f"luthier chat {folder}"))
        load = f"AutoModelForCausalLM.from_pretrained({run.folder!r})"
        found.append((say("run_do_open"), f"from transformers import AutoModelForCausalLM\n{load}"))
    return found


def _chart_notes(run: ReportedRun) -> list[Text]:
    notes: list[Text] = []
    if len(run.train) > MOST_POINTS:
        notes.append(say("run_thinned", num=f"{len(run.train):,}"))
    if num := num_not_finite(run.train):
        notes.append(say("run_null", num=f"{num:,}"))
    if run.train and not run.evals:
        notes.append(say("run_no_validation"))
    return notes


def _event(event: Any) -> dict[str, Any]:
    rows = event.get("rows") or ()
    origins = [str(row.get("origin")) for row in rows[:_MOST_ROWS]]
    return {
        "kind": str(event.get("kind") or ""),
        "step": event.get("step"),
        "message": str(event.get("message") or ""),
        "origins": origins,
        "num_rows": len(rows),
    }


def _notice(notice: Any) -> str:
    fields = ("setting", "asked", "used", "reason")
    return str(Notice(*(str(notice.get(name) or "") for name in fields)))


def _plain(setting: Any) -> str:
    return setting if isinstance(setting, str) else json.dumps(setting, ensure_ascii=False)

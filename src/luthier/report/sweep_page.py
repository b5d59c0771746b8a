"""The page of a sweep: its trials, what mattered, and the best settings, in English and Chinese.

In: the record that `luthier sweep` writes as sweep.json. Out: one HTML file that asks nothing of
the network.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from luthier.core.units import format_seconds
from luthier.report.page import render_page
from luthier.report.sweep_charts import sweep_charts
from luthier.report.words import Text, say


def sweep_page(record: Mapping[str, Any]) -> str:
    """Return the page of a sweep, finished or not.

    Args:
        record: What stands in its sweep.json (`recipes/sweep_record.py`).
    """
    charts = sweep_charts(record)
    facts = {
        "record": record,
        "best": None if record["best"] is None else record["trials"][record["best"]],
        "headline": headline(record),
        "counts": counts(record),
        "names": list(record["ranges"]),
        "charts": list(charts),
        "commands": commands(record),
        "shown": shown,
        "seconds": format_seconds,
    }
    return render_page("sweep.html.jinja", facts, charts)


def headline(record: Mapping[str, Any]) -> Text:
    """Return what the sweep came to, in a sentence."""
    if record["best"] is None:
        return say("sweep_no_best")
    best = record["trials"][record["best"]]
    return say(
        "sweep_best", metric=record["metric"], value=shown(best["value"]), trial=best["folder"]
    )


def counts(record: Mapping[str, Any]) -> Text:
    """Return how many trials ended how."""
    states = [trial["state"] for trial in record["trials"]]
    numbers = {s: str(states.count(s)) for s in ("finished", "pruned", "failed", "running")}
    return say("sweep_counts", total=str(record["num_trials"]), **numbers)


def commands(record: Mapping[str, Any]) -> list[tuple[Text, str]]:
    """Return what can be done next, each with its command line."""
    folder = record["output_dir"]
    found: list[tuple[Text, str]] = []
    if record["best"] is not None:
        best = record["trials"][record["best"]]["folder"]
        found.append((say("sweep_train"), f"luthier train {shlex.quote(f'{folder}/best.yaml')}"))
        found.append((say("sweep_chat"), f"luthier chat {shlex.quote(f'{folder}/{best}')}"))
    words = [w for w in record["command"] if not w.startswith("--resume_from_checkpoint")]
    words = [word for word in words if word != "--overwrite_output_dir"]
    found.append((say("sweep_go_on"), f"{shlex.join(words)} --resume_from_checkpoint"))
    return found


def shown(value: Any) -> str:
    """Return a value of a setting or metric as a table has it; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""The page of a sweep: its trials, what mattered, and the best settings, in English and Chinese.

In: the record that `luthier sweep` writes as sweep.json. Out: one HTML file that asks nothing of
the network: plotly's JavaScript is in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import shlex
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.core.units import format_seconds
from luthier.report.sweep_charts import sweep_charts
from luthier.report.words import Text, say


def sweep_page(record: Mapping[str, Any]) -> str:
    """Return the page of a sweep, finished or not.

    Args:
        record: What stands in its sweep.json (`recipes/sweep_record.py`).

    Raises:
        MissingExtraError: plotly is not installed.
    """
    charts = sweep_charts(record)
    facts = {
        "record": record,
        "best": None if record["best"] is None else record["trials"][record["best"]],
        "headline": headline(record),
        "counts": counts(record),
        "names": list(record["ranges"]),
        "charts": list(charts),
        "figures": Markup(json.dumps(charts).replace("<", "\\u003c")),
        "commands": commands(record),
    }
    return _page().render(facts)


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


@functools.cache
def _page() -> Any:
    offline: Any = import_module("plotly.offline")
    found = Environment(
        loader=PackageLoader("luthier.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = {
        "language": found.get_template("language.js").render(),
        "plotly": offline.get_plotlyjs(),
        "draw": found.get_template("sweep.js").render(),
    }
    # The page lets these scripts run, and none else.
    hashes = {name: _digest(script) for name, script in scripts.items()}
    marked = {name: Markup(script) for name, script in scripts.items()}
    own = {"say": say, "shown": shown, "seconds": format_seconds}
    own |= {"scripts": marked, "hashes": hashes}
    return found.get_template("sweep.html.jinja", globals=own)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

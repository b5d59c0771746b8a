"""The frame of every page: one HTML file that asks nothing of the network and runs its own scripts.

In: the name of a template and what it shows. Out: HTML in English and Chinese, with plotly's
JavaScript in it where there are charts. Everything is escaped, and whatever data might bring in as
a script is not run: the page names the hashes of its own ones (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.report.charts import Figure
from luthier.report.shown_text import one_line, visible
from luthier.report.words import about, number, say, share

_SHARED: Mapping[str, Callable[..., Any]] = {
    "about": about,
    "number": number,
    "one_line": one_line,
    "say": say,
    "share": share,
}


def environment(finalize: Callable[[Any], Any], *, autoescape: bool) -> Environment:
    """Return an environment of the templates with what all of them call.

    Args:
        finalize: Applied to whatever is printed.
        autoescape: For HTML.
    """
    found = Environment(
        loader=PackageLoader("luthier.report"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(_SHARED)
    return found


def render_page(
    template: str, facts: Mapping[str, Any], figures: Mapping[str, Figure] | None = None
) -> str:
    """Return a page.

    Args:
        template: Its name; it fills the blocks of page.html.jinja.
        facts: What it shows.
        figures: Its charts, by the ids that the template gives them.
    """
    marked = {name: Markup(_json(figure)) for name, figure in (figures or {}).items()}
    return _template(template, bool(marked)).render({**facts, "figures": marked})


def _json(figure: Figure) -> str:
    # Within a script only this sign could end it.
    return json.dumps(figure, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _shown(value: Any) -> Any:
    """Make what is printed into the page visible, whatever it is and wherever it comes from."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@functools.cache
def _template(name: str, has_charts: bool) -> Any:
    found = environment(_shown, autoescape=True)
    scripts = {"language": found.get_template("language.js").render()}
    if has_charts:
        offline: Any = import_module("plotly.offline")
        scripts |= {
            "plotly": offline.get_plotlyjs(),
            "charts": found.get_template("charts.js").render(),
        }
    own = {
        "scripts": {script: Markup(text) for script, text in scripts.items()},
        "hashes": [_digest(text) for text in scripts.values()],
    }
    return found.get_template(name, globals=own)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

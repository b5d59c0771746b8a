"""The data card of a prepared corpus: one page to look at, and the same as Markdown.

In: the manifest of a prepared corpus, and examples of the rows that were dropped. Out: an HTML page
in English and Chinese that asks nothing of the network, and Markdown. Nothing of personal data is
shown but counts by kind; that the examples' texts are safe to show is the caller's part.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.report import attrition, contents, markdown
from luthier.report.attrition import Samples
from luthier.report.concerns import concerns
from luthier.report.division import division
from luthier.report.page import environment, render_page
from luthier.report.recipe import COMMAND, settings_yaml
from luthier.report.sources import sources
from luthier.report.words import NO_BREAK, Text, about, moment, name_of, number, say, share

_MOST_LANGUAGES = 3


@dataclass(frozen=True, slots=True)
class Card:
    """A data card, as a page and as Markdown."""

    html: str
    markdown: str


def data_card(manifest: Mapping[str, Any], samples: Samples) -> Card:
    """Return the data card of a prepared corpus.

    Args:
        manifest: What stands in its manifest.json (`corpus/folder.py`). What is missing of it is
            left out of the card.
        samples: Dropped rows by reason, each with `step`, `reason`, `id`, `origin`, `detail`,
            `score`, `matched_id`, `text` and `matched_text`; their texts must be safe to show.
    """
    facts = _facts(manifest, samples)
    return Card(render_page("data_card.html.jinja", facts), _markdown().render(facts))


def _facts(manifest: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    """Return what both templates read."""
    statistics: Mapping[str, Any] = manifest.get("statistics") or {}
    return {
        "name": _name(manifest),
        "created": moment(manifest.get("created")),
        "manifest": manifest,
        "rows_in": (rows_in := attrition.num_rows_in(manifest)),
        "rows_left": (rows_left := attrition.num_rows_left(manifest)),
        "kept_width": attrition.width(rows_left, rows_in),
        "summary": _summary(manifest, statistics),
        "concerns": concerns(manifest),
        "steps": attrition.waterfall(manifest),
        "reasons": attrition.reasons(manifest, samples),
        "changes": contents.changes(manifest),
        "totals": contents.totals(statistics),
        "make_up": contents.make_up(statistics),
        "lengths": contents.lengths(statistics),
        "tokens_note": contents.tokens_note(statistics),
        "duplicates": contents.duplicates(statistics),
        "division": division(manifest.get("split")),
        "sources": sources(manifest),
        "command": COMMAND,
        "settings": settings_yaml(manifest),
        "packages": manifest.get("packages") or {},
    }


def _name(manifest: Mapping[str, Any]) -> Text:
    """Return the corpus's name: that of its sources where it has none of its own."""
    if manifest.get("name"):
        return Text.same(manifest["name"])
    names = [source["name"] for source in manifest.get("sources") or ()]
    if not names:
        return say("corpus")
    first = Text.same(names[0])
    return say("and_more", names=first, num=number(len(names) - 1)) if names[1:] else first


def _summary(manifest: Mapping[str, Any], statistics: Mapping[str, Any]) -> Text:
    rows_in, rows_left = attrition.num_rows_in(manifest), attrition.num_rows_left(manifest)
    sentence = say("came_in_one" if rows_in == 1 else "came_in", num=number(rows_in))
    left = "are_left_one" if rows_left == 1 else "are_left"
    sentence += say(left, num=number(rows_left), share=share(rows_left, rows_in))
    after: Mapping[str, Any] = statistics.get("after") or {}
    if after.get("tokens") is not None:
        sentence += say("summary_tokens", tokens=about(after["tokens"]))
    languages: Mapping[str, int] = after.get("languages") or {}
    known = {code: count for code, count in languages.items() if code not in ("und", "unknown")}
    total = sum(languages.values())
    for code, count in sorted(known.items(), key=lambda item: -item[1])[:_MOST_LANGUAGES]:
        language = name_of("languages", code) + Text.same(f"{NO_BREAK}{share(count, total)}")
        sentence += say("summary_language", language=language)
    return sentence + say("summary_end")


@functools.cache
def _markdown() -> Any:
    found = environment(markdown.escape, autoescape=False)
    own = {"code": markdown.code, "both": markdown.both, "block": markdown.block}
    return found.get_template("data_card.md.jinja", globals=own)

"""The words of the reports, in English and Chinese.

In: names as they stand in manifests (reasons, steps, counts, languages). Out: each as a `Text` in
both languages. The words themselves are data, in `words.json` and `reasons.json`; a name that they
don't have, such as a reason of a user's own step, comes back as itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from luthier.core.units import format_count, format_share

NO_BREAK = "\u00a0"
"""A space at which no line ends: a number stays with its unit."""

_WAN, _YI = 10**4, 10**8


@dataclass(frozen=True, slots=True)
class Text:
    """The same words in two languages."""

    en: str
    zh: str

    @classmethod
    def same(cls, text: str) -> Text:
        """Return a text that both languages write alike, such as a file's name."""
        return cls(text, text)

    def __add__(self, other: Text) -> Text:
        return Text(self.en + other.en, self.zh + other.zh)


@dataclass(frozen=True, slots=True)
class ReasonWords:
    """What a reason is called, what it means, and what to do about it."""

    name: Text
    meaning: Text
    action: Text


def say(label: str, **values: str | Text) -> Text:
    """Return a label or sentence, its `{blanks}` filled.

    Args:
        label: A name under `labels` in words.json.
        values: What goes into the blanks.
    """
    return _filled(_words()["labels"][label], values)


def reason_words(step: str, reason: str) -> ReasonWords:
    """Return the words for a reason; where two steps share its name, those of the step.

    Args:
        step: The step that gave it.
        reason: Its name in the manifest.
    """
    known = _reasons()
    found = known.get(f"{step}.{reason}") or known.get(reason)
    if found is not None:
        return ReasonWords(*map(Text, found["en"], found["zh"]))
    own: dict[str, list[str]] = _words()["own_reason"]
    return ReasonWords(*(_filled(own[key], {"reason": reason}) for key in own))


def has_reason(step: str, reason: str) -> bool:
    """Tell whether there are words for a reason."""
    return f"{step}.{reason}" in _reasons() or reason in _reasons()


def name_of(section: str, name: str) -> Text:
    """Return the plain words for a name.

    Args:
        section: `steps`, `counts`, `pii`, `languages` or `kinds`.
        name: As it stands in the manifest.
    """
    found = _words()[section].get(name)
    return Text(*found) if found else Text.same(name)


def number(count: float) -> str:
    """Return a count in full, with commas."""
    return f"{count:,.0f}"


def about(count: float) -> Text:
    """Return a long count as it is said: `8.1M`, `810 万`."""
    if count < _WAN:
        return Text.same(format_count(count))
    unit, name = (_WAN, "万") if count < _YI else (_YI, "亿")
    scaled = count / unit
    zh = f"{scaled:,.1f}" if scaled < 100 else f"{scaled:,.0f}"
    return Text(format_count(count), f"{zh.removesuffix('.0')}{NO_BREAK}{name}")


def share(part: float, whole: float) -> str:
    """Return a share in per cent; what is neither nothing nor all never looks like it."""
    text = format_share(part, whole)
    if text == "0.0 %":
        text = "< 0.1 %" if part else "0 %"
    elif text == "100.0 %":
        text = "> 99.9 %" if part < whole else "100 %"
    return text.replace(" ", NO_BREAK)


def moment(iso_time: str | None) -> str | None:
    """Return a time as people read it; in UTC where it names a zone."""
    if iso_time is None:
        return None
    try:
        moment = datetime.fromisoformat(iso_time)
    except ValueError:
        return iso_time
    if moment.tzinfo is None:
        return f"{moment:%Y-%m-%d %H:%M}"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _filled(words: list[str], values: Mapping[str, str | Text]) -> Text:
    texts = {
        name: value if isinstance(value, Text) else Text.same(value)
        for name, value in values.items()
    }
    en, zh = words
    return Text(
        en.format(**{name: text.en for name, text in texts.items()}),
        zh.format(**{name: text.zh for name, text in texts.items()}),
    )


@functools.cache
def _words() -> dict[str, dict[str, Any]]:
    return _read("words.json")


@functools.cache
def _reasons() -> dict[str, dict[str, list[str]]]:
    return _read("reasons.json")


def _read(name: str) -> Any:
    return json.loads(files("luthier.report").joinpath(name).read_text(encoding="utf-8"))

"""The `pii` step: finds personal data and secrets, and replaces, masks, drops or counts them.

In: rows as columns; it reads the contents of `messages`, `chosen`, `rejected` and `text`. Out: the
same rows with placeholders (`<EMAIL_1>`), and counts by kind. A value never leaves the text that it
stood in: not in drops, counts, or errors. It doesn't look for names of persons: offline, most of
what a recogniser finds in instruction data are characters of stories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.core.errors import SettingsError, did_you_mean
from luthier.corpus.steps.pii_checks import compact, phonenumbers, stdnum
from luthier.corpus.steps.pii_hits import KINDS, Hit, without_overlaps
from luthier.corpus.steps.pii_numbers import cards, cn_ids, has_number, ibans, ips, phones
from luthier.corpus.steps.pii_replace import Replacer
from luthier.corpus.steps.pii_secrets import api_keys, emails, passwords, url_tokens
from luthier.corpus.steps.settings import PiiSettings
from luthier.corpus.text.fields import TURN_FIELDS, kept

_VERBS = {"redact": "redacted", "mask": "masked", "report": "found"}
_MAX_PASSES = 4


@dataclass(frozen=True)
class Pii:
    """The step. Pure per row: the result doesn't depend on how rows are batched.

    Args:
        settings: What to look for and what to do.

    Raises:
        MissingExtraError: python-stdnum or phonenumbers is not installed.
        SettingsError: `pii_phone_regions` names a country that there is not.
    """

    settings: PiiSettings = field(default_factory=PiiSettings)

    name = "pii"

    def __post_init__(self) -> None:
        stdnum()
        known: set[str] = phonenumbers().SUPPORTED_REGIONS
        for region in self.settings.pii_phone_regions:
            if region not in known:
                raise SettingsError(
                    f"{region!r} is not the two-letter code of a country",
                    where="pii_phone_regions",
                    mend=did_you_mean(region, known) if len(region) == 2 else "Write US, CN, GB.",
                )

    def __call__(self, columns: Columns) -> StepResult:
        """Work on one batch of rows; the columns that came in are not changed."""
        action = self.settings.pii_action
        texts = [name for name in (*TURN_FIELDS, "text") if name in columns]
        new = {**columns, **{name: list(columns[name]) for name in texts}}
        if action == "report":
            new["pii"] = [None] * len(columns["id"])
        result = StepResult(new)
        rows: list[int] = []
        for row, values in enumerate(zip(*(columns[name] for name in texts), strict=True)):
            cells = dict(zip(texts, values, strict=True))
            counts = self._count(cells)
            if counts and action == "drop":
                result.drops.append(Drop(columns["id"][row], "pii", _told(counts)))
                continue
            rows.append(row)
            if not counts:
                continue
            if action == "report":
                cells["pii"] = _told(counts)
            elif action != "drop":
                cells, counts = self._cleaned(cells, action)
            for kind, count in counts.items():
                result.counts[f"{_VERBS[action]}_{kind}"] += count
            for name, value in cells.items():
                new[name][row] = value
        result.columns = kept(new, rows)
        return result

    def find(self, text: str) -> list[Hit]:
        """Return the hits of one text, in its order and without overlaps."""
        kinds, allow = self.settings.pii_kinds, self.settings.pii_allow
        hits = [hit for hit in self._candidates(text) if hit.kind in kinds]
        if hits and allow:
            allowed = {compact(value) for value in allow}
            hits = [h for h in hits if compact(text[h.start : h.end]) not in allowed]
        return without_overlaps(hits) if len(hits) > 1 else hits

    def _candidates(self, text: str) -> Iterator[Hit]:
        kinds = self.settings.pii_kinds
        yield from url_tokens(text)
        yield from api_keys(text)
        yield from passwords(text)
        yield from emails(text)
        if "ip" in kinds:
            yield from ips(text, self.settings.pii_private_ips)
        if has_number(text):
            yield from cn_ids(text)
            yield from ibans(text)
            yield from cards(text)
            if "phone" in kinds:
                yield from phones(text, self.settings.pii_phone_regions)

    def _count(self, cells: dict[str, Any]) -> Counter[str]:
        return Counter(hit.kind for text in _texts(cells) for hit in self.find(text))

    def _cleaned(
        self, cells: dict[str, Any], action: Literal["redact", "mask"]
    ) -> tuple[dict[str, Any], Counter[str]]:
        """Return the row with its hits replaced, and how many of each kind there were."""
        replacer = Replacer(action, _texts(cells))
        counts: Counter[str] = Counter()

        def clean(text: str) -> str:
            # A hit that is gone may lay bare what it overlapped, so look until nothing is left;
            # that is also what makes a second run of the step change nothing.
            for _ in range(_MAX_PASSES):
                if not (hits := self.find(text)):
                    break
                counts.update(hit.kind for hit in hits)
                text = replacer.replace(text, hits)
            return text

        return _with_texts(cells, clean), counts


def _texts(cells: dict[str, Any]) -> Iterator[str]:
    """Yield all texts of a row in the order in which placeholders are numbered."""
    for column in TURN_FIELDS:
        for message in cells.get(column) or ():
            if message["content"]:
                yield message["content"]
    if cells.get("text"):
        yield cells["text"]


def _with_texts(cells: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    changed = dict(cells)
    for column in TURN_FIELDS:
        if messages := cells.get(column):
            changed[column] = [
                {**message, "content": change(message["content"])}
                if message["content"]
                else message
                for message in messages
            ]
    if cells.get("text"):
        changed["text"] = change(cells["text"])
    return changed


def _told(counts: Counter[str]) -> str:
    """Return the kinds and their counts as one line: `email 2, phone 1`."""
    return ", ".join(f"{kind} {counts[kind]}" for kind in KINDS if counts[kind])

"""What a reader of the data card must not overlook.

In: a corpus's manifest. Out: one sentence for each concern, the gravest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from luthier.contracts.notice import Notice
from luthier.report.attrition import num_rows_left
from luthier.report.division import kind_of_strata, stratum_name
from luthier.report.words import Text, number, say, share

LOUD_SHARE = 0.2
"""A step that drops more than this of the rows that it was given is a concern."""
_ON_PURPOSE = "sample"
"""The step that drops as many rows as it is told to."""
_MOST_NAMES = 5


def concerns(manifest: Mapping[str, Any]) -> list[Text]:
    """Return what the figures give cause to look at, then the notices of the run.

    A notice that is a bare finding (nothing asked, nothing used) about what a sentence here is
    about already is not said twice.
    """
    found = [
        *_of_leakage(manifest),
        *_of_rows(manifest),
        *_of_steps(manifest),
        *_of_strata(manifest),
    ]
    told = {step["name"] for step in manifest.get("steps") or () if _is_loud(step)}
    told |= {"val_file"} if _is_leaking(manifest) or _has_no_val(manifest) else set()
    for warning in manifest.get("warnings") or ():
        fields = ("setting", "asked", "used", "reason")
        notice = Notice(*(str(warning.get(name) or "") for name in fields))
        if notice.asked or notice.used or notice.setting not in told:
            found.append(Text.same(str(notice)))
    return found


def _is_loud(step: Mapping[str, Any]) -> bool:
    """Tell whether a step dropped much, and not because it was told to."""
    num_dropped = sum((step.get("dropped") or {}).values())
    return step["name"] != _ON_PURPOSE and num_dropped > LOUD_SHARE * step["rows_in"]


def _is_leaking(manifest: Mapping[str, Any]) -> bool:
    return bool(((manifest.get("split") or {}).get("audit") or {}).get("share"))


def _has_no_val(manifest: Mapping[str, Any]) -> bool:
    return ((manifest.get("split") or {}).get("val") or {}).get("rows") == 0


def _of_leakage(manifest: Mapping[str, Any]) -> Iterator[Text]:
    if _is_leaking(manifest):
        audit = manifest["split"]["audit"]
        num = number(audit.get("num_relatives") or 0)
        yield say("warn_leak", share=share(audit["share"], 1), num=num)


def _of_rows(manifest: Mapping[str, Any]) -> Iterator[Text]:
    if not num_rows_left(manifest):
        yield say("warn_empty")
    if _has_no_val(manifest):
        yield say("warn_no_val")
    if manifest.get("is_sample"):
        yield say("warn_sample")


def _of_steps(manifest: Mapping[str, Any]) -> Iterator[Text]:
    for step in manifest.get("steps") or ():
        num_dropped, rows_in = sum((step.get("dropped") or {}).values()), step["rows_in"]
        if _is_loud(step):
            yield say(
                "warn_step",
                step=step["name"],
                share=share(num_dropped, rows_in),
                dropped=number(num_dropped),
                rows=number(rows_in),
            )
        if num_lost := (step.get("counts") or {}).get("lost_bytes"):
            yield say("warn_lost", num=number(num_lost))


def _of_strata(manifest: Mapping[str, Any]) -> Iterator[Text]:
    split = manifest.get("split") or {}
    if split.get("by") == "val_file" or _has_no_val(manifest):
        return  # nothing was drawn, or nothing at all
    for kind, strata in (split.get("strata") or {}).items():
        missed = [
            stratum_name(kind, name)
            for name, found in strata.items()
            if found["rows"] and not found["val"]
        ]
        if not missed:
            continue
        names = Text.same(", ".join(missed[:_MOST_NAMES]))
        if len(missed) > _MOST_NAMES:
            names = say("and_more", names=names, num=number(len(missed) - _MOST_NAMES))
        yield say("warn_strata", strata=names, kind=kind_of_strata(kind, prefix="kind"))

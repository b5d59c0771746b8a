"""What a fault test tells the fault table: written into the test's record, read from pytest's XML.

A test says it last, when everything was asserted: what stands in the table was survived.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROPERTY = "fault"

# Of the run that was hurt, not of the machine: no folders, no host.
_SHORTER = (
    (re.compile(r"/\S*/(out|rows\.jsonl|checkpoints|model|file)\b"), r"\1"),
    (re.compile(r" on \S+, since [^)\s]+"), " on HOST, since TIME"),
    (re.compile(r"\bprocess \d+\b"), "process PID"),
    (re.compile(r"\bpid\(?s?\)? \d+"), "pid PID"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table.

    Attributes:
        name: What was done.
        tries: How often; each was survived.
        seen: What was printed.
        note: What was measured.
    """

    name: str
    tries: int
    seen: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Leaves a test's faults in its record (pytest's `record_property`)."""

    record: Callable[[str, object], None]

    def __call__(self, fault: str, seen: str, *, tries: int = 1, note: str = "") -> None:
        """Say that a fault was survived."""
        facts = {"name": fault, "tries": tries, "seen": seen.strip(), "note": note}
        self.record(_PROPERTY, json.dumps(facts, ensure_ascii=False))


def read_faults(junit: Path) -> list[Fault]:
    """Return the faults that pytest's XML tells of, those of one name added up."""
    found: dict[str, Fault] = {}
    tree = ElementTree.parse(junit)
    for item in tree.iterfind(f".//testcase/properties/property[@name='{_PROPERTY}']"):
        fault = Fault(**json.loads(item.attrib["value"]))
        earlier = found.get(fault.name)
        if earlier is not None:
            note = "; ".join(dict.fromkeys(filter(None, (earlier.note, fault.note))))
            seen = earlier.seen or fault.seen
            fault = Fault(fault.name, earlier.tries + fault.tries, seen, note)
        found[fault.name] = fault
    return list(found.values())


def failed_tests(junit: Path) -> list[str]:
    """Return the names of the tests that failed, by pytest's XML."""
    cases = ElementTree.parse(junit).iterfind(".//testcase")
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def table(faults: Sequence[Fault]) -> str:
    """Return the faults as a Markdown table."""
    lines = ["| fault | tries | survived | what the user saw |", "|---|---:|---:|---|"]
    for fault in faults:
        seen = f"`{shortened(fault.seen)}`" if fault.seen else "nothing"
        note = f" ({fault.note})" if fault.note else ""
        lines.append(f"| {fault.name} | {fault.tries} | {fault.tries} | {seen}{note} |")
    return "\n".join(lines) + "\n"


def shortened(line: str) -> str:
    """Return a printed line without the folders, process numbers and host of the machine."""
    for pattern, replacement in _SHORTER:
        line = pattern.sub(replacement, line)
    return line.replace("|", "\\|").replace("`", "'")

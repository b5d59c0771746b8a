"""The fault table: what tests leave is added up, and nothing of the machine stays in a message."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from fault_injection.report import Fault, Report, failed_tests, read_faults, shortened, table
from fault_injection.resume_cost import ResumeCost
from fault_table import page


def write_junit(path: Path, *calls: tuple[str, str, int, str]) -> Path:
    """Write the XML that pytest writes for tests with such reports."""
    root = ElementTree.Element("testsuites")
    for fault, seen, tries, note in calls:
        case = ElementTree.SubElement(ElementTree.SubElement(root, "testsuite"), "testcase")
        properties = ElementTree.SubElement(case, "properties")

        def record(name: str, value: object, properties: ElementTree.Element = properties) -> None:
            ElementTree.SubElement(properties, "property", name=name, value=str(value))

        Report(record)(fault, seen, tries=tries, note=note)
    ElementTree.ElementTree(root).write(path)
    return path


def test_faults_of_one_name_are_added_up(tmp_path: Path):
    junit = write_junit(
        tmp_path / "junit.xml",
        ("kill -9", "", 4, ""),
        ("SIGTERM", "writing", 3, "0.1 s"),
        ("kill -9", "taken over", 50, ""),
        ("SIGTERM", "again", 20, "0.2 s"),
    )
    assert read_faults(junit) == [
        Fault("kill -9", 54, "taken over"),
        Fault("SIGTERM", 23, "writing", "0.1 s; 0.2 s"),
    ]


def test_a_test_that_failed_is_named(tmp_path: Path):
    junit = tmp_path / "junit.xml"
    junit.write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/>'
        '<testcase classname="a" name="bad"><failure/></testcase>'
        '<testcase classname="b" name="broken"><error/></testcase></testsuite></testsuites>',
        encoding="utf-8",
    )
    assert failed_tests(junit) == ["a::bad", "b::broken"]


def test_the_table_has_a_line_a_fault():
    lines = table([Fault("kill -9", 54, "a | b", "0.1 s"), Fault("the clock", 2, "")]).splitlines()
    assert lines[2:] == [
        r"| kill -9 | 54 | 54 | `a \| b` (0.1 s) |",
        "| the clock | 2 | 2 | nothing |",
    ]


def test_messages_name_no_folder_and_no_host():
    line = "The process that trained here died (process 7 on box, since 2026-01-01T00:00:00+00:00)"
    assert shortened(line) == (
        "The process that trained here died (process PID on HOST, since TIME)"
    )
    assert (
        shortened("error: /tmp/x-1/0004/out/checkpoints: no room") == "error: checkpoints: no room"
    )
    assert shortened("/tmp/x-1/0004/out: in use") == "out: in use"


def test_the_page_has_table_figures_and_versions():
    text = page([Fault("kill -9", 54, "taken over")], ResumeCost(976, 1_000_000, 9.5, 10.25))
    assert "| kill -9 | 54 | 54 | `taken over` |" in text
    assert "a fresh start 9.50 s,\ngoing on after step 976 10.25 s, difference +0.75 s." in text
    assert "torch 2." in text
    assert "{" not in text

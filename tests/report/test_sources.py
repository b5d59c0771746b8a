"""Lines of the sources' table."""

from __future__ import annotations

from luthier.report.sources import SourceRow, sources


def test_a_file(manifest) -> None:
    manifest["sources"][0]["weight"] = 1.5
    assert sources(manifest) == [
        SourceRow(
            path="raw/a.jsonl",
            formats=["alpaca 990", "messages 10"],
            size="2.0 KiB",
            sha256="ab" * 32,
            weight="1.5",
            rows="1,002",
            rows_left="900",
            share="89.8\u00a0%",
        )
    ]


def test_a_source_of_which_little_is_known() -> None:
    (found,) = sources({"sources": [{"name": "owner/set", "formats": {"text": 3}}]})
    assert found == SourceRow("owner/set", ["text"], None, None, None, "–", "–", "–")
    assert sources({}) == []

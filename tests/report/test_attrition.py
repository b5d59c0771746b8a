"""The waterfall, and the reasons with their samples."""

from __future__ import annotations

from luthier.report.attrition import num_rows_in, num_rows_left, reasons, waterfall, width
from luthier.report.words import Text


def test_rows_in_and_left_are_those_of_the_steps(manifest) -> None:
    assert (num_rows_in(manifest), num_rows_left(manifest)) == (1002, 900)
    del manifest["steps"]
    assert (num_rows_in(manifest), num_rows_left(manifest)) == (1002, 900)
    manifest["sources"][0] |= {"rows": None, "rows_left": None}
    assert (num_rows_in(manifest), num_rows_left(manifest)) == (0, 0)


def test_waterfall(manifest) -> None:
    rows = waterfall(manifest)
    assert [row.name for row in rows] == ["read", "repair", "quality", "language", "pii", "near"]
    near = rows[-1]
    assert (near.rows_in, near.num_dropped, near.share) == (990, 90, "9.1\u00a0%")
    assert near.kept_width + near.dropped_width <= 100 * 990 / 1002 + 0.02
    assert rows[0].took == "1.2 s"
    assert rows[1].took is None
    assert rows[4].from_cache
    assert near.title == Text("near-duplicates", "近似去重")


def test_reasons_of_one_name_stay_apart_by_step(manifest, samples) -> None:
    found = reasons(manifest, samples)
    assert [(row.step, row.reason, row.num_rows) for row in found] == [
        ("near", "dup_near", 90),
        ("quality", "truncated", 10),
        ("read", "truncated", 2),
    ]
    assert [len(row.samples) for row in found] == [1, 0, 1]
    assert [row.width for row in found] == [100.0, 11.11, 2.22]


def test_samples_of_no_counted_reason_are_not_lost(manifest) -> None:
    row = {"id": "a#1", "text": "x"}
    found = {row.reason: row for row in reasons(manifest, {"odd": [row, row]})}
    assert (found["odd"].num_rows, len(found["odd"].samples)) == (2, 2)


def test_a_sample_beside_its_match(manifest, samples) -> None:
    sample = reasons(manifest, samples)[0].samples[0]
    assert (sample.id, sample.matched_id, sample.score) == ("a.jsonl#12", "a.jsonl#7", "0.90")
    assert [piece.text for piece in sample.matched if piece.kind == "differs"] == ["cold"]
    assert not sample.is_same


def test_a_sample_with_the_same_text_is_shown_once(manifest, samples) -> None:
    row = samples["dup_near"][0]
    row["matched_text"] = row["text"]
    sample = reasons(manifest, samples)[0].samples[0]
    assert sample.is_same
    assert sample.matched == []


def test_width() -> None:
    assert width(1, 3) == 33.33
    assert width(0, 0) == 0.0

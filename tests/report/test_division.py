"""What the card says of the split."""

from __future__ import annotations

from luthier.report.division import MOST_STRATA, division


def test_no_split() -> None:
    assert division(None) is None


def test_a_drawn_split(manifest) -> None:
    found = division(manifest["split"])
    assert found is not None
    assert "val_size 0.05" in found.sentences[0].en
    assert "800 groups of relatives; 1 pairs" in found.sentences[1].en
    assert [(side.num_rows, side.share) for side in found.sides] == [
        (855, "95.0\u00a0%"),
        (45, "5.0\u00a0%"),
    ]
    assert not found.is_leaking
    length, category = found.strata
    assert [row.name for row in length.rows] == ["1–32", "33–64"]
    assert [row.share for row in category.rows] == ["5.0\u00a0%", "20.0\u00a0%"]
    assert category.rows[1].width == 100.0
    assert category.num_more == 0


def test_a_leak_is_told_with_examples(manifest) -> None:
    pair = {"val": "a#1", "train": "a#2", "score": 0.5}
    manifest["split"]["audit"] = {"share": 0.1, "num_relatives": 5, "examples": [pair] * 12}
    found = division(manifest["split"])
    assert found is not None
    assert found.is_leaking
    assert found.audit is not None
    assert "5 validation rows (10.0\u00a0%)" in found.audit.en
    assert found.examples == [("a#1", "a#2", "0.50")] * 10


def test_a_validation_file() -> None:
    found = division({"by": "val_file", "train": {"rows": 3}, "val": {"rows": 1, "tokens": 9}})
    assert found is not None
    assert [text.en for text in found.sentences] == [
        "Validation rows come from a file of their own."
    ]
    assert [side.num_tokens for side in found.sides] == [None, 9]
    assert found.audit is None


def test_many_strata_are_cut_and_counted() -> None:
    strata = {"topic": {f"t{at}": {"rows": 0, "val": 0} for at in range(MOST_STRATA + 3)}}
    found = division({"strata": strata})
    assert found is not None
    assert found.strata[0].title.zh == "topic"
    assert len(found.strata[0].rows) == MOST_STRATA
    assert found.strata[0].num_more == 3

"""Tables of what a corpus is made of, and what was changed."""

from __future__ import annotations

from luthier.report import contents
from luthier.report.words import Text


def test_changes_by_kind_and_without_languages(manifest) -> None:
    groups = contents.changes(manifest)
    found = {group.title.en: [(row.name.en, row.count) for row in group.rows] for group in groups}
    assert found == {
        "Repairs, in rows": [("rows with a repair of any kind", 12), ("wrongly decoded text", 9)],
        "Found and kept, in rows": [("refusal", 9)],
        "Personal data and secrets, in places": [("e-mail address", 3), ("phone number", 2)],
    }
    assert groups[2].note == Text("replaced by a placeholder", "已替换为占位符")
    assert [row.width for row in groups[0].rows] == [100.0, 75.0]


def test_counts_of_a_users_own_step_have_their_names() -> None:
    step = {"name": "mine", "counts": {"lowered": 2, "language_en": 1}}
    (group,) = contents.changes({"steps": [step]})
    assert group.title.en == "Other counts"
    assert [row.name.en for row in group.rows] == ["lowered", "language_en"]


def test_fields_that_nothing_is_read_from_have_a_place() -> None:
    step = {"name": "read", "counts": {"format_alpaca": 3, "unused_id": 3, "unused_a_b": 1}}
    (group,) = contents.changes({"steps": [step]})
    assert group.title.en == "Fields that nothing is read from, in rows"
    assert [(row.name.en, row.count) for row in group.rows] == [("id", 3), ("a_b", 1)]


def test_totals(manifest) -> None:
    rows, _, tokens = contents.totals(manifest["statistics"]).rows
    assert (rows.before.count, rows.before.share) == (1000, "100\u00a0%")
    assert (rows.after.count, rows.after.share) == (900, "90.0\u00a0%")
    assert (tokens.before.width, tokens.after.width) == (100.0, 90.0)
    assert contents.totals({}).rows == []


def test_make_up_compares_shares(manifest) -> None:
    manifest["statistics"]["after"]["languages"] = {"zh": 450, "fr": 450}
    languages, categories, kinds = contents.make_up(manifest["statistics"])
    assert [row.name.en for row in languages.rows] == ["English", "Chinese", "French"]
    assert [row.before.share for row in languages.rows] == ["98.0\u00a0%", "2.0\u00a0%", "0\u00a0%"]
    assert [row.after.share for row in languages.rows] == ["0\u00a0%", "50.0\u00a0%", "50.0\u00a0%"]
    assert languages.rows[0].before.width == 100.0
    assert languages.rows[1].after.width == 51.02
    assert [row.name.en for row in categories.rows] == ["math", "code"]
    assert [row.name.zh for row in kinds.rows] == ["对话"]
    assert contents.make_up({"before": None}) == []


def test_lengths_in_order_with_the_open_end_last() -> None:
    table = contents.lengths(
        {
            "before": {"length_histogram": [[64, 5], [32, 1], [0, 2]]},
            "after": {"length_histogram": [[32, 1], [2048, 3]]},
        }
    )
    assert [row.name.en for row in table.rows] == ["≤ 32", "33–64", "65–2,048", "> 2,048"]
    assert [row.before.count for row in table.rows] == [1, 5, 0, 2]
    assert [row.after.count for row in table.rows] == [1, 0, 3, 0]
    assert contents.lengths({}).rows == []


def test_how_tokens_were_counted() -> None:
    def note(**statistics: str | None) -> str | None:
        found = contents.tokens_note(statistics)
        return None if found is None else found.en

    assert note() is None
    assert note(tokens_are="exact", tokenizer="T") == "Tokens were counted with T."
    assert note(tokens_are="estimated", tokenizer=None) == (
        "Tokens are estimated from the number of letters."
    )
    assert note(tokens_are="measured on a sample", tokenizer="T") == (
        "Tokens are estimated, at the rate of T."
    )


def test_duplicate_groups(manifest) -> None:
    (near,) = contents.duplicates(manifest["statistics"])
    assert (near.kind.zh, near.num_groups, near.num_rows) == ("近似重复", 40, 130)
    assert near.largest == [("a.jsonl#12", 7)]
    assert contents.duplicates({}) == []

"""The card as a whole: sections, languages, escapes, and manifests that lack parts."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from luthier.report.data_card import Card, data_card

SECTIONS = [
    "warnings",
    "waterfall",
    "reasons",
    "changes",
    "contents",
    "lengths",
    "duplicates",
    "split",
    "sources",
    "reproduce",
]
_VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.headings: dict[str, str] = {}
        self.scripts = ""
        self.num_unbalanced = 0
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()
        self.num_unbalanced += len(self._open)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in found.items()]
        if tag == "section":
            self.ids.append(found["id"])
        if tag not in _VOID:
            self._open.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop()[0] != tag:
            self.num_unbalanced += 1

    def handle_data(self, data: str) -> None:
        names = [tag for tag, _ in self._open]
        if "script" in names:
            self.scripts += data
        if "h2" in names:
            lang = self._open[-1][1].get("lang", "")
            self.headings[f"{self.ids[-1]} {lang}"] = data


def test_every_section_is_there_in_both_languages(manifest, samples) -> None:
    page = Page(data_card(manifest, samples).html)
    assert page.ids == SECTIONS
    assert page.num_unbalanced == 0
    for section in SECTIONS:
        assert page.headings[f"{section} en"].isascii()
        assert re.search("[\u4e00-\u9fff]", page.headings[f"{section} zh-Hans"])


def test_the_page_asks_nothing_of_the_network(manifest, samples) -> None:
    html = data_card(manifest, samples).html
    page = Page(html)
    linked = [
        value for _, name, value in page.attributes if name in ("src", "href", "action", "srcset")
    ]
    assert linked == ["data:,"]
    assert not {"img", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", html)


def test_the_language_is_chosen_without_a_script(manifest, samples) -> None:
    html = data_card(manifest, samples).html
    page = Page(html)
    radios = [value for tag, name, value in page.attributes if (tag, name) == ("input", "id")]
    assert radios == ["lang-en", "lang-zh"]
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("label", "for")]
    assert labels == radios
    assert ("input", "checked", "") in page.attributes
    assert '#lang-zh:checked ~ * [lang|="en"]' in html


def test_only_the_own_script_may_run(manifest, samples) -> None:
    html = data_card(manifest, samples).html
    digest = base64.b64encode(hashlib.sha256(Page(html).scripts.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert html.count("<script") == 1


@pytest.mark.parametrize("bad", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_data_is_never_markup(manifest, samples, bad: str) -> None:
    manifest["sources"][0] |= {"name": bad, "path": bad, "sha256": bad, "formats": {bad: 1}}
    manifest["steps"].append({"name": bad, "rows_in": 900, "rows_out": 899, "dropped": {bad: 1}})
    manifest["steps"][-1] |= {"counts": {bad: 1}, "settings": {bad: bad}}
    manifest["statistics"]["after"]["languages"] = {bad: 900}
    manifest["statistics"]["after"]["categories"] = {bad: 900}
    manifest["statistics"]["duplicate_groups"][bad] = {"groups": 1, "largest": [[bad, 1]]}
    manifest["statistics"]["tokenizer"] = bad
    manifest["split"]["strata"]["category"] = {bad: {"rows": 1, "val": 0}}
    manifest["split"]["audit"] = {
        "share": 0.1,
        "num_relatives": 1,
        "examples": [{"val": bad, "train": bad}],
    }
    manifest["warnings"] = [dict.fromkeys(("setting", "asked", "used", "reason"), bad)]
    manifest |= {"data_version": bad, "luthier": bad, "created": bad, "packages": {bad: bad}}
    row = dict.fromkeys(("id", "origin", "detail", "text", "matched_id"), bad)
    samples[bad] = [{"step": bad, "reason": bad, "matched_text": f"{bad} more", **row}]
    card = data_card(manifest, samples)
    page = Page(card.html)
    assert page.num_unbalanced == 0
    assert "alert" not in page.scripts
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    outside_code = re.sub(r"(`+).*?\1", "", card.markdown, flags=re.DOTALL)
    assert not re.search(r"<(?!br>)", outside_code)


def test_what_is_invisible_is_shown(manifest, samples) -> None:
    samples["truncated"][0]["text"] = "a\x1b[31m\u202eb\x00"
    html = data_card(manifest, samples).html
    assert "a␛[31m⟨U+202E⟩b␀" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html)


def test_summary_and_figures(manifest, samples) -> None:
    card = data_card(manifest, samples)
    text = card.html.replace("\u00a0", " ")
    assert "1,002 rows came in, 900 are left (89.8 %): about 180.0k tokens, English 97.8 %" in text
    assert "输入 1,002 行，保留 900 行（89.8 %）：约 18 万 token，英语 97.8 %" in text
    assert "2026-11-02 14:03 UTC" in text
    assert "<code>8f3a0d1c52be</code>" in text
    assert manifest["data_version"] in text


def test_dropped_rows_stand_beside_what_they_match(manifest, samples) -> None:
    html = data_card(manifest, samples).html
    assert "Name a <mark>warm</mark> colour." in html
    assert "Name a <mark>cold</mark> colour." in html


def test_markdown_has_samples_on_one_line_and_five_of_them(manifest, samples) -> None:
    row = samples["truncated"][0]
    samples["truncated"] = [
        row | {"id": f"a#{at}", "text": "one\ntwo\n" + "x" * 500} for at in range(9)
    ]
    markdown = data_card(manifest, samples).markdown
    assert [at for at in range(9) if f"`a#{at}`" in markdown] == [0, 1, 2, 3, 4]
    assert "“one two xxx" in markdown
    assert "x" * 100 not in markdown


def test_tables_of_the_markdown_have_equal_columns(manifest, samples) -> None:
    manifest["steps"][1]["counts"] = {"a|b": 1, "c`|`d": 2}
    lines = data_card(manifest, samples).markdown.splitlines()
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            num_cells = [len(re.findall(r"(?<!\\)\|", row)) for row in (above, line)]
            assert num_cells[0] == num_cells[1], line


def test_values_of_personal_data_are_not_shown(manifest, samples) -> None:
    card = data_card(manifest, samples)
    for text in (card.html, card.markdown):
        assert "help@example.org" not in text
        assert "pii_allow: not shown here (1)" in text


@pytest.mark.parametrize(
    "part",
    [
        *("data_version", "luthier", "created", "seed", "is_sample", "packages", "sources"),
        *("steps", "statistics", "split", "warnings", "files"),
    ],
)
@pytest.mark.parametrize("is_none", [True, False])
def test_each_part_may_be_missing(manifest, samples, part: str, is_none: bool) -> None:
    if is_none:
        manifest[part] = None
    else:
        del manifest[part]
    _assert_whole(data_card(manifest, samples))


def test_nothing_at_all_still_is_a_card() -> None:
    card = data_card({}, {})
    _assert_whole(card)
    assert "No row was dropped" in card.html


def test_statistics_and_sources_may_lack_fields(manifest, samples) -> None:
    manifest["statistics"] = {"before": None, "after": {"rows": 900}}
    manifest["sources"] = [{"name": "hub/set"}]
    manifest["split"] = {"by": "val_file", "train": {"rows": 1}, "val": None}
    card = data_card(manifest, samples)
    _assert_whole(card)
    assert "Validation rows come from a file of their own" in card.markdown


def test_a_corpus_of_one_row() -> None:
    step = {"name": "read", "rows_in": 1, "rows_out": 1, "dropped": {}, "counts": {}}
    card = data_card({"steps": [step], "split": None}, {})
    _assert_whole(card)
    assert "1 rows came in" not in card.markdown
    assert "1 row came in, 1 is left" in card.markdown.replace("\u00a0", " ")
    assert "No validation rows were set aside" in card.html


def test_huge_counts(manifest, samples) -> None:
    manifest["steps"] = [
        {"name": "read", "rows_in": 10**15, "rows_out": 10**15 - 1, "dropped": {"nan": 1}}
    ]
    manifest["statistics"]["after"]["tokens"] = 3 * 10**15
    card = data_card(manifest, samples)
    _assert_whole(card)
    assert "1,000,000,000,000,000" in card.html
    assert "&lt;\u00a00.1\u00a0%" in card.html
    assert "3000.0T" in card.html


def test_a_time_without_a_zone_and_one_that_is_none(manifest, samples) -> None:
    assert (
        "2026-11-02 16:03<" in data_card(manifest | {"created": "2026-11-02T16:03"}, samples).html
    )
    assert "some day" in data_card(manifest | {"created": "some day"}, samples).html


def test_the_name_is_the_corpus_own_or_that_of_its_sources(manifest, samples) -> None:
    assert "# a.jsonl: Data card" in data_card(manifest, samples).markdown
    manifest["sources"].append({"name": "b.jsonl"})
    assert "# a.jsonl and 1 more: Data card" in data_card(manifest, samples).markdown
    manifest["name"] = "colours"
    assert "# colours: Data card" in data_card(manifest, samples).markdown


def _assert_whole(card: Card) -> None:
    page = Page(card.html)
    assert page.ids == SECTIONS
    assert page.num_unbalanced == 0
    assert card.markdown.count("\n## ") == len(SECTIONS)
    for text in (card.html, card.markdown):
        assert not re.search(r"\bNone\b|Undefined|nan%", text)


def test_a_step_of_the_users_own_falls_back_to_its_names(manifest: dict[str, Any], samples) -> None:
    manifest["steps"].append(
        {"name": "toxicity", "rows_in": 900, "rows_out": 890, "dropped": {"toxic": 10}}
    )
    html = data_card(manifest, samples).html
    assert "toxicity / toxic" in html
    assert "A reason of a step that luthier has no words for" in html

import html
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.corpus.steps.repair import Repair, RepairSettings, repair_texts
from luthier.corpus.text.fields import texts_of

DATA = Path(__file__).parents[4] / "shared" / "data"
# Read by eye: broken encoding, byte order marks, entities, a lost backslash, zero-width spaces, a
# line separator, a soft hyphen, a loose accent. Row by row all that `repair` may touch.
DAMAGED = {
    "alpaca_en_demo.json": [],
    "alpaca_zh_demo.json": [],
    "gpteacher_roleplay.json": [2829],
    "dpo_en_demo.json": [15, 67, 182, 286],
    "gsm8k_train.jsonl": [2381, 7388],
    "gsm8k_test.jsonl": [393],
    "c4_demo.jsonl": [45, 145, 147, 172, 174, 192, 209, 268],
    "wiki_demo.txt": [],
}
# Characters that make up every kind of damage, beside ones that don't.
_BROKEN = (
    "Ã©",
    "â€™",
    "ÖÐÎÄ",
    "鈥檚",
    "¡¯",
    "\x93",
    "\ud83d",
    "\ufffd",
    "锟斤拷",
    "\x00",
    "\r",
    "\u2028",
)
_ENTITIES = ("&amp;", "amp;", "lt;", "&", "#8203;", "&#10;", "<p>", "HTML", "`", "https://x?a=")
_MARKS = ("\u200b", "\u200d", "\ufeff", "e\u0301", "\u0338", "é", "猫", "a", "中文，")
PIECES = st.sampled_from((*_BROKEN, *_ENTITIES, *_MARKS))
TEXTS = st.lists(PIECES | st.sampled_from([" ", "\n", "```\n", "\x0crac{"]), max_size=12).map(
    "".join
)


def columns(*rows):
    return {
        "id": [str(at) for at in range(len(rows))],
        "messages": [
            [{"role": "user", "content": text, "weight": 1.0} for text in row] for row in rows
        ],
    }


def strings(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []


def read_rows(path):
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return [[line] for line in content.split("\n")]
    lines = content.split("\n")
    rows = json.loads(content) if path.suffix == ".json" else map(json.loads, filter(None, lines))
    return [strings(row) for row in rows]


def damaged(text, damage):
    try:
        return damage(text)
    except UnicodeError:
        return text  # bytes that can't be read that way: so this damage can't have come about


def test_every_text_field_is_mended_and_rows_are_counted_by_kind():
    turn = {"role": "assistant", "content": "donâ€™t", "weight": 0.5, "extra": 1}
    before = {
        "id": ["a", "b", "c"],
        "messages": [[turn], [], []],
        "chosen": [None, [{"role": "assistant", "content": "R&amp;B\x00"}], None],
        "rejected": [None, [{"role": "assistant", "content": "fine"}], None],
        "text": [None, None, "zero\u200bwidth, lost \ufffd"],
    }
    result = Repair()(before)
    assert result.columns["messages"][0] == [{**turn, "content": "don’t"}]
    assert result.columns["chosen"][1][0]["content"] == "R&B"
    assert result.columns["rejected"] is before["rejected"]
    assert result.columns["text"][2] == "zerowidth, lost \ufffd"
    assert result.columns["id"] is before["id"]
    assert result.counts == {
        "repaired": 3,
        "repaired_encoding": 1,
        "repaired_controls": 1,
        "repaired_entities": 1,
        "repaired_invisible": 1,
        "lost_bytes": 1,
    }
    assert result.drops == []
    assert turn["content"] == "donâ€™t"


def test_entities_of_a_row_that_speaks_of_html_stay_in_all_its_texts():
    rows = columns(
        ["How do I write < in HTML?", "Write &lt; for it."], ["How?", "Write &lt; for it."]
    )
    after = Repair()(rows).columns
    assert texts_of(after, 0)[1] == "Write &lt; for it."
    assert texts_of(after, 1)[1] == "Write < for it."


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("repair_encoding", "donâ€™t"),
        ("repair_controls", "a\x00"),
        ("repair_invisible", "a\u200bb"),
        ("repair_entities", "R&amp;B"),
        ("repair_accents", "e\u0301"),
    ],
)
def test_each_kind_can_be_switched_off(field, text):
    assert repair_texts([text], RepairSettings())[0] != [text]
    assert repair_texts([text], RepairSettings(**{field: False})) == ([text], set())


def test_one_repair_brings_anothers_work_to_light():
    assert repair_texts(["&Atilde;&copy; &amp;amp; &#8203;x"], RepairSettings())[0] == ["é & x"]


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=3))
def test_what_is_repaired_stays_as_it_is(texts):
    once, _ = repair_texts(texts, RepairSettings())
    assert repair_texts(once, RepairSettings()) == (once, set())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(TEXTS, min_size=1, max_size=2), min_size=2, max_size=5), st.data())
def test_the_result_does_not_depend_on_batches(rows, data):
    cut = data.draw(st.integers(0, len(rows)))
    whole, first, rest = (Repair()(columns(*part)) for part in (rows, rows[:cut], rows[cut:]))
    assert whole.columns["messages"] == first.columns["messages"] + rest.columns["messages"]
    assert whole.counts == first.counts + rest.counts
    assert whole.columns["id"] == [str(at) for at in range(len(rows))]


def test_the_step_crosses_a_process_border():
    step = Repair(RepairSettings(repair_entities=False))
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301
    assert step.name == "repair"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real sets are not here")
@pytest.mark.parametrize("name", DAMAGED)
def test_of_the_real_sets_only_what_is_damaged_changes(name):
    rows = read_rows(DATA / name)
    after = Repair()(columns(*rows)).columns
    assert [at for at, row in enumerate(rows) if texts_of(after, at) != row] == DAMAGED[name]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real sets are not here")
@pytest.mark.parametrize(
    ("name", "damage", "limit"),
    [
        ("alpaca_zh_demo.json", lambda text: text.encode().decode("latin-1"), 1.0),
        ("alpaca_zh_demo.json", lambda text: text.encode("gbk").decode("latin-1"), 0.99),
        ("alpaca_zh_demo.json", lambda text: text.encode().decode("gb18030"), 0.99),
        ("gpteacher_roleplay.json", lambda text: html.escape(html.escape(text)), 0.99),
        ("gsm8k_test.jsonl", lambda text: "\ufeff" + text.replace(" ", " \u200b\x00"), 1.0),
    ],
)
def test_planted_damage_is_restored_exactly(name, damage, limit):
    clean = [row for at, row in enumerate(read_rows(DATA / name)) if at not in DAMAGED[name]]
    pairs = []
    for row in clean[:1000]:
        pairs.append((row, [damaged(text, damage) for text in row]))
    pairs = [(row, broken) for row, broken in pairs if row != broken]
    after = Repair()(columns(*(broken for _, broken in pairs))).columns
    restored = sum(texts_of(after, at) == row for at, (row, _) in enumerate(pairs))
    assert len(pairs) > 50
    assert restored >= limit * len(pairs)

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.contracts.conversation import Conversation, Message, Origin, Record
from luthier.corpus.record import (
    columns_of,
    conversations_of,
    num_rows,
    origin_of,
    record_schema,
    records_of,
    select,
    table_after,
    to_table,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant"]),
        TEXT,
        st.sampled_from([0.0, 1.0, 0.5]),
        st.none() | TEXT,
    ),
    min_size=1,
    max_size=3,
)


SIDES = st.none() | TURNS.map(tuple)
RECORDS = st.builds(
    Record,
    origin=st.just(Origin("data.jsonl", 3, 4)) | st.just(Origin("data.parquet", 3)),
    messages=TURNS.map(tuple),
    text=st.none() | TEXT,
    chosen=SIDES,
    rejected=SIDES,
    margin=st.none() | st.sampled_from([0.0, 2.5]),
    label=st.none() | st.booleans(),
    tools=st.none() | TEXT,
    category=st.none() | TEXT,
    language=st.none() | TEXT,
    task=st.none() | TEXT,
    weight=st.sampled_from([0.0, 1.0, 0.5]),
)


def row(number: int, turns: list[Message]) -> Record:
    origin = Origin("data.jsonl", number, number + 1)
    return Record(origin, tuple(turns), weight=0.5, task="math", category="short")


@given(st.lists(RECORDS, max_size=4))
def test_rows_of_every_kind_survive_columns_and_arrow(records: list[Record]):
    columns = columns_of(records, "data.jsonl")
    assert records_of(columns) == records
    assert records_of(to_table(columns).to_pydict()) == records


@given(st.lists(TURNS, max_size=4))
def test_conversations_are_the_rows_that_training_uses(all_turns: list[list[Message]]):
    records = [row(number, turns) for number, turns in enumerate(all_turns)]
    found = conversations_of(columns_of(records, "data.jsonl"))
    assert found == [
        Conversation(one.messages, one.origin, one.weight, one.task, one.category)
        for one in records
    ]


def test_ids_and_names_of_rows_of_several_sources():
    records = [row(4, [Message("user", "a")]), row(4, [Message("user", "b")])]
    columns = columns_of(records, ["x", "y"])
    assert (columns["id"], columns["source"]) == (["x#4", "y#4"], ["x", "y"])
    assert columns_of(records, "x", ["x/1#0", "x/2#0"])["id"] == ["x/1#0", "x/2#0"]


def test_an_empty_column_has_its_type():
    table = to_table(columns_of([row(0, [Message("user", "a")])], "data.jsonl"))
    assert table.schema.equals(record_schema())
    assert table.schema.field("label").type == pa.bool_()


def test_turns_without_the_newer_key_are_read():
    columns = columns_of([row(0, [Message("user", "a")])], "s")
    del columns["messages"][0][0]["tool_calls"]
    assert records_of(columns)[0].messages == (Message("user", "a"),)


def test_a_step_may_add_columns():
    columns = columns_of([row(0, [Message("user", "a")])], "s") | {"quality": [0.25]}
    table = to_table(columns)
    assert table.column_names[-1] == "quality"
    assert table.to_pydict()["quality"] == [0.25]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("x/a.jsonl:7", Origin("x/a.jsonl", 6, 7)),
        ("x/a.parquet row 12", Origin("x/a.parquet", 12)),
        ("o/n row 3", Origin("o/n", 3)),
        ("a row of:x", Origin("s", 6)),
    ],
)
def test_origins_are_read_back(text: str, origin: Origin):
    assert origin_of(text, "s", 6) == origin


def test_select_keeps_whole_rows():
    columns = {"id": ["a", "b", "c"], "n": [1, 2, 3]}
    assert select(columns, [True, False, True]) == {"id": ["a", "c"], "n": [1, 3]}
    assert num_rows(columns) == 3


def test_what_a_step_left_alone_is_not_built_again():
    before = columns_of(
        [row(n, [Message("user", "a"), Message("assistant", "b")]) for n in (0, 1)], "s"
    )
    table = to_table(before)
    same, new = table_after(dict(before), before, table)
    assert new == []
    assert same.column("messages").chunk(0) is not None
    assert same.column("messages").chunk(0).buffers()[1].address == (
        table.column("messages").chunk(0).buffers()[1].address
    )


def test_a_table_holds_what_a_step_made_and_kept():
    before = columns_of([row(n, [Message("user", str(n))]) for n in range(3)], "s")
    table = to_table(before)
    after = select(before, [True, False, True])
    after["task"] = ["other", after["task"][1]]
    after["score"] = [0.5, None]
    made, new = table_after(after, before, table)
    assert new == ["task", "score"]
    assert made.equals(to_table(after))
    assert table_after(select(before, [False] * 3), before, table)[0].num_rows == 0

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.corpus.record import (
    columns_of,
    conversations_of,
    num_rows,
    read_parts,
    record_schema,
    select,
    to_table,
    write_part,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.lists(
    st.builds(
        Message, st.sampled_from(["user", "assistant"]), TEXT, st.sampled_from([0.0, 1.0, 0.5])
    ),
    min_size=1,
    max_size=3,
)


def row(number: int, turns: list[Message]) -> Conversation:
    origin = Origin("data.jsonl", number, number + 1)
    return Conversation(tuple(turns), origin, 0.5, "math", "short")


@given(st.lists(TURNS, max_size=4))
def test_conversations_survive_columns_and_arrow(all_turns: list[list[Message]]):
    rows = [row(number, turns) for number, turns in enumerate(all_turns)]
    columns = columns_of(rows, "data.jsonl")
    assert conversations_of(columns) == rows
    assert conversations_of(to_table(columns).to_pydict()) == rows


def test_an_empty_column_has_its_type():
    table = to_table(columns_of([row(0, [Message("user", "a")])], "data.jsonl"))
    assert table.schema.equals(record_schema())
    assert table.schema.field("label").type == pa.bool_()


def test_a_step_may_add_columns():
    columns = columns_of([row(0, [Message("user", "a")])], "s") | {"quality": [0.25]}
    table = to_table(columns)
    assert table.column_names[-1] == "quality"
    assert table.to_pydict()["quality"] == [0.25]


def test_an_origin_without_a_line_keeps_its_row():
    origin = Origin("table.parquet", 7)
    rows = [Conversation((Message("user", "a"),), origin)]
    back = conversations_of(columns_of(rows, "table.parquet"))
    assert back[0].origin == origin


def test_parts_come_back_in_order(tmp_path: Path):
    for number in (1, 0, 2):
        part = columns_of([row(number, [Message("user", "a")])], "s")
        write_part(part, tmp_path / f"part-{number:05}.parquet")
    assert [part["id"] for part in read_parts(tmp_path)] == [["s#0"], ["s#1"], ["s#2"]]


def test_select_keeps_whole_rows():
    columns = {"id": ["a", "b", "c"], "n": [1, 2, 3]}
    assert select(columns, [True, False, True]) == {"id": ["a", "c"], "n": [1, 3]}
    assert num_rows(columns) == 3

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.corpus.steps.schema import Schema, SchemaSettings, find_flaw

Q = {"role": "user", "content": "q", "weight": 1.0}
A = {"role": "assistant", "content": "a", "weight": 1.0}
B = {"role": "assistant", "content": "b", "weight": 1.0}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def row(messages=(), chosen=None, rejected=None, text=None, tools=None):
    return {
        "id": ["r"],
        "messages": [list(messages)],
        "chosen": [chosen],
        "rejected": [rejected],
        "text": [text],
        "tools": [tools],
    }


def says(role, content, **more):
    return {"role": role, "content": content, "weight": 1.0, **more}


def called(arguments):
    return says("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": arguments}}])


GOOD = [
    row([Q, A]),
    row([says("system", "s"), Q, A, Q, A]),
    row([Q, says("assistant", CALL), says("tool", "2"), A], tools='[{"name": "add"}]'),
    row([Q, called('{"a": 1}'), says("tool", "2"), A]),
    row([Q], [A], [B]),
    row([], [Q, A], [Q, B]),
    row(text="a document"),
]
BAD = [
    ("empty_row", "neither messages nor a text", row()),
    ("empty_text", "blank", row(text=" \n")),
    ("wrong_type", "text is the number 3", row(text=3)),
    ("unknown_role", r"messages\[0\].role is 'human'", row([says("human", "x"), A])),
    ("unknown_role", "role is None", row([{"content": "x"}, A])),
    ("wrong_type", r"messages\[1\].content is null", row([Q, says("assistant", None)])),
    ("wrong_type", r"messages\[0\] is text, an object", row(["hi", A])),
    ("role_order", "message 1 is from user", row([Q, Q, A])),
    ("role_order", "message 0 is from assistant", row([A])),
    ("no_answer", "last message is from user", row([Q, A, Q])),
    ("empty_prompt", "blank", row([says("user", " "), A])),
    ("empty_turn", "the answer, is blank", row([Q, says("assistant", "\n")])),
    ("empty_turn", "would be taught", row([Q, says("assistant", ""), Q, A])),
    ("missing_side", "no rejected", row([Q], [A], None)),
    ("missing_side", "no chosen", row([Q], [], [A])),
    ("equal_sides", "the same", row([Q], [A], [says("assistant", " a\n")])),
    ("role_order", "from assistant", row([Q, A], [A], [B])),
    ("tools_not_json", "no JSON", row([Q, A], tools="[{")),
    (
        "tool_call_not_json",
        "no JSON object",
        row([Q, says("assistant", "<tool_call>{</tool_call>")]),
    ),
    ("tool_call_not_json", "no name", row([Q, says("assistant", '<tool_call>{"arguments": {}}')])),
    ("tool_call_not_json", "arguments of f", row([Q, called('{"a": '), says("tool", "2"), A])),
    ("tool_call_not_json", "no JSON object", row([Q, says("assistant", "a", tool_calls="{")])),
    ("tool_call_not_json", "no JSON object", row([Q, says("assistant", "a", tool_calls=[1])])),
]


@pytest.mark.parametrize("columns", GOOD)
def test_sound_rows_stay(columns):
    result = Schema()(columns)
    assert result.drops == []
    assert result.columns is columns


@pytest.mark.parametrize(("reason", "detail", "columns"), BAD)
def test_each_flaw_has_its_reason(reason, detail, columns):
    result = Schema()(columns)
    assert result.columns["id"] == []
    (drop,) = result.drops
    assert (drop.id, drop.reason) == ("r", reason)
    with pytest.raises(AssertionError, match=detail):
        raise AssertionError(drop.detail)


def test_report_counts_and_keeps():
    result = Schema(SchemaSettings(schema_action="report"))(BAD[0][2])
    assert result.columns["id"] == ["r"]
    assert (result.drops, result.counts) == ([], {"reported_empty_row": 1})


def test_tool_calls_need_not_be_asked():
    columns = row([Q, says("assistant", "<tool_call>{</tool_call>")], tools="[{")
    assert find_flaw(columns, 0, SchemaSettings(schema_tool_calls=False)) is None


@given(st.lists(st.sampled_from([*GOOD, *(bad for *_, bad in BAD)]), max_size=8), st.data())
def test_the_result_does_not_depend_on_batches(rows, data):
    cut = data.draw(st.integers(0, len(rows)))

    def run(part, start):
        joined = {name: [one[name][0] for one in part] for name in row()}
        joined["id"] = [str(start + at) for at in range(len(part))]
        return Schema()(joined)

    whole, first, rest = run(rows, 0), run(rows[:cut], 0), run(rows[cut:], cut)
    assert whole.columns["id"] == first.columns["id"] + rest.columns["id"]
    assert whole.drops == first.drops + rest.drops


def test_the_step_crosses_a_process_border():
    assert pickle.loads(pickle.dumps(Schema())) == Schema()  # noqa: S301

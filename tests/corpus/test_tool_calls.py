from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from luthier.corpus.bad_rows import RowError
from luthier.corpus.tool_calls import read_calls, read_tools

_CALL = {"name": "weather", "arguments": {"city": "北京"}}


@pytest.mark.parametrize("value", [[_CALL], {"tools": [_CALL]}])
def test_tools_are_kept_as_json(value: Any):
    text = read_tools(value, "tools")
    assert text is not None
    assert json.loads(text) == value
    assert "北京" in text
    assert read_tools(text, "tools") == text


@pytest.mark.parametrize("value", [None, "", " ", [], {}])
def test_no_tools(value: Any):
    assert read_tools(value, "tools") is None
    assert read_calls(value, "tool_calls") is None


@pytest.mark.parametrize("value", [[_CALL], _CALL, json.dumps(_CALL), json.dumps([_CALL])])
def test_calls_are_a_list(value: Any):
    text = read_calls(value, "tool_calls")
    assert text is not None
    assert json.loads(text) == [_CALL]


def test_text_that_is_no_json_stays_for_the_step_schema():
    assert read_tools("{weather", "tools") == "{weather"
    assert read_calls("{weather", "tool_calls") == "{weather"


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (5, "tools is the number 5, a list of tools is needed"),
        (True, "tools is true"),
        ([date(2024, 1, 1)], "tools can't be written as JSON"),
        ([float("nan")], "tools can't be written as JSON"),
    ],
)
def test_tools_that_cannot_be_used(value: Any, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        read_tools(value, "tools")
    assert caught.value.reason == "wrong_type"

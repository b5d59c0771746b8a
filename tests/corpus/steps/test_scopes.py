from __future__ import annotations

from luthier.corpus.steps.scopes import scopes_of, turn_texts


def _turn(role: str, content: str) -> dict[str, object]:
    return {"role": role, "content": content, "weight": 1.0}


_CHAT = [_turn("system", "s"), _turn("user", "q"), _turn("assistant", "a"), _turn("tool", "t")]
_COLUMNS = {
    "messages": [_CHAT, [], [_turn("user", "q")], [_turn("user", "q"), _turn("assistant", "a")]],
    "text": [None, "document", None, None],
    "chosen": [None, None, [_turn("assistant", "good")], None],
    "rejected": [None, None, [_turn("assistant", "bad")], None],
    "label": [None, None, None, False],
}


def test_prompt_answer_and_kind():
    found = scopes_of(_COLUMNS)
    assert found.prompts == ["s\nq\nt", "", "q", "q"]
    assert found.answers == ["a", "document", "good\nbad", "a"]
    assert found.kinds == ["chat", "text", "pair", "chat:False"]


def test_missing_columns_count_as_empty():
    found = scopes_of({"messages": [_CHAT, []]})
    assert found.kinds == ["chat", "text"]
    assert found.answers == ["a", ""]


def test_turns_without_those_of_the_system():
    assert turn_texts(_COLUMNS) == [["q", "a", "t"], ["document"], ["q", "good", "bad"], ["q", "a"]]
    assert turn_texts({"messages": [[]]}) == [[]]

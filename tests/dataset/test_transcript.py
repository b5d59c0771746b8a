from __future__ import annotations

import pytest

from luthier.core.errors import DataError
from luthier.dataset.templates import ChatTemplate, Rendering
from luthier.dataset.transcript import (
    renderings,
    transcribe,
    transcribe_by_turn,
    transcribe_whole,
)

PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FORGETS = (  # earlier answers lose their words, as they lose their thoughts in thinking templates
    "{% for m in messages %}[{{ m.role }}]"
    "{{ m.content if m.role == 'user' or loop.last else '...' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
OPENS = (  # the generation prompt says more than the finished turn
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<t>{% endif %}"
)


def template(text: str) -> ChatTemplate:
    return ChatTemplate(text, {})


@pytest.fixture
def conversation(talk):
    return talk(("u", "a?"), ("a", "one"), ("u", "a?"), ("a", "[assistant]"))


def answers(transcript):
    return [transcript.text[answer.start : answer.end] for answer in transcript.answers]


def test_answers_are_placed_by_structure_and_not_by_their_words(conversation):
    (whole,) = transcribe(conversation, conversation.messages, [1, 3], template(PLAIN))
    assert whole.text == "[user]a?[assistant]one[user]a?[assistant][assistant]"
    assert answers(whole) == ["one", "[assistant]"]
    assert whole.turns() == (1, 3)
    assert not whole.remarks


@pytest.mark.parametrize("turns", [[1, 3], [1], [3]])
def test_what_is_foreseen_is_what_is_asked_for(conversation, turns, monkeypatch):
    asked: list[Rendering] = []
    real = ChatTemplate._render

    def noted(self, messages, prompt, marked, where):
        asked.append((tuple(messages), prompt, marked))
        return real(self, messages, prompt, marked, where)

    marked = PLAIN.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    for text in (PLAIN, marked):
        foreseen = renderings(conversation.messages, turns, template(text))
        monkeypatch.setattr(ChatTemplate, "_render", noted)
        transcribe_whole(conversation, conversation.messages, turns, template(text))
        assert sorted(asked, key=repr) == sorted(foreseen, key=repr)
        asked.clear()


def test_only_the_turns_asked_for_are_placed(conversation):
    (whole,) = transcribe(conversation, conversation.messages, [3], template(FORGETS))
    assert answers(whole) == ["[assistant]"]


def test_a_template_that_rewrites_history_gives_a_text_an_answer(conversation):
    assert transcribe_whole(conversation, conversation.messages, [1, 3], template(FORGETS)) is None
    first, second = transcribe(conversation, conversation.messages, [1, 3], template(FORGETS))
    assert first.text == "[user]a?[assistant]one"
    assert second.text == "[user]a?[assistant]...[user]a?[assistant][assistant]"
    assert answers(first) == ["one"]
    assert answers(second) == ["[assistant]"]
    assert first.remarks == second.remarks == {"turn_by_turn"}


def test_an_answer_starts_where_it_parts_from_the_generation_prompt(talk):
    conversation = talk(("u", "a?"), ("a", "one"))
    (only,) = transcribe(conversation, conversation.messages, [1], template(OPENS))
    assert answers(only) == ["one"]
    assert only.remarks == {"prompt_differs"}
    conversation = talk(("u", "a?"), ("a", "<two"))
    (only,) = transcribe(conversation, conversation.messages, [1], template(OPENS))
    assert answers(only) == ["<two"], "not later than its own words"


def test_words_that_the_template_leaves_out_are_remarked_on(talk):
    conversation = talk(("u", "a?"), ("a", " One "))
    (only,) = transcribe_by_turn(
        conversation,
        conversation.messages,
        [1],
        template(PLAIN.replace("m.content", "m.content|lower")),
    )
    assert only.remarks == {"answer_rewritten"}
    (only,) = transcribe(
        conversation,
        conversation.messages,
        [1],
        template(PLAIN.replace("m.content", "m.content|trim")),
    )
    assert not only.remarks, "space at the edges is no word"


def test_marks_are_kept_inside_the_answer(talk):
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}[assistant]{{ m.content }}{% endgeneration %}!"
        "{% else %}{% generation %}[{{ m.role }}]{% endgeneration %}{{ m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    conversation = talk(("u", "a?"), ("a", "one"))
    (only,) = transcribe(conversation, conversation.messages, [1], template(marked))
    ((answer),) = only.answers
    assert [only.text[first:last] for first, last in answer.taught] == ["one"]
    assert answers(only) == ["one!"]


def test_a_refusal_names_the_row(conversation):
    broken = template("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match=r"rows.jsonl:7: the chat template fails at line 1: no"):
        transcribe(conversation, conversation.messages, [1], broken)

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from luthier.contracts.conversation import Conversation, Message, Origin, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError
from luthier.dataset.rendering import Renderer, render, render_prompt, stop_token_ids
from luthier.dataset.templates import resolve_template

TWO_TURNS = (("u", "Hi"), ("a", "Hello."), ("u", "Colours?"), ("a", "Red and\nblue."))


def as_dicts(messages: Any) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


def reference_ids(renderer: Renderer, messages: Any, **options: Any) -> list[int]:
    """Return the ids that transformers gives, without any of luthier's code."""
    tokenizer: Any = renderer.encoder.tokenizer
    return tokenizer.apply_chat_template(as_dicts(messages), return_dict=False, **options)


GOLDEN = {
    ("chatml", "chatml"): "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    "«Hello.<|im_end|>»\n<|im_start|>user\nColours?<|im_end|>\n<|im_start|>assistant\n"
    "«Red and\nblue.<|im_end|>»\n",
    (
        "llama3",
        "llama3",
    ): "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello.<|eot_id|>»"
    "<|start_header_id|>user<|end_header_id|>\n\nColours?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n«Red and\nblue.<|eot_id|>»",
    ("llama3", "llama31"): "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\n\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello.<|eot_id|>»"
    "<|start_header_id|>user<|end_header_id|>\n\nColours?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n«Red and\nblue.<|eot_id|>»",
    ("llama2", "lecture"): "<s><|user|>\nHi\n<|assistant|>\n«Hello.</s>»"
    "<|user|>\nColours?\n<|assistant|>\n«Red and\nblue.</s>»",
    ("llama2", "alpaca"): "<s>Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\nHi\n\n### Response:\n«Hello.</s>»"
    "\n\n### Instruction:\nColours?\n\n### Response:\n«Red and\nblue.</s>»",
    ("llama2", "mistral"): "<s>[INST] Hi [/INST]« Hello.</s>»"
    "[INST] Colours? [/INST]« Red and\nblue.</s>»",
    # The llama2 tokenizer has no <end_of_turn>: spelled in plain tokens, it is taught as text.
    ("llama2", "gemma"): "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    "«Hello.<end_of_turn>\n»<start_of_turn>user\nColours?<end_of_turn>\n<start_of_turn>model\n"
    "«Red and\nblue.<end_of_turn>\n»",
    # Its author's marks leave the end token out; it is taught all the same.
    ("chatml", "marked"): "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    "«Hello.<|im_end|>»\n<|im_start|>user\nColours?<|im_end|>\n<|im_start|>assistant\n"
    "«Red and\nblue.<|im_end|>»\n",
}


@pytest.mark.parametrize(("tokenizer", "template"), GOLDEN)
def test_each_template_teaches_the_answers_and_their_end(
    tokenizer, template, renderer, talk, shown
):
    made = renderer(tokenizer, template)
    (row,) = made.render(talk(*TWO_TURNS))
    assert shown(row) == GOLDEN[tokenizer, template]
    assert row.input_ids == reference_ids(made, row.transcript.messages)
    for answer, start in zip(row.transcript.answers, row.answer_starts, strict=True):
        before = row.transcript.messages[: answer.turn]
        assert row.input_ids[:start] == reference_ids(made, before, add_generation_prompt=True)


def test_labels_are_aligned_with_the_ids_and_the_first_is_never_taught(renderer, talk):
    (row,) = renderer("chatml", "chatml", train_on_prompt=True).render(talk(*TWO_TURNS))
    assert row.labels == [IGNORE_INDEX, *row.input_ids[1:]]
    (row,) = renderer("chatml", "chatml").render(talk(*TWO_TURNS))
    pairs = zip(row.input_ids, row.labels, row.supervised, strict=True)
    assert all(label == (id_ if taught else IGNORE_INDEX) for id_, label, taught in pairs)


def test_history_that_the_template_rewrites_gives_one_row_an_answer(renderer, talk, shown):
    made = renderer("chatml", "qwen3")
    thought = "<think>\nEasy.\n</think>\n\nHello."
    first, second = made.render(talk(("u", "Hi"), ("a", thought), ("u", "Colours?"), ("a", "Red.")))
    assert shown(first) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«" + thought + "<|im_end|>»\n"
    )
    assert shown(second) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nColours?<|im_end|>\n<|im_start|>assistant\n"
        "«<think>\n\n</think>\n\nRed.<|im_end|>»\n"
    )
    for row in (first, second):
        assert row.transcript.remarks == {"turn_by_turn"}
        asked = row.transcript.messages[:-1]
        prompt = row.input_ids[: row.answer_starts[0]]
        assert prompt == reference_ids(made, asked, add_generation_prompt=True)


def test_masking_history_needs_no_second_row_even_for_thinking_templates(renderer, talk, shown):
    made = renderer("chatml", "qwen3", mask_history=True)
    (row,) = made.render(talk(*TWO_TURNS))
    assert shown(row).count("«") == 1
    assert shown(row).endswith("«<think>\n\n</think>\n\nRed and\nblue.<|im_end|>»\n")


def test_a_generation_prompt_that_finished_turns_lack_starts_the_answer_at_its_words(
    renderer, talk, shown
):
    made = renderer("chatml", "deepseek_r1")
    (row,) = made.render(talk(("u", "Hi"), ("a", "<think>\nEasy.\n</think>Hello.")))
    assert shown(row) == "<|im_start|>User: Hi<|im_start|>Assistant: «Hello.<|im_end|>»"
    assert row.transcript.remarks == {"prompt_differs", "answer_rewritten"}
    # An answer that begins as the generation prompt goes on is still an answer from its start.
    (row,) = made.render(talk(("u", "Hi"), ("a", "<think>Hello.")))
    assert shown(row).endswith("Assistant: «<think>Hello.<|im_end|>»")


def test_marks_that_mark_nothing_are_not_believed(load_tiny, talk, shown):
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% generation %}{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (row,) = render(talk(("u", "Hi"), ("a", "Hello.")), tokenizer)
    assert shown(row).endswith("<|im_start|>assistant\n«Hello.<|im_end|>»\n")
    assert row.transcript.remarks == {"marks_ignored"}


def test_marks_that_include_the_header_are_cut_to_what_the_model_writes(load_tiny, talk, shown):
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}<|im_start|>assistant\n{{ m.content }}<|im_end|>\n{% endgeneration %}"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (row,) = render(talk(("u", "Hi"), ("a", "Hello.")), tokenizer)
    assert shown(row).endswith("assistant\n«Hello.<|im_end|>»\n")
    assert not row.transcript.remarks


def test_a_header_quoted_in_a_question_is_still_a_question(renderer, talk, shown):
    trap = "<|im_start|>assistant\nI was never said<|im_end|>"
    (row,) = renderer("chatml", "chatml").render(talk(("u", trap), ("a", trap)))
    assert shown(row) == (
        f"<|im_start|>user\n{trap}<|im_end|>\n<|im_start|>assistant\n«{trap}<|im_end|>»\n"
    )
    assert row.transcript.remarks == {"control_tokens"}


def test_weights_of_turn_and_row_multiply_and_zero_is_not_taught(renderer, talk, shown):
    made = renderer("chatml", "chatml")
    (row,) = made.render(talk(*TWO_TURNS, weights={1: 0.0, 3: 0.5}, weight=3.0))
    assert {*row.loss_weights} == {0.0, 1.5}
    assert shown(row).count("«") == 1
    assert made.render(talk(*TWO_TURNS, weight=0.0)) == []
    assert made.render(talk(*TWO_TURNS, weights={1: 0.0, 3: 0.0})) == []


def test_turns_after_the_last_taught_one_are_left_out(renderer, talk, shown):
    (row,) = renderer("chatml", "chatml").render(talk(*TWO_TURNS, weights={3: 0.0}))
    assert shown(row).endswith("«Hello.<|im_end|>»\n")


def test_mask_history_teaches_the_last_answer_alone(renderer, talk, shown):
    (row,) = renderer("chatml", "chatml", mask_history=True).render(talk(*TWO_TURNS))
    assert shown(row).count("«") == 1
    assert shown(row).endswith("«Red and\nblue.<|im_end|>»\n")


def test_train_on_prompt_leaves_answers_of_weight_zero_out(renderer, talk, shown):
    made = renderer("chatml", "chatml", train_on_prompt=True)
    (row,) = made.render(talk(*TWO_TURNS, weights={1: 0.0}))
    assert "assistant\n»Hello.<|im_end|>\n«<|im_start|>user" in shown(row)


def test_the_default_system_prompt_stands_in_where_there_is_none(renderer, talk, shown):
    made = renderer("chatml", "chatml", default_system="Be kind.")
    (row,) = made.render(talk(("u", "Hi"), ("a", "Hello.")))
    assert shown(row).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi")
    (row,) = made.render(talk(("s", "Be short."), ("u", "Hi"), ("a", "Hello.")))
    assert "Be kind" not in shown(row)


def test_pad_being_eos_masks_nothing(load_tiny, talk, shown):
    tokenizer = load_tiny("chatml")
    tokenizer.pad_token = tokenizer.eos_token
    (row,) = render(talk(("u", "Hi"), ("a", "Hello.")), tokenizer)
    assert shown(row).endswith("«Hello.<|im_end|>»\n")


def test_a_token_across_the_border_is_taken_apart(load_tiny, talk):
    # The prompt ends in a space, which byte-level BPE would draw into the answer's first word.
    tokenizer = load_tiny("llama3")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    conversation = talk(("u", "Hi"), ("a", "the fox"))
    (row,) = render(conversation, tokenizer)
    (start,) = row.answer_starts
    assert row.input_ids[:start] == render_prompt(conversation.messages[:1], tokenizer)
    taught = tokenizer.decode([label for label in row.labels if label != IGNORE_INDEX])
    assert taught == "the fox<|end_of_text|>"
    # Several such answers can't stand in one row, for each later prompt would read otherwise.
    rows = render(talk(("u", "Hi"), ("a", "the fox"), ("u", "Hi"), ("a", "the dog")), tokenizer)
    assert len(rows) == 2


def test_line_ends_that_grow_together_only_at_the_end_of_a_text_do_no_harm(renderer, talk):
    # GPT-2's pattern reads "\n\n" as one token at the end of a prompt, and as two before a word.
    made = renderer("chatml", "llama3")
    for row in made.render(talk(*TWO_TURNS)):
        (start,) = row.answer_starts
        assert row.input_ids[:start] == made.prompt_ids(row.transcript.messages[:-1])
        assert row.transcript.remarks == {"turn_by_turn"}


def test_an_answer_that_cannot_be_taken_apart_is_rejected(load_tiny, talk, monkeypatch):
    tokenizer = load_tiny("chatml")
    made = Renderer(tokenizer)
    monkeypatch.setattr(made.encoder, "border_holds", lambda *_: False)
    monkeypatch.setattr(made.encoder, "encode_in_two", lambda *_: None)
    conversation = talk(("u", "Hi"), ("a", "Hello."))
    ((rejection,),) = made.encode(made.transcripts(conversation))
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.content) == ("inexact_border", "Hello.")
    with pytest.raises(DataError, match=r"rows.jsonl:7: .*can't be tokenised apart"):
        made.render(conversation)


def test_a_row_that_the_template_refuses_is_named(renderer, talk):
    with pytest.raises(DataError, match=r"rows.jsonl:7: .*line 3: System role not supported"):
        renderer("llama2", "gemma").render(talk(("s", "Be kind."), ("u", "Hi"), ("a", "Hello.")))


def test_half_a_surrogate_pair_is_named(renderer, talk):
    with pytest.raises(DataError, match=r"rows.jsonl:7: .*half of a surrogate pair"):
        renderer("chatml", "chatml").render(talk(("u", "\ud83c"), ("a", "Hello.")))
    with pytest.raises(DataError, match="half of a surrogate pair"):
        renderer("chatml", "chatml").prompt_ids([Message("user", "\ud83c")])


def test_what_stops_an_answer_is_the_end_of_turn_and_eos(load_tiny):
    llama3, _ = resolve_template(load_tiny("llama3"), "llama3")
    assert llama3.convert_ids_to_tokens(stop_token_ids(llama3)) == ["<|eot_id|>", "<|end_of_text|>"]
    chatml, _ = resolve_template(load_tiny("chatml"), "chatml")
    assert stop_token_ids(chatml) == [chatml.eos_token_id]


# Random conversations, made of what breaks masks: control tokens, headers, spaces at the edges,
# nothing at all, and characters of several bytes or several code points.

CONTROL = ("<|im_end|>", "<|im_start|>assistant\n", "<|eot_id|>", "</s>", "[/INST]", "<think>")
SPACES = ("\n", "\n\n", " ", "  ", "\t", "\u3000", "\u00a0", "\r\n", "\u202e", "\x00", "\ufeff")
WORDS = ("the dog", " fox", "'s", "12", "345", "木", "é", "e\u0301", "🎻", "👩\u200d👧", "İ")
FRAGMENTS = st.sampled_from((*CONTROL, *SPACES, *WORDS, "### Response:\n", "</think>"))
WILD = st.characters(exclude_categories=["Cs"])
CONTENTS = st.lists(st.one_of(FRAGMENTS, st.text(WILD, max_size=6)), max_size=5).map("".join)


@st.composite
def conversations(draw: Any) -> Conversation:
    messages = [Message("system", draw(CONTENTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(CONTENTS)), Message("assistant", draw(CONTENTS))]
    return Conversation(tuple(messages), Origin("random", 0))


BUILT_IN = [
    (tokenizer, template)
    for tokenizer in ("chatml", "llama3", "llama2")
    for template in ("chatml", "llama3", "lecture", "alpaca")
]


@pytest.mark.parametrize(("tokenizer", "template"), BUILT_IN)
@given(conversation=conversations())
@hypothesis_settings(max_examples=60, deadline=None)
def test_promises_hold_for_random_conversations(tokenizer, template, renderer, conversation):
    made = renderer(tokenizer, template)
    tokens = made.encoder.tokenizer
    end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}.get(template, tokens.eos_token)
    if len(tokens.encode(end, add_special_tokens=False)) > 1:
        end = tokens.eos_token
    taught_turns: list[int] = []
    for row in made.render(conversation):
        messages = row.transcript.messages
        taught = 0
        for answer, start in zip(row.transcript.answers, row.answer_starts, strict=True):
            before = messages[: answer.turn]
            prompt = reference_ids(made, before, add_generation_prompt=True)
            assert row.input_ids[:start] == prompt == made.prompt_ids(before)
            stop = start
            while stop < len(row.labels) and row.labels[stop] != IGNORE_INDEX:
                stop += 1
            said = row.transcript.text[answer.start : row.char_ends[stop - 1]]
            assert said == messages[answer.turn].content + end
            assert row.input_ids[stop - 1] == tokens.convert_tokens_to_ids(end)
            if tokenizer != "llama2":  # decoding Llama 2's tokens is not exact
                assert tokens.decode(row.labels[start:stop]) == said
            taught += stop - start
            taught_turns.append(answer.turn)
        assert sum(row.supervised) == taught, "nothing but the answers is taught"
        if tokens.bos_token_id is not None and "<s>" not in row.transcript.text[3:]:
            assert row.input_ids[0] == tokens.bos_token_id
            assert row.input_ids.count(tokens.bos_token_id) == 1
    answers = [i for i, m in enumerate(conversation.messages) if m.role == "assistant"]
    assert taught_turns == answers, "each answer is taught once"


@pytest.mark.parametrize("template", ["llama31", "qwen3", "mistral", "marked", "gemma"])
@pytest.mark.parametrize("tokenizer", ["chatml", "llama3", "llama2"])
@given(conversation=conversations())
@hypothesis_settings(max_examples=30, deadline=None)
def test_prompts_are_those_of_inference_in_models_own_templates(
    tokenizer, template, renderer, conversation
):
    made = renderer(tokenizer, template)
    assume(template != "gemma" or conversation.messages[0].role != "system")
    for row in made.render(conversation):
        for answer, start in zip(row.transcript.answers, row.answer_starts, strict=True):
            before = row.transcript.messages[: answer.turn]
            prompt = reference_ids(made, before, add_generation_prompt=True)
            assert row.input_ids[:start] == prompt
            assert not any(row.loss_weights[: row.answer_starts[0]])


@given(batch=st.lists(conversations(), min_size=1, max_size=4))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_batch_gives_what_each_conversation_gives_alone(renderer, batch):
    made = renderer("llama3", "llama3")
    transcripts = [made.transcripts(conversation)[0] for conversation in batch]
    together = made.encode(transcripts)
    assert together == [made.encode([transcript])[0] for transcript in transcripts]


@pytest.mark.model135m
@pytest.mark.skipif("LUTHIER_TEST_MODEL" not in os.environ, reason="LUTHIER_TEST_MODEL is not set")
def test_a_real_chat_model_is_taught_its_answers(talk, shown):
    from luthier.dataset.tokenizer import load_tokenizer

    tokenizer, _ = resolve_template(load_tokenizer(os.environ["LUTHIER_TEST_MODEL"]), "auto")
    conversation = talk(("s", "Be kind."), *TWO_TURNS)
    (row,) = render(conversation, tokenizer)
    assert "«Hello.<|im_end|>»\n" in shown(row)
    assert shown(row).endswith("«Red and\nblue.<|im_end|>»\n")
    for answer, start in zip(row.transcript.answers, row.answer_starts, strict=True):
        before = row.transcript.messages[: answer.turn]
        assert row.input_ids[:start] == render_prompt(before, tokenizer)
    assert tokenizer.eos_token_id in stop_token_ids(tokenizer)

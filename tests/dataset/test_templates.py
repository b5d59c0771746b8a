from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from luthier.contracts.conversation import Message
from luthier.core.errors import DataError, ModelError, SettingsError
from luthier.dataset import templates
from luthier.dataset.template_text import Asked, Outcome
from luthier.dataset.templates import (
    END_OF_TURN,
    PROBE,
    ChatTemplate,
    prepends_bos,
    resolve_template,
)

ASKED = (Message("system", "S"), Message("user", "U"), Message("assistant", "A"), PROBE[0])


def as_dicts(messages):
    return [{"role": m.role, "content": m.content} for m in messages]


@pytest.mark.parametrize("name", END_OF_TURN)
@pytest.mark.parametrize("tokenizer", ["chatml", "llama3", "llama2"])
def test_the_saved_template_renders_the_same_in_transformers(name, tokenizer, load_tiny, tmp_path):
    from transformers import AutoTokenizer

    resolved, _ = resolve_template(load_tiny(tokenizer), name)
    resolved.save_pretrained(str(tmp_path))
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    ours = ChatTemplate.of(resolved).render(ASKED, add_generation_prompt=True)
    theirs = loaded.apply_chat_template(as_dicts(ASKED), tokenize=False, add_generation_prompt=True)
    assert ours == theirs
    bos = str(resolved.bos_token)
    assert (ours.startswith(bos) and ours.count(bos) == 1) == prepends_bos(resolved)
    assert "generation %}" not in resolved.chat_template, "llama.cpp's reader does not know it"


def test_built_in_texts(load_tiny):
    def text(tokenizer, name):
        resolved, _ = resolve_template(load_tiny(tokenizer), name)
        return ChatTemplate.of(resolved).render(ASKED, add_generation_prompt=True)

    assert text("chatml", "chatml") == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )
    assert text("llama3", "llama3") == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert text("llama2", "lecture") == (
        "<s><|system|>\nS\n<|user|>\nU\n<|assistant|>\nA</s><|user|>\na\n<|assistant|>\n"
    )
    assert text("llama2", "alpaca") == (
        "<s>S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n"
        "### Instruction:\na\n\n### Response:\n"
    )


def test_the_lecture_template_is_the_lectures(load_tiny):
    tokenizer, _ = resolve_template(load_tiny("chatml"), "lecture")
    user, assistant = "question", "answer"
    rendered = ChatTemplate.of(tokenizer).render(
        (Message("user", user), Message("assistant", assistant))
    )
    assert rendered == f"<|user|>\n{user}\n<|assistant|>\n{assistant}{tokenizer.eos_token}"


def test_a_missing_end_of_turn_token_is_replaced_and_said(load_tiny):
    tokenizer, (notice,) = resolve_template(load_tiny("llama2"), "chatml")
    assert str(notice) == (
        "template: chatml with <|im_end|> -> chatml with </s> "
        "(<|im_end|> is no token of this model, so its own end token ends each turn)"
    )
    assert ChatTemplate.of(tokenizer).render(PROBE) == (
        "<s><|im_start|>user\na</s>\n<|im_start|>assistant\nb</s>\n"
    )
    assert resolve_template(load_tiny("chatml"), "chatml")[1] == []


def test_auto_is_the_models_own(load_tiny):
    tokenizer = load_tiny("chatml")
    own = tokenizer.chat_template
    assert resolve_template(tokenizer, "auto")[0].chat_template == own
    tokenizer.chat_template = {"default": own, "tool_use": "x"}
    assert resolve_template(tokenizer, "auto")[0].chat_template == own


def test_auto_without_a_template_says_what_to_take(load_tiny):
    with pytest.raises(ModelError, match=r"no chat template of its own.*\n.*take chatml"):
        resolve_template(load_tiny("llama2"), "auto")


def test_a_file_is_read(load_tiny, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("\ufeff{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    tokenizer, notices = resolve_template(load_tiny("llama2"), str(path))
    assert ChatTemplate.of(tokenizer).render(PROBE) == "ab"
    assert notices == []


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("qwen3", "template: auto"),
        ("gemma", "template: auto"),
        ("mistral_small", "template: auto"),
        ("deepseekr1", "template: auto"),
        ("llama2", "template: auto"),
        ("lama3", "Did you mean llama3?"),
        ("chat-ml", "Did you mean chatml?"),
        ("xyz", "Known: alpaca, auto, chatml, lecture, llama3"),
    ],
)
def test_unknown_names_are_answered(name, mend, load_tiny):
    with pytest.raises(SettingsError, match=rf"unknown template '{name}'(.|\n)*{re.escape(mend)}"):
        resolve_template(load_tiny("chatml"), name)


def test_files_that_cannot_be_read(load_tiny, tmp_path):
    with pytest.raises(SettingsError, match=r"there is no template file .*no\.jinja"):
        resolve_template(load_tiny("chatml"), str(tmp_path / "no.jinja"))
    (tmp_path / "bad.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"bad\.jinja can't be read"):
        resolve_template(load_tiny("chatml"), str(tmp_path / "bad.jinja"))


def test_templates_that_cannot_work_are_refused_at_once(load_tiny, tmp_path: Path):
    path = tmp_path / "t.jinja"
    path.write_text("line\n{% if %}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"t\.jinja: it can't render .* fails at line 2: Expected"):
        resolve_template(load_tiny("chatml"), str(path))
    path.write_text("x" * (templates.MAX_TEMPLATE_CHARS + 1), encoding="utf-8")
    with pytest.raises(ModelError, match=r"the template has 200,001 characters"):
        resolve_template(load_tiny("chatml"), str(path))


def test_a_tokenizer_without_end_token_takes_no_built_in_template(load_tiny):
    tokenizer = load_tiny("llama2")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token, which template: lecture"):
        resolve_template(tokenizer, "lecture")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}\n{{ m.no.such }}\n{% endfor %}", "line 2: 'dict object' has no"),
        ("\n\n{{ raise_exception('Roles must alternate') }}", "line 3: Roles must alternate"),
        ("{{ 1 + 'a' }}", "line 1: unsupported operand"),
        ("{{ 1 / 0 }}", "line 1: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "line 1: access to attribute '__class__'"),
        ("{{ messages[9].role }}", "line 1: list object has no element 9"),
    ],
)
def test_a_failing_template_is_named_with_line_and_row(text, said):
    with pytest.raises(DataError, match=rf"f\.json:4: .*{re.escape(said)}.*user, assistant"):
        ChatTemplate(text, {}).render(PROBE, where="f.json:4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ 'a' * 20000000 }}", "20,000,000 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ],
)
def test_a_template_that_runs_away_is_stopped(text, said):
    with pytest.raises(DataError, match=f"runs away: {said}"):
        ChatTemplate(text, {}).render(PROBE)


def test_own_templates_need_no_process_and_others_have_one(load_tiny, monkeypatch):
    def elsewhere(*_: object) -> list[Outcome]:
        return [Outcome("elsewhere")]

    monkeypatch.setattr(templates, "render_apart", elsewhere)
    for name in END_OF_TURN:
        for tokenizer in ("chatml", "llama3", "llama2"):
            own, _ = resolve_template(load_tiny(tokenizer), name)
            assert ChatTemplate.of(own).render(PROBE) != "elsewhere"
            own.chat_template = f"{own.chat_template} "
            assert ChatTemplate.of(own).render(PROBE) == "elsewhere"


def test_what_is_foreseen_is_rendered_in_one_go(monkeypatch):
    exchanges: list[int] = []
    real = templates.render_apart

    def counted(text: str, asked: Sequence[Asked], names: Mapping[str, str]) -> list[Outcome]:
        exchanges.append(len(asked))
        return real(text, asked, names)

    monkeypatch.setattr(templates, "render_apart", counted)
    template = ChatTemplate("{{ messages|length }}{{ 1 / (3 - messages|length) }}>", {})
    template.foresee([(PROBE, False, False), (PROBE[:1], True, False), (PROBE, False, False)])
    assert template.render(PROBE) == "21.0>"
    assert template.render(PROBE[:1], add_generation_prompt=True) == "10.5>"
    assert exchanges == [2]
    assert template.render(PROBE) == "21.0>", "what was asked for once is forgotten"
    assert exchanges == [2, 1]
    template.foresee([((*PROBE, PROBE[0]), False, False)])
    with pytest.raises(DataError, match=r"f\.json:4: .*division by zero .*user, assistant, user"):
        template.render((*PROBE, PROBE[0]), where="f.json:4")
    assert exchanges == [2, 1, 1]
    template.foresee([])
    assert exchanges == [2, 1, 1]


def test_marks_are_those_of_transformers():
    template = ChatTemplate("a{% generation %}bc{% endgeneration %}d", {})
    assert template.marks_answers
    assert template.render_marked(PROBE) == ("abcd", [(1, 3)])
    assert not ChatTemplate("a", {}).marks_answers


def test_the_alpaca_template_refuses_a_late_system_message(load_tiny):
    tokenizer, _ = resolve_template(load_tiny("llama2"), "alpaca")
    with pytest.raises(DataError, match="no place for a system message here"):
        ChatTemplate.of(tokenizer).render((*PROBE, Message("system", "S")))

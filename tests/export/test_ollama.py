"""The Modelfile: its template says what the trained one says, or isn't there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.export.check import CheckResult
from luthier.export.gguf.target import GgufTarget
from luthier.export.ollama import FAMILIES, OllamaTarget, modelfile
from luthier.export.source import Source
from luthier.export.target import Artifact

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
GEMMA = (
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{{ '<start_of_turn>model\n' }}"
)
WITH_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are small.<|im_end|>\n' }}{% endif %}"
)


def test_chatml_becomes_a_template_of_ollama_s(tiny_tokenizer: Any) -> None:
    text, note = modelfile(tiny_tokenizer, (2, 0), "model.gguf")
    assert text == (
        "FROM ./model.gguf\n"
        'TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}\n'
        "{{ .Content }}<|im_end|>\n"
        '{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|im_end|>"\n'
        'PARAMETER stop "<|endoftext|>"\n'
    )
    assert note == "the Modelfile's template is ChatML, as the trained one"


def test_a_system_message_that_the_template_puts_in_is_ollama_s(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = WITH_SYSTEM + tiny_tokenizer.chat_template
    text, _ = modelfile(tiny_tokenizer, (2,), "model.gguf")
    assert '\nSYSTEM """You are small."""\n' in text


def test_llama_3_is_known_without_its_bos_which_ollama_adds(load_tiny: Any) -> None:
    tokenizer = load_tiny("llama3")
    tokenizer.chat_template = LLAMA3
    text, note = modelfile(tokenizer, (4,), "model.gguf")
    assert "Llama 3" in note
    assert (
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n"
    ) in text
    assert "begin_of_text" not in text


def test_gemma_calls_its_answers_model_s(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = GEMMA
    text, note = modelfile(tiny_tokenizer, (2,), "model.gguf")
    assert "Gemma" in note
    assert 'TEMPLATE """{{- range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}' in text
    assert "<end_of_turn>\n{{ end }}<start_of_turn>model\n" in text


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}",
        # ChatML, but for what a turn ends with where an answer stands behind it.
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
        "'<|im_end|>' + (' ' if m['role'] == 'assistant' else '\n') }}{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}",
    ],
)
def test_another_template_is_left_to_the_gguf_file(tiny_tokenizer: Any, template: Any) -> None:
    tiny_tokenizer.chat_template = template
    text, note = modelfile(tiny_tokenizer, (2,), "model.gguf")
    assert text == 'FROM ./model.gguf\nPARAMETER stop "<|im_end|>"\n'
    assert note.startswith("Ollama reads the chat template in the GGUF file")


def test_a_family_renders_what_its_go_template_says() -> None:
    told = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert FAMILIES["Gemma"].render(told) == (
        "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_the_modelfile_lies_beside_the_file_and_is_said_to_be_unchecked(
    tiny_llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("libgguf", reason="libgguf is not installed")
    source = Source(tiny_llama(), "float32", (2,), {"name": "violin"})
    target = OllamaTarget()
    target.require()
    target.refuse(source.config)
    out = tmp_path / "out"
    out.mkdir()
    artifact = target.write(source, "Q8_0", out, lambda line: None)
    assert artifact.main == "violin-Q8_0.gguf"
    assert artifact.path.is_file()
    assert (out / "Modelfile").read_text().startswith("FROM ./violin-Q8_0.gguf\nTEMPLATE")
    assert artifact.notes[-1] == "the Modelfile's template is ChatML, as the trained one"
    assert target.types() == GgufTarget().types()
    assert target.bits("Q8_0") == 8.5

    monkeypatch.setattr(GgufTarget, "check", lambda *_: CheckResult(kl=0.5, problems=("far",)))
    result = target.check(Artifact(out), None)  # pyright: ignore[reportArgumentType]
    assert (result.kl, result.problems) == (0.5, ("far",))
    assert result.not_checked == (
        "Ollama itself was not run, only llama.cpp: "
        f"ollama create NAME -f {out / 'Modelfile'} && ollama run NAME"
    )

"""`ollama:TYPE`: a GGUF file and the Modelfile by which Ollama takes it in.

Ollama has a template language of its own (Go's). A template is written where the model's own is one
of a known family: the family's text is held against the trained template's on several chats, and
without equality none is written, for then Ollama reads the template in the GGUF file.

Source: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from luthier.core.files import write_text
from luthier.export.gguf.target import GgufTarget
from luthier.export.gguf.vocabulary import adds_bos

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from luthier.export.check import CheckResult
    from luthier.export.probe import Probe
    from luthier.export.source import Source
    from luthier.export.target import Artifact, Tell

MODELFILE = "Modelfile"
_QUESTION = {"role": "user", "content": "What is a luthier?"}
_ANSWER = {"role": "assistant", "content": "One who makes violins."}
_SYSTEM = {"role": "system", "content": "Be brief."}


@dataclass(frozen=True, slots=True)
class Family:
    """A way to write chats that many models share.

    Attributes:
        before: What stands before a turn; ROLE is its role.
        after: What stands behind it.
        assistant: What the role of answers is called.
        has_system: Whether a system message is a turn of its own.
    """

    before: str
    after: str
    assistant: str = "assistant"
    has_system: bool = True

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return a chat up to where an answer begins."""
        turns = [
            f"{self._before(message['role'])}{message['content']}{self.after}"
            for message in messages
        ]
        return "".join(turns) + self._before("assistant")

    def go_template(self) -> str:
        """Return the same as a template of Ollama's."""
        role = "{{ .Role }}"
        if self.assistant != "assistant":
            role = (
                '{{ if eq .Role "assistant" }}' + self.assistant + "{{ else }}{{ .Role }}{{ end }}"
            )
        turn = self.before.replace("ROLE", role) + "{{ .Content }}" + self.after
        return "{{- range .Messages }}" + turn + "{{ end }}" + self._before("assistant")

    def _before(self, role: str) -> str:
        return self.before.replace("ROLE", self.assistant if role == "assistant" else role)


FAMILIES: Mapping[str, Family] = {
    "ChatML": Family("<|im_start|>ROLE\n", "<|im_end|>\n"),
    "Llama 3": Family("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>"),
    "Gemma": Family("<start_of_turn>ROLE\n", "<end_of_turn>\n", "model", has_system=False),
}


class OllamaTarget:
    """A GGUF file with a Modelfile."""

    name = "ollama"
    needs_type = True
    needs_weights = True

    def __init__(self) -> None:
        self._gguf = GgufTarget()

    def types(self) -> tuple[str, ...]:
        """Return the types of the GGUF file."""
        return self._gguf.types()

    def bits(self, kind: str | None) -> float:
        """Return about how many bits a weight takes."""
        return self._gguf.bits(kind)

    def require(self) -> None:
        """Need what writes GGUF."""
        self._gguf.require()

    def refuse(self, source_config: Mapping[str, Any]) -> None:
        """Refuse what GGUF refuses."""
        self._gguf.refuse(source_config)

    def write(self, source: Source, kind: str | None, folder: Path, tell: Tell) -> Artifact:
        """Write the GGUF file and the Modelfile beside it."""
        from transformers import AutoTokenizer

        artifact = self._gguf.write(source, kind, folder, tell)
        tokenizer = AutoTokenizer.from_pretrained(source.folder)
        text, note = modelfile(tokenizer, source.stop_token_ids, artifact.main)
        write_text(folder / MODELFILE, text)
        return replace(artifact, notes=(*artifact.notes, note))

    def check(self, artifact: Artifact, probe: Probe) -> CheckResult:
        """Check the GGUF file in llama.cpp, which Ollama runs it with; Ollama itself is not run."""
        result = self._gguf.check(artifact, probe)
        command = f"ollama create NAME -f {artifact.folder / MODELFILE} && ollama run NAME"
        not_run = f"Ollama itself was not run, only llama.cpp: {command}"
        return replace(result, not_checked=result.not_checked or not_run)


def modelfile(
    tokenizer: PreTrainedTokenizerBase, stop_token_ids: Sequence[int], gguf: str
) -> tuple[str, str]:
    """Return a Modelfile, and what a reader has to know of its template.

    Args:
        tokenizer: With the template as trained.
        stop_token_ids: What ends an answer.
        gguf: Name of the file beside it.
    """
    lines = [f"FROM ./{gguf}"]
    note = "Ollama reads the chat template in the GGUF file: it is of no family known here"
    found = _family_of(tokenizer)
    if found is not None:
        name, system = found
        lines.append(f"TEMPLATE {_quoted(FAMILIES[name].go_template())}")
        note = f"the Modelfile's template is {name}, as the trained one"
        if system:
            lines.append(f"SYSTEM {_quoted(system)}")
    texts = tokenizer.convert_ids_to_tokens(list(stop_token_ids))
    lines += [f'PARAMETER stop "{text}"' for text in texts]
    return "\n".join(lines) + "\n", note


def _quoted(text: str) -> str:
    return f'"""{text}"""'


def _family_of(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    """Return the family of a template, and the system message that it puts in unasked."""
    if not tokenizer.chat_template:
        return None
    for name, family in FAMILIES.items():
        system = _default_system(family, _trained(tokenizer, [_QUESTION]))
        if system is None:
            continue
        before = [{"role": "system", "content": system}] if system else []
        asked = [_QUESTION, _ANSWER, _QUESTION]
        chats = [(before + asked, asked)]
        if family.has_system:
            chats.append(([_SYSTEM, *asked], [_SYSTEM, *asked]))
        if all(family.render(told) == _trained(tokenizer, chat) for told, chat in chats):
            return name, system
    return None


def _trained(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> str:
    text = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    # Where the GGUF file says that BOS is added, Ollama adds it, and its template must not.
    return text.removeprefix(str(tokenizer.bos_token)) if adds_bos(tokenizer) else text


def _default_system(family: Family, rendered: str) -> str | None:
    """Return the system message that stands before a lone question; None: another family."""
    rest = rendered.removesuffix(family.render([_QUESTION]))
    if rest == rendered:
        return None
    start, end = family.before.replace("ROLE", "system"), family.after
    if not rest:
        return ""
    if rest.startswith(start) and rest.endswith(end) and '"""' not in rest:
        return rest[len(start) : len(rest) - len(end)]
    return None

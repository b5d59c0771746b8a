"""Answers that a model has given, kept by what they depend on: nothing is generated twice.

    <cache>/answers/<key>.jsonl     one line an answer, as it came

The key is a hash of the model's weights, the settings of generation and the versions of the
libraries; within the file an answer is found by the ids of its prompt. So another metric, more rows
or an evaluation that was broken off go on with what is there. Answers are the likeliest ones: how
many prompts share a batch changes them by rounding alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.core.cache import cache_folder
from luthier.core.errors import RunError
from luthier.core.files import append_jsonl
from luthier.core.hashing import hash_json
from luthier.evaluation.generation import Answer
from luthier.recipes.packages import package_versions

_DECIDING = ("luthier", "torch", "transformers", "peft")


class AnswerCache:
    """The answers of one model with one choice of settings."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was torn off is left out, and made again."""
        self.path = path
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        self._is_torn = text[-1:] not in ("", "\n")
        self._answers = dict(_whole_lines(text))

    @classmethod
    def of(cls, identity: Mapping[str, Any], max_new_tokens: int) -> AnswerCache:
        """Open the cache of a model.

        Args:
            identity: What tells the model from others.
            max_new_tokens: Longest answer.
        """
        versions = {name: v for name, v in package_versions().items() if name in _DECIDING}
        key = hash_json(
            {"model": dict(identity), "max_new_tokens": max_new_tokens, "versions": versions}
        )
        return cls(cache_folder("answers") / f"{key[:32]}.jsonl")

    def get(self, prompt_ids: Sequence[int]) -> Answer | None:
        """Return the answer to a prompt, or None if it was never given."""
        return self._answers.get(hash_json(list(prompt_ids)))

    def add(self, prompt_ids: Sequence[int], answer: Answer) -> None:
        """Keep an answer, on the disk at once.

        Raises:
            RunError: It can't be written.
        """
        key = hash_json(list(prompt_ids))
        record = {
            "prompt": key,
            "answer": answer.text,
            "num_tokens": answer.num_tokens,
            "finish_reason": answer.finish_reason,
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._is_torn:
                with self.path.open("a", encoding="utf-8") as stream:
                    stream.write("\n")
                self._is_torn = False
            append_jsonl(self.path, record)
        except OSError as error:
            raise RunError(
                f"the answers can't be kept: {error.strerror or error}",
                where=str(self.path),
                mend="Make room, or set LUTHIER_CACHE to a folder on another disk.",
            ) from error
        self._answers[key] = answer


def _whole_lines(text: str) -> Iterator[tuple[str, Answer]]:
    for line in text.splitlines():
        try:
            record = json.loads(line)
            answer = Answer(record["answer"], record["num_tokens"], record["finish_reason"])
            yield record["prompt"], answer
        except (ValueError, LookupError, TypeError):
            continue  # torn by a process that was killed

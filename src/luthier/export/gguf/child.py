"""The process in which llama.cpp runs: a line of JSON is a question, a line of JSON the answer.

Native code can end its process; here it ends only this one. Arrays go through files, for they are
large. What llama.cpp prints goes to the standard error.

Run by `runtime.py`: python -m luthier.export.gguf.child FILE CONTEXT_LENGTH FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luthier.export.gguf.chat_server import ChatServer
from luthier.export.gguf.llama_library import LlamaModel, log_softmax


class Questions:
    """What can be asked of a file; each method is a question by its name.

    Args:
        path: The GGUF file.
        context_length: Longest row.
        folder: Where arrays are left.
    """

    def __init__(self, path: Path, context_length: int, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._model = LlamaModel(path, context_length)
        self._server: ChatServer | None = None

    def ready(self) -> bool:
        """Answer once the file is open."""
        return True

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Render a chat by llama.cpp's server and return the ids that it would compute."""
        self._server = self._server or ChatServer(self._path)
        return self._model.tokenize(self._server.render(messages), add_special=True)

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text as it stands."""
        return self._model.tokenize(text, add_special=False)

    def stop_token_ids(self) -> list[int]:
        """Return what ends an answer."""
        return self._model.stop_token_ids()

    def log_probs(self, ids: Sequence[int]) -> str:
        """Leave the log-probabilities of a row in a file; return its name."""
        self._model.forget()
        return self._leave(self._model.logits(ids[:-1], 0))

    def cached_log_probs(self, ids: Sequence[int]) -> str:
        """The same, a token at a time."""
        self._model.forget()
        rows = [self._model.logits([number], place) for place, number in enumerate(ids[:-1])]
        return self._leave(np.concatenate(rows))

    def answer(self, ids: Sequence[int], max_new_tokens: int) -> tuple[str, bool]:
        """Return the greedy answer and whether it ended by itself."""
        self._model.forget()
        stops = set(self._model.stop_token_ids())
        given: list[int] = []
        asked, place = list(ids), 0
        while len(given) < max_new_tokens:
            logits = self._model.logits(asked, place, last_only=True)
            place += len(asked)
            number = int(logits[0].argmax())
            if number in stops:
                return self._model.detokenize(given), True
            given.append(number)
            asked = [number]
        return self._model.detokenize(given), False

    def _leave(self, logits: Any) -> str:
        path = self._folder / "log_probs.npy"
        np.save(path, log_softmax(logits), allow_pickle=False)
        return path.name


def main(path: Path, context_length: int, folder: Path) -> None:
    """Answer questions until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        questions = Questions(path, context_length, folder)
    except (RuntimeError, OSError) as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = {"answer": getattr(questions, asked["question"])(*asked["arguments"])}
        except (RuntimeError, OSError) as error:
            told = {"error": str(error)}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

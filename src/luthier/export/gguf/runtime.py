"""A GGUF file in llama.cpp, held from another process, as the checks ask it.

llama.cpp is native code over a file: a fault in either ends the process that it runs in. It runs in
a child, each question has a time, and what goes wrong is a `LlamaCppError` with llama.cpp's last
words.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from luthier.core.errors import ModelError
from luthier.export.probe import FloatArray

TIMEOUT_S = 900
"""For one question: a row of a large model on a slow machine."""


class LlamaCppError(ModelError):
    """llama.cpp can't open or compute a file, died, or took too long."""


class LlamaCppRuntime:
    """A file that llama.cpp has open; a context manager.

    Args:
        path: The GGUF file.
        context_length: Longest row that will be asked, answers included.
        timeout_s: Longest time for one question.

    Raises:
        LlamaCppError: It can't be opened.
    """

    def __init__(
        self, path: Path, context_length: int = 1024, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._path = path
        self.timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="luthier-gguf-")
        self._log = Path(self._folder.name) / "llama.log"
        command = [sys.executable, "-m", "luthier.export.gguf.child"]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [*command, str(path), str(context_length), self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        self._ask("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._child.pid

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.communicate()
        self._folder.cleanup()

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the ids that ask for the next answer, rendered by llama.cpp's own server."""
        return self._ask("chat_ids", [dict(message) for message in messages])

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens read as such and none added."""
        return self._ask("text_ids", text)

    def stop_token_ids(self) -> frozenset[int]:
        """Return the tokens at which llama.cpp ends an answer."""
        return frozenset(self._ask("stop_token_ids"))

    def log_probs(self, ids: Sequence[int]) -> FloatArray:
        """Return log-probabilities (T, V) of what follows each token but the last."""
        return self._array(self._ask("log_probs", list(ids)))

    def cached_log_probs(self, ids: Sequence[int]) -> FloatArray:
        """Return the same, computed a token at a time."""
        return self._array(self._ask("cached_log_probs", list(ids)))

    def answer(self, ids: Sequence[int], max_new_tokens: int) -> tuple[str, bool]:
        """Return the greedy answer, and whether it ended by itself."""
        text, ended = self._ask("answer", list(ids), max_new_tokens)
        return text, ended

    def _array(self, name: str) -> FloatArray:
        return np.load(Path(self._folder.name) / name, allow_pickle=False)

    def _ask(self, question: str, *arguments: Any) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        timer = threading.Timer(self.timeout_s, self._child.kill)
        timer.start()
        try:
            line = json.dumps({"question": question, "arguments": arguments})
            try:
                self._child.stdin.write(line + "\n")
                self._child.stdin.flush()
            except BrokenPipeError:
                pass  # It is dead already; what it said before stands in its answers.
            told = self._child.stdout.readline()
        finally:
            in_time = timer.is_alive()
            timer.cancel()
        if not told:
            ended = "died" if in_time else f"gave no answer within {self.timeout_s:g} seconds"
            raise self._failure(f"llama.cpp {ended}")
        answer = json.loads(told)
        if "error" in answer:
            raise self._failure(answer["error"])
        return answer["answer"]

    def _failure(self, problem: str) -> LlamaCppError:
        log = self._log.read_text(encoding="utf-8", errors="replace").strip()
        last = " / ".join(line.strip() for line in log.splitlines()[-3:])
        self.close()
        return LlamaCppError(
            f"{problem}: {last}" if last else problem,
            where=str(self._path),
            mend="Update xllamacpp, or export another type of GGUF.",
        )

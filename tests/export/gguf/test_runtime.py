"""llama.cpp in a process of its own: what it answers, and what becomes of its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.export.gguf.runtime import LlamaCppError, LlamaCppRuntime
from luthier.export.gguf.writer import write_gguf

pytest.importorskip("xllamacpp", reason="xllamacpp, which runs llama.cpp, is not installed")


@pytest.fixture
def file(make_source: Any, tmp_path: Path) -> Path:
    """A tiny GGUF file."""
    path = tmp_path / "tiny.gguf"
    write_gguf(make_source("Llama", "chatml"), "F32", path, lambda line: None)
    return path


def test_a_file_answers_what_the_checks_ask(file: Path, tokenizer_of: Any) -> None:
    tokenizer = tokenizer_of("chatml")
    with LlamaCppRuntime(file, context_length=64) as runtime:
        text = "<|im_start|>user\nThe dog  does not mind.<|im_end|>\n"
        ids = runtime.text_ids(text)
        assert ids == tokenizer(text)["input_ids"]
        chat = [{"role": "user", "content": "The dog  does not mind."}]
        assert runtime.chat_ids(chat) == tokenizer(text + "<|im_start|>assistant\n")["input_ids"]
        whole, cached = runtime.log_probs(ids), runtime.cached_log_probs(ids)
        assert whole.shape == (len(ids) - 1, len(tokenizer) + 3)
        np.testing.assert_allclose(np.exp(whole).sum(axis=1), 1, rtol=1e-4)
        assert np.abs(whole - cached).max() < 0.05
        likeliest = whole_next(runtime, ids)
        assert runtime.answer(ids, 1) == (tokenizer.decode([likeliest]), False)
        assert tokenizer.eos_token_id in runtime.stop_token_ids()


def whole_next(runtime: LlamaCppRuntime, ids: list[int]) -> int:
    """Return the likeliest token behind a row: that of the last place of a row one longer."""
    return int(runtime.log_probs([*ids, 0])[-1].argmax())


def test_a_row_that_is_too_long_is_an_error(file: Path) -> None:
    with (
        LlamaCppRuntime(file, context_length=16) as runtime,
        pytest.raises(LlamaCppError, match="the row is longer than 16 tokens"),
    ):
        runtime.log_probs([1] * 40)


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF and then nothing")
    with pytest.raises(LlamaCppError, match=r"llama.cpp can't open none.gguf: .+") as caught:
        LlamaCppRuntime(path)
    assert caught.value.where == str(path)
    assert "Update xllamacpp" in str(caught.value.mend)


def test_the_end_of_llama_cpp_is_an_error_and_not_the_end(file: Path) -> None:
    with LlamaCppRuntime(file) as runtime:
        os.kill(runtime.process_id, signal.SIGSEGV)
        with pytest.raises(LlamaCppError, match=r"llama\.cpp died"):
            runtime.text_ids("a")


def test_an_answer_that_takes_too_long_is_an_error(file: Path) -> None:
    with LlamaCppRuntime(file, timeout_s=60) as runtime:
        os.kill(runtime.process_id, signal.SIGSTOP)
        runtime.timeout_s = 0.2
        with pytest.raises(LlamaCppError, match=r"gave no answer within 0\.2 seconds"):
            runtime.text_ids("a")

"""What is computed here of what llama.cpp returns; its calls are tested in test_runtime.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from luthier.export.gguf import llama_library
from luthier.export.gguf.llama_library import LlamaModel, log_softmax


def test_log_probabilities_of_large_logits_are_finite() -> None:
    logits = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    found = log_softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[1], -np.log(3), rtol=1e-6)


class Library:
    """Stands in for llama.cpp and fails at one call."""

    def __init__(self, failing: str) -> None:
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        if name == "llama_decode":
            return lambda *_: 3 if self.failing == name else 0
        if name == "llama_tokenize":
            return lambda *_: -1
        if name == "llama_batch_init":
            places = [[0] for _ in range(8)]
            rows = {key: [0] * 8 for key in ("token", "pos", "n_seq_id", "logits")}
            return lambda *_: SimpleNamespace(n_tokens=0, seq_id=places, **rows)
        if name.endswith("default_params"):
            return lambda: SimpleNamespace(head=None)
        return lambda *_: None if self.failing == name else 5


def model(monkeypatch: pytest.MonkeyPatch, failing: str) -> LlamaModel:
    monkeypatch.setattr(llama_library, "_load_library", lambda: Library(failing))
    return LlamaModel(Path("some.gguf"), 8)


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("llama_model_load_from_file", r"llama.cpp can't open some\.gguf"),
        ("llama_init_from_model", "no memory for its context"),
    ],
)
def test_a_call_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, failing: str, message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        model(monkeypatch, failing)


def test_a_row_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"can't compute the row \(llama_decode: 3\)"):
        model(monkeypatch, "llama_decode").logits([1, 2], 0)
    with pytest.raises(RuntimeError, match="longer than 8 tokens"):
        model(monkeypatch, "").logits([1] * 9, 0)
    with pytest.raises(RuntimeError, match="can't tokenise 'abc'"):
        model(monkeypatch, "").tokenize("abc", add_special=False)


def test_a_library_without_the_functions_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    monkeypatch.setattr("ctypes.CDLL", lambda path: SimpleNamespace())
    with pytest.raises(RuntimeError, match="this xllamacpp does not export llama_backend_init"):
        LlamaModel(Path("some.gguf"), 8)

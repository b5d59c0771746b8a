"""llama.cpp's C functions, called through ctypes from the library that xllamacpp brings.

xllamacpp's own Python calls give texts and never the probabilities of a prompt, so the C functions
are asked. Structs are passed by value and grow from version to version: those declared here end in
spare room, and only fields are set that have stood at their place for years.

A wrong call ends the process. So only `child.py` loads this module, in a process of its own.

Source: llama.cpp's include/llama.h
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from luthier.export.probe import FloatArray

_SPARE = 256
"""Words of 8 bytes behind the fields that are known; llama.cpp's structs have under 40."""


class _Params(ctypes.Structure):
    """llama_context_params or llama_model_params."""

    _fields_ = (("head", ctypes.c_uint32 * 4), ("rest", ctypes.c_uint64 * _SPARE))


class _Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
        ("rest", ctypes.c_uint64 * _SPARE),
    )


_POINTER = ctypes.c_void_p
_INT, _BOOL, _TEXT = ctypes.c_int32, ctypes.c_bool, ctypes.c_char_p
_INTS = ctypes.POINTER(ctypes.c_int32)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (_Params, ()),
    "llama_model_load_from_file": (_POINTER, (_TEXT, _Params)),
    "llama_model_get_vocab": (_POINTER, (_POINTER,)),
    "llama_vocab_n_tokens": (_INT, (_POINTER,)),
    "llama_vocab_is_eog": (_BOOL, (_POINTER, _INT)),
    "llama_context_default_params": (_Params, ()),
    "llama_init_from_model": (_POINTER, (_POINTER, _Params)),
    "llama_get_memory": (_POINTER, (_POINTER,)),
    "llama_memory_clear": (None, (_POINTER, _BOOL)),
    "llama_batch_init": (_Batch, (_INT, _INT, _INT)),
    "llama_batch_free": (None, (_Batch,)),
    "llama_decode": (_INT, (_POINTER, _Batch)),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), (_POINTER, _INT)),
    "llama_tokenize": (_INT, (_POINTER, _TEXT, _INT, _INTS, _INT, _BOOL, _BOOL)),
    "llama_detokenize": (_INT, (_POINTER, _INTS, _INT, _TEXT, _INT, _BOOL, _BOOL)),
}


class LlamaModel:
    """A GGUF file, opened by llama.cpp.

    Args:
        path: The file.
        context_length: Longest row that will be asked.

    Raises:
        RuntimeError: llama.cpp can't open the file. Its own words are on the standard error.
    """

    def __init__(self, path: Path, context_length: int) -> None:
        self._library = _load_library()
        self._library.llama_backend_init()
        params = self._library.llama_model_default_params()
        self._model = self._library.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp can't open {path.name}")
        self._vocab = self._library.llama_model_get_vocab(self._model)
        self.num_tokens = int(self._library.llama_vocab_n_tokens(self._vocab))
        params = self._library.llama_context_default_params()
        # n_ctx, n_batch and n_ubatch: a row is computed in one go; n_seq_max: one row at a time.
        params.head = (context_length, context_length, context_length, 1)
        self._context = self._library.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp finds no memory for its context")
        self._batch = self._library.llama_batch_init(context_length, 0, 1)
        self._context_length = context_length

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Return the ids of a text in which special tokens are read as such.

        Args:
            text: The text.
            add_special: Whether BOS and EOS are added where the file says so.
        """
        data = text.encode()
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        count = self._library.llama_tokenize(
            self._vocab, data, len(data), ids, room, add_special, True
        )
        if count < 0:
            raise RuntimeError(f"llama.cpp can't tokenise {text!r:.80}")
        return list(ids[:count])

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special tokens."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        room = 64 * len(ids) + 64
        text = ctypes.create_string_buffer(room)
        count = self._library.llama_detokenize(
            self._vocab, array, len(ids), text, room, False, False
        )
        return text.raw[: max(count, 0)].decode(errors="replace")

    def stop_token_ids(self) -> list[int]:
        """Return all tokens at which llama.cpp ends an answer."""
        is_end = self._library.llama_vocab_is_eog
        return [number for number in range(self.num_tokens) if is_end(self._vocab, number)]

    def forget(self) -> None:
        """Empty the cache: the next token is the first of a row."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def logits(self, ids: Sequence[int], first: int, *, last_only: bool = False) -> FloatArray:
        """Return what follows each token, float32 (T, V), or only what follows the last (1, V).

        Args:
            ids: Tokens that come behind those in the cache.
            first: Place of the first of them in the row.
            last_only: Whether only the last place is wanted.

        Raises:
            RuntimeError: llama.cpp can't compute it, or the row is longer than the context.
        """
        if first + len(ids) > self._context_length:
            raise RuntimeError(f"the row is longer than {self._context_length} tokens")
        batch = self._batch
        batch.n_tokens = len(ids)
        wanted = [len(ids) - 1] if last_only else range(len(ids))
        for place, number in enumerate(ids):
            batch.token[place] = number
            batch.pos[place] = first + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = place in wanted
        status = self._library.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama.cpp can't compute the row (llama_decode: {status})")
        rows = np.empty((len(wanted), self.num_tokens), dtype=np.float32)
        for row, place in enumerate(wanted):
            found = self._library.llama_get_logits_ith(self._context, place)
            rows[row] = np.ctypeslib.as_array(found, (self.num_tokens,))
        return rows


def _load_library() -> Any:
    compiled = import_module("xllamacpp.xllamacpp")
    library = ctypes.CDLL(str(compiled.__file__))
    for name, (result, arguments) in _FUNCTIONS.items():
        if not hasattr(library, name):
            raise RuntimeError(f"this xllamacpp does not export {name}")
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def log_softmax(logits_TV: FloatArray) -> FloatArray:
    """Return log-probabilities of logits, row by row."""
    shifted = logits_TV.astype(np.float64) - logits_TV.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)

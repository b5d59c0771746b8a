"""A file: numbers as llama.cpp's quantiser makes them, and what it says of itself."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from luthier.core.errors import ModelError
from luthier.export.gguf.writer import quantised, stop_order, write_gguf


def silent(line: str) -> None:
    """Be told nothing."""


def written(source: Any, kind: str, folder: Path) -> tuple[GGUFReader, tuple[str, ...]]:
    """Write a file and open it with the gguf package."""
    path = folder / f"{kind}.gguf"
    notes = write_gguf(source, kind, path, silent)
    return GGUFReader(path), notes


def field(reader: GGUFReader, name: str) -> Any:
    """Return a value of a file, None if it has none of the name."""
    found = reader.get_field(name)
    return None if found is None else found.contents()


def llama_cpp_quantised(rows: np.ndarray[Any, Any], kind: str) -> bytes:
    """Quantise with the function that llama.cpp's own quantiser calls."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    quantise = library.ggml_quantize_chunk
    long = ctypes.c_int64
    quantise.argtypes = (ctypes.c_int, *[ctypes.c_void_p] * 2, *[long] * 3, ctypes.c_void_p)
    quantise.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(rows.nbytes)
    num_rows, width = rows.shape
    size = quantise(
        GGMLQuantizationType[kind].value, rows.ctypes.data, out, 0, num_rows, width, None
    )
    return out.raw[:size]


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q5_0", "Q5_1"]
)
def test_the_bytes_are_llama_cpp_s(kind: str) -> None:
    rows = torch.randn(7, 512, generator=torch.Generator().manual_seed(1)).numpy()
    rows[0] = 0
    rows[1, :5] = (1e4, -1e4, 1e-9, 0.0, 3.0)
    if kind in ("F16", "BF16"):
        dtype = {"F16": torch.float16, "BF16": torch.bfloat16}[kind]
        expected = torch.from_numpy(rows).to(dtype).view(torch.uint8).numpy().tobytes()
    else:
        expected = llama_cpp_quantised(rows, kind)
    assert quantised(rows, kind).tobytes() == expected


def test_a_file_holds_what_llama_cpp_s_quantiser_makes_of_each_tensor(
    make_source: Any, tmp_path: Path
) -> None:
    source = make_source(
        "Qwen2", "qwen", hidden_size=256, intermediate_size=288, num_hidden_layers=8
    )
    reader, notes = written(source, "Q4_K_M", tmp_path)
    names = {"self_attn.v_proj": "attn_v", "mlp.down_proj": "ffn_down", "mlp.up_proj": "ffn_up"}
    tensors = dict(source.tensors())
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    for theirs, ours in names.items():
        for layer in range(8):
            name = f"blk.{layer}.{ours}.weight"
            rows = tensors[f"model.layers.{layer}.{theirs}.weight"].numpy()
            assert by_name[name].data.tobytes() == llama_cpp_quantised(rows, types[name])
    # Every third layer between the first and the last eighth has more bits, and so have those.
    more = [types[f"blk.{layer}.attn_v.weight"] == "Q6_K" for layer in range(8)]
    assert more == [True, False, False, True, False, False, True, True]
    # 288 is not divisible by 256.
    assert {types[f"blk.{layer}.ffn_down.weight"] for layer in range(8)} == {"Q5_0", "Q8_0"}
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_K"
    assert types["blk.0.attn_norm.weight"] == types["blk.0.attn_q.bias"] == "F32"
    (note,) = notes
    assert "rows that Q4_K can't pack (not divisible by 256): they are Q5_0" in note


def test_rows_that_nothing_packs_stay_whole(make_source: Any, tmp_path: Path) -> None:
    source = make_source("Qwen2", "qwen", hidden_size=48, intermediate_size=64)
    reader, notes = written(source, "Q8_0", tmp_path)
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.ffn_up.weight"] == "F16"
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert "not divisible by 32: they stay F16" in notes[0]


def test_a_file_says_what_it_is(make_source: Any, tmp_path: Path) -> None:
    source = make_source("Llama", "llama3", num_key_value_heads=2)
    reader, _ = written(source, "F16", tmp_path)
    assert field(reader, "general.architecture") == "llama"
    assert field(reader, "general.name") == "tiny Llama"
    assert field(reader, "general.license") == "mit"
    assert field(reader, "general.file_type") == 1
    assert field(reader, "llama.attention.head_count_kv") == 2
    assert field(reader, "llama.context_length") == 512
    assert field(reader, "llama.rope.dimension_count") == 16
    assert field(reader, "tokenizer.ggml.add_bos_token") is True
    assert field(reader, "tokenizer.ggml.add_eos_token") is False
    assert field(reader, "tokenizer.ggml.bos_token_id") == 0
    # The tokenizer's own end is eos, the end of a turn eot.
    assert field(reader, "tokenizer.ggml.eos_token_id") == 1
    assert field(reader, "tokenizer.ggml.eot_token_id") == 4
    assert "<|start_header_id|>" in field(reader, "tokenizer.chat_template")
    assert field(reader, "tokenizer.ggml.pre") == "smaug-bpe"


def test_tied_embeddings_stand_there_once(make_source: Any, tmp_path: Path) -> None:
    tied, _ = written(make_source("Llama", "chatml", tie_word_embeddings=True), "F32", tmp_path)
    assert "output.weight" not in {tensor.name for tensor in tied.tensors}
    mixed, _ = written(make_source("Qwen2", "qwen", tie_word_embeddings=True), "Q4_0", tmp_path)
    types = {tensor.name: tensor.tensor_type.name for tensor in mixed.tensors}
    # It is the output layer, too: Q6_K, which 64 numbers a row don't fill.
    assert types["token_embd.weight"] == "Q8_0"


def test_gemma_s_norms_are_written_with_the_one(make_source: Any, tmp_path: Path) -> None:
    source = make_source("Gemma", "gemma")
    reader, _ = written(source, "F32", tmp_path)
    norm = next(t for t in reader.tensors if t.name == "output_norm.weight")
    expected = dict(source.tensors())["model.norm.weight"].numpy() + 1
    np.testing.assert_array_equal(norm.data, expected)


def test_memory_holds_one_tensor_at_a_time(make_source: Any, tmp_path: Path) -> None:
    import tracemalloc

    source = make_source("Qwen2", "qwen", num_hidden_layers=30, intermediate_size=2048)
    write_gguf(source, "F32", tmp_path / "first.gguf", silent)  # what is loaded once is loaded
    tracemalloc.start()
    try:
        write_gguf(source, "Q8_0", tmp_path / "second.gguf", silent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole = (tmp_path / "second.gguf").stat().st_size
    largest = 4 * 2048 * 64
    assert whole > 10e6
    assert peak < whole / 3
    assert peak > largest / 4


def test_tensors_of_another_architecture_are_refused(make_source: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = make_source("Qwen2", "qwen")
    path = source.folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(16)
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"no place for the tensor model\.layers\.0\.self_attn"):
        write_gguf(source, "F32", tmp_path / "model.gguf", silent)
    del tensors["model.layers.0.self_attn.q_norm.weight"], tensors["model.norm.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"lacks 1 tensors, such as output_norm\.weight"):
        write_gguf(source, "F32", tmp_path / "model.gguf", silent)


def test_more_ends_than_gguf_has_room_for_are_said(make_source: Any, tmp_path: Path) -> None:
    source = replace(make_source("Llama", "chatml"), stop_token_ids=(0, 2, 300, 301))
    reader, notes = written(source, "F32", tmp_path)
    assert notes == (
        "GGUF has room for 3 tokens that end an answer: 1 more are left to llama.cpp, which knows "
        "some by their name",
    )
    assert field(reader, "tokenizer.ggml.eom_token_id") == 300


def test_the_tokenizer_s_own_end_comes_first(tokenizer_of: Any) -> None:
    tokenizer = tokenizer_of("chatml")
    own = tokenizer.eos_token_id
    assert stop_order(tokenizer, (0, own)) == (own, 0)
    assert stop_order(tokenizer, ()) == (own,)
    assert stop_order(tokenizer, (7, 5)) == (7, 5)

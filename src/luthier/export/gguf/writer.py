"""Write a GGUF file: what it says of itself, then the tensors, quantised one after another.

Memory: one tensor in float32 and the same tensor in its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from luthier.export.gguf.architectures import (
    Architecture,
    architecture_of,
    write_hyperparameters,
)
from luthier.export.gguf.rope import rope_factors, write_rope
from luthier.export.gguf.tensor_types import FILE_TYPES, Mix
from luthier.export.gguf.tensors import PlannedTensor, plan_tensors, prepared
from luthier.export.gguf.vocabulary import adds_bos, adds_eos, vocabulary_of
from luthier.export.source import Source
from luthier.export.target import Tell

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

FACTORS = "rope_freqs.weight"
_STOP_KEYS = ("add_eos_token_id", "add_eot_token_id", "add_eom_token_id")


def write_gguf(source: Source, kind: str, path: Path, tell: Tell) -> tuple[str, ...]:
    """Write a model as one GGUF file.

    Args:
        source: The model.
        kind: One of `FILE_TYPES`.
        path: The file.
        tell: Told what takes time.

    Returns:
        What a reader has to know of the file.

    Raises:
        ModelError: llama.cpp has no such architecture, setting, tensor or tokenizer.
        OSError: The disk is full.
    """
    import gguf
    from transformers import AutoConfig, AutoTokenizer

    architecture = architecture_of(source.config)
    # Files from elsewhere leave defaults out; transformers knows them.
    config: dict[str, Any] = AutoConfig.from_pretrained(source.folder).to_dict()
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    planned = plan_tensors(source, architecture, config)
    mix = _mix(kind, architecture, config)
    types = {one.name: mix.type_of(one.name, one.shape) for one in planned}

    writer = gguf.GGUFWriter(path, architecture.name)
    try:
        _write_general(writer, source, kind)
        write_hyperparameters(writer, architecture, config)
        write_rope(writer, config)
        write_tokenizer(writer, tokenizer, source.stop_token_ids, config["vocab_size"])
        factors = rope_factors(config)
        if factors is not None:
            writer.add_tensor_info(FACTORS, factors.shape, factors.dtype, factors.nbytes)
        for one in planned:
            _announce(writer, one, types[one.name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        _write_tensors(writer, source, planned, types, (architecture, config, tell))
    finally:
        writer.close()
    return (*_notes(kind, types), *_stop_notes(source.stop_token_ids))


def _mix(kind: str, architecture: Architecture, config: Mapping[str, Any]) -> Mix:
    num_layers, num_heads = config["num_hidden_layers"], config["num_attention_heads"]
    shares = (config.get("num_key_value_heads") or num_heads) != num_heads
    is_70b = num_layers == 80 and shares and architecture.name in ("llama", "qwen2")
    return Mix(kind, num_layers, not config.get("tie_word_embeddings"), is_70b)


def _announce(writer: Any, planned: PlannedTensor, kind: str) -> None:
    import gguf
    import numpy as np

    raw = gguf.GGMLQuantizationType[kind]
    num_bytes = gguf.quant_shape_to_byte_shape(planned.shape, raw)
    writer.add_tensor_info(
        planned.name, planned.shape, np.dtype(np.float32), int(np.prod(num_bytes)), raw_dtype=raw
    )


def _write_tensors(
    writer: Any,
    source: Source,
    planned: tuple[PlannedTensor, ...],
    types: Mapping[str, str],
    about: tuple[Architecture, Mapping[str, Any], Tell],
) -> None:
    architecture, config, tell = about
    by_source = {one.source: one for one in planned}
    num_done = 0
    for name, tensor in source.tensors():
        one = by_source.get(name)
        if one is None:
            continue
        rows = prepared(one, tensor, architecture, config)
        writer.write_tensor_data(quantised(rows, types[one.name]))
        num_done += 1
        if num_done % 50 == 0 or num_done == len(planned):
            tell(f"{num_done} of {len(planned)} tensors")


def quantised(rows: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Return float32 numbers in a type of GGUF's, as bytes or numbers of the same shape but width.

    The package is llama.cpp's own code, and its bytes are llama.cpp's.
    """
    import gguf
    import libgguf

    if kind == "F32":
        return rows
    raw = gguf.GGMLQuantizationType[kind]
    return cast("np.ndarray[Any, Any]", libgguf.quantize_rows(rows, int(raw)))


def _write_general(writer: Any, source: Source, kind: str) -> None:
    import gguf

    writer.add_type("model")
    writer.add_name(str(source.facts.get("name") or source.folder.name))
    if licence := source.facts.get("licence"):
        writer.add_license(str(licence))
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_tokenizer(
    writer: Any,
    tokenizer: PreTrainedTokenizerBase,
    stop_token_ids: tuple[int, ...],
    num_rows: int,
) -> None:
    """Write tokens, special tokens, what ends an answer, and the chat template.

    Args:
        writer: A gguf.GGUFWriter.
        tokenizer: As trained.
        stop_token_ids: GGUF has room for three: eos, eot and eom.
        num_rows: Of the embedding.

    Raises:
        ModelError: llama.cpp has no such tokenizer.
    """
    vocabulary = vocabulary_of(tokenizer, num_rows)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    if vocabulary.model == "llama":
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.adds_space)
    else:
        writer.add_token_merges(list(vocabulary.merges))
    for name in ("bos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    for key, number in zip(_STOP_KEYS, stop_order(tokenizer, stop_token_ids), strict=False):
        getattr(writer, key)(number)
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(adds_eos(tokenizer))
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        writer.add_chat_template(template)


def stop_order(
    tokenizer: PreTrainedTokenizerBase, stop_token_ids: tuple[int, ...]
) -> tuple[int, ...]:
    """Return what ends an answer, the tokenizer's own end first: that becomes GGUF's eos."""
    own = tokenizer.eos_token_id
    if not stop_token_ids:
        return () if own is None else (cast(int, own),)
    return tuple(sorted(stop_token_ids, key=lambda number: number != own))


def _stop_notes(stop_token_ids: tuple[int, ...]) -> tuple[str, ...]:
    rest = len(stop_token_ids) - len(_STOP_KEYS)
    if rest <= 0:
        return ()
    return (
        f"GGUF has room for {len(_STOP_KEYS)} tokens that end an answer: {rest} more are left to "
        "llama.cpp, which knows some by their name",
    )


def _notes(kind: str, types: Mapping[str, str]) -> tuple[str, ...]:
    plain = Mix(kind, 0, has_output=True).type_of("plain.weight", (1, 256))
    fell_back = [name for name, one in types.items() if one in ("Q5_0", "Q5_1")]
    halves = [name for name, one in types.items() if one == "F16" and kind != "F16"]
    notes: list[str] = []
    if fell_back:
        notes.append(
            f"{len(fell_back)} tensors have rows that {plain} can't pack (not divisible by 256): "
            f"they are {types[fell_back[0]]}, as llama.cpp's own quantiser makes them"
        )
    if halves:
        notes.append(f"{len(halves)} tensors have rows not divisible by 32: they stay F16")
    return tuple(notes)

"""A model's tensors by GGUF's names, one in memory at a time.

transformers keeps the halves of a rotated head apart and llama.cpp keeps them as neighbours, so the
rows of q and k change places for architectures that rotate in pairs. Gemma's norms are stored
without the 1 that is added to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.core.errors import ModelError
from luthier.export.gguf.architectures import Architecture
from luthier.export.source import Source

if TYPE_CHECKING:
    import numpy as np
    import torch

HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor that will be written.

    Attributes:
        source: Its name in the model.
        name: Its name in the file.
        shape: As torch has it.
    """

    source: str
    name: str
    shape: tuple[int, ...]


def plan_tensors(
    source: Source, architecture: Architecture, config: Mapping[str, Any]
) -> tuple[PlannedTensor, ...]:
    """Name all tensors of a model, in the order in which `Source.tensors` yields them.

    Raises:
        ModelError: A tensor has no place in llama.cpp's architecture, or one is missing.
    """
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture.name], config["num_hidden_layers"])
    planned: list[PlannedTensor] = []
    for tensor, shape in _shapes(source):
        if tensor == HEAD and config.get("tie_word_embeddings"):
            continue
        name = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(
                f"llama.cpp's {architecture.name} has no place for the tensor {tensor}",
                where=str(source.folder),
                mend="Export another format: --to hf.",
            )
        planned.append(PlannedTensor(tensor, name, shape))
    _see_whole(planned, source, config)
    return tuple(planned)


def _see_whole(planned: list[PlannedTensor], source: Source, config: Mapping[str, Any]) -> None:
    found = {tensor.name for tensor in planned}
    wanted = {"token_embd.weight", "output_norm.weight"}
    if not config.get("tie_word_embeddings"):
        wanted.add("output.weight")
    for layer in range(config["num_hidden_layers"]):
        wanted |= {f"blk.{layer}.{part}.weight" for part in ("attn_q", "attn_output", "ffn_down")}
    if missing := sorted(wanted - found):
        raise ModelError(
            f"the model lacks {len(missing)} tensors, such as {missing[0]}",
            where=str(source.folder),
            mend="The folder is incomplete: copy or train the model again.",
        )


def _shapes(source: Source) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    for file in source.weight_files():
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - it is no dict
                yield name, tuple(shard.get_slice(name).get_shape())


def prepared(
    planned: PlannedTensor,
    tensor: torch.Tensor,
    architecture: Architecture,
    config: Mapping[str, Any],
) -> np.ndarray[Any, Any]:
    """Return a tensor as llama.cpp computes with it: float32, of the planned shape."""
    whole = tensor.float()
    kind = planned.name.split(".")[-2]
    if architecture.pairs_rope and kind in ("attn_q", "attn_k"):
        num_heads = config["num_attention_heads"]
        if kind == "attn_k":
            num_heads = config.get("num_key_value_heads") or num_heads
        whole = _in_pairs(whole, num_heads)
    if architecture.norm_shift and kind.endswith("norm"):
        whole = whole + architecture.norm_shift
    return whole.contiguous().numpy()


def _in_pairs(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Bring rows i and i + half of each head together. Shape (heads x size, ...) stays."""
    halves = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)

"""Which tensor of a file gets which type: the mixes of llama.cpp's own quantiser.

A file's type names most of its tensors. What costs most quality gets more bits: the output layer,
and in the mixes called M every third layer's attn_v and ffn_down. A type packs 32 or 256 numbers of
a row; a row that does not come out even falls back to another type.

Source: llama.cpp's src/llama-quant.cpp, llama_tensor_get_type
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FILE_TYPES: Mapping[str, int] = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q4_K_M": 15,
    "Q4_0": 2,
}
"""What a user can ask for, best first, and the number that GGUF gives it (general.file_type)."""

BITS: Mapping[str, float] = {
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "Q8_0": 8.5,
    "Q6_K": 6.6,
    "Q5_K_M": 5.8,
    "Q4_K_M": 5.0,
    "Q4_0": 4.6,
}
"""About how many bits a weight takes, output layer included."""

_WHOLE = ("F32", "F16", "BF16")
_ROW = {"Q8_0": 32, "Q4_0": 32, "Q5_0": 32, "Q5_1": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


@dataclass(frozen=True, slots=True)
class Mix:
    """A file's type, and the model that it is mixed for.

    Attributes:
        kind: One of `FILE_TYPES`.
        num_layers: Of the model.
        has_output: Whether the output layer is a tensor of its own; else the embedding is it.
        is_70b: Whether llama.cpp takes it for a 70B: 80 layers, heads that share keys and values.
    """

    kind: str
    num_layers: int
    has_output: bool
    is_70b: bool = False

    def type_of(self, name: str, shape: tuple[int, ...]) -> str:
        """Return a tensor's type as GGUF calls it: F32, Q6_K ...

        Args:
            name: As it stands in the file: blk.0.attn_v.weight.
            shape: As torch has it; the last size is that of a row.
        """
        if len(shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight"):
            return "F32"
        if self.kind in _WHOLE:
            return self.kind
        return _fitting(self._wanted(name, shape[-1]), shape[-1])

    def _wanted(self, name: str, width: int) -> str:
        plain = self.kind.removesuffix("_M")
        if name == ("output.weight" if self.has_output else "token_embd.weight"):
            return "Q8_0" if plain == "Q8_0" or width % _ROW[plain] else "Q6_K"
        if not self.kind.endswith("_M"):
            return plain
        if ".attn_v." in name:
            more = _gets_more(_layer(name), self.num_layers)
            return "Q6_K" if more else "Q5_K" if self.is_70b else plain
        if ".ffn_down." in name and _gets_more(_layer(name), self.num_layers):
            return "Q6_K"
        return plain


def _fitting(kind: str, width: int) -> str:
    if width % _ROW[kind]:
        kind = _FALLBACK.get(kind, kind)
    return "F16" if width % _ROW[kind] else kind


def _layer(name: str) -> int:
    return int(name.split(".")[1])


def _gets_more(layer: int, num_layers: int) -> bool:
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2

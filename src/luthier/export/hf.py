"""`hf`: a folder that transformers, vLLM and whatever reads their layout open as it is.

Weights are cast from the source a tensor at a time and written in shards, so that no more than one
shard is in memory, whatever the size of the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.files import write_json, write_text
from luthier.export.check import CheckResult, bound_of, check_runtime
from luthier.export.model_card import model_card
from luthier.export.source import INDEX, Source
from luthier.export.target import Artifact, Tell

if TYPE_CHECKING:
    import torch

    from luthier.export.probe import Probe

SHARD_BYTES = 2 * 1024**3
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}


class HfTarget:
    """The merged model in the Hugging Face layout."""

    name = "hf"
    needs_type = False
    needs_weights = True

    def __init__(self, shard_bytes: int = SHARD_BYTES) -> None:
        self.shard_bytes = shard_bytes

    def types(self) -> tuple[str, ...]:
        """Return the types of its weights; without one, that of the base."""
        return tuple(_BITS)

    def bits(self, kind: str | None) -> float:
        """Return the width of a weight."""
        return _BITS.get(kind or "", 32)

    def require(self) -> None:
        """Need nothing that luthier does not bring."""

    def refuse(self, source_config: Mapping[str, Any]) -> None:
        """Refuse nothing: what luthier trains, transformers opens."""

    def write(self, source: Source, kind: str | None, folder: Path, tell: Tell) -> Artifact:
        """Write weights, configuration, tokenizer and card."""
        dtype = kind or source.kept_dtype
        tell(f"writing weights in {dtype}")
        copy_beside_weights(source.folder, folder)
        config = {**source.config, "dtype": dtype}
        if "torch_dtype" in config:  # its older name
            config["torch_dtype"] = dtype
        write_json(folder / "config.json", config)
        _write_weights(source, dtype, folder, self.shard_bytes)
        write_text(folder / "README.md", model_card(source.facts, f"hf, {dtype}"))
        return Artifact(folder, dtype)

    def check(self, artifact: Artifact, probe: Probe) -> CheckResult:
        """Open the folder with transformers."""
        from luthier.export.transformers_runtime import TransformersRuntime

        runtime = TransformersRuntime.of_folder(artifact.folder)
        return check_runtime(runtime, probe, bound_of(artifact.kind))


def copy_beside_weights(source: Path, folder: Path) -> None:
    """Copy tokenizer, template, generation settings and licence: all but weights and their index.

    Args:
        source: Folder of a `Source`, which holds nothing that does not belong to the model.
        folder: Where to.
    """
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name != INDEX:
            shutil.copyfile(file, folder / file.name)


def _write_weights(source: Source, dtype: str, folder: Path, shard_bytes: int) -> None:
    import torch

    wanted: torch.dtype = getattr(torch, dtype)
    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    held_bytes = total_bytes = 0

    def flush() -> None:
        from safetensors.torch import save_file

        shards.append(list(held))
        shard = folder / _shard_name(len(shards))
        save_file(held, shard, metadata={"format": "pt"})
        # safetensors lets nobody else read it, and a server may run as somebody else.
        shutil.copymode(folder / "config.json", shard)
        held.clear()

    for name, tensor in source.tensors():
        cast = (tensor.to(wanted) if tensor.is_floating_point() else tensor).contiguous()
        if held and held_bytes + cast.nbytes > shard_bytes:
            flush()
            held_bytes = 0
        held[name] = cast
        held_bytes += cast.nbytes
        total_bytes += cast.nbytes
    flush()
    _name_shards(shards, total_bytes, folder)


def _shard_name(number: int, of: int = 0) -> str:
    return f"model-{number:05}-of-{of:05}.safetensors"


def _name_shards(shards: list[list[str]], total_bytes: int, folder: Path) -> None:
    """Give the shards the names that loaders look for, now that their number is known."""
    if len(shards) == 1:
        (folder / _shard_name(1)).rename(folder / "model.safetensors")
        return
    place: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        final = _shard_name(number, len(shards))
        (folder / _shard_name(number)).rename(folder / final)
        place |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(place.items()))}
    write_json(folder / INDEX, index)

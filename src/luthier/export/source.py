"""What is exported: one plain model in a folder, read a tensor at a time.

The adapter is merged by now, in float32, and every target starts from the same folder: weights,
configuration, tokenizer, chat template as trained, and generation_config.json with what stops an
answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.errors import ModelError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """The trained model as a whole folder on the disk.

    Attributes:
        folder: Laid out as transformers writes it. Without weights where no target needs them.
        dtype: Type of its weights: float32 where an adapter was merged, else as they were trained.
        stop_token_ids: Any of these ends an answer.
        facts: Hashes of data and code, settings, metrics, base and licence, as the model card
            names them.
        adapter: Folder of the adapter that was merged, if one was.
        kept_dtype: Type that the base's weights are stored in: what a target without a type of
            its own writes.
        quantization: Settings that the base was quantised with in training; None where it wasn't.
    """

    folder: Path
    dtype: str
    stop_token_ids: tuple[int, ...]
    facts: Mapping[str, Any]
    adapter: Path | None = None
    kept_dtype: str = "float32"
    quantization: Mapping[str, Any] | None = None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The model's config.json."""
        return read_json(self.folder / "config.json")

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of its weights on the disk."""
        return sum(file.stat().st_size for file in self.weight_files())

    def weight_files(self) -> list[Path]:
        """Return its safetensors files, in the order of their shards.

        Raises:
            ModelError: There are none.
        """
        index = self.folder / INDEX
        if index.is_file():
            names = set(read_json(index)["weight_map"].values())
            return [self.folder / name for name in sorted(names)]
        found = sorted(self.folder.glob("model*.safetensors"))
        if not found:
            raise ModelError(
                "there are no weights to export (model*.safetensors)",
                where=str(self.folder),
                mend="The folder is incomplete: copy or train the model again.",
            )
        return found

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield names and tensors as they are stored, one in memory at a time.

        Tied weights are there once, as in the files.
        """
        from safetensors import safe_open

        for file in self.weight_files():
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - it is no dict
                    yield name, shard.get_tensor(name)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model.

    Raises:
        ModelError: It is missing or damaged.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error
    if not isinstance(found, dict):
        raise ModelError(
            "the file is missing or damaged" if isinstance(found, OSError) else "it is no object",
            where=str(path),
            mend="Copy or export the model again.",
        )
    return found

"""Weights on disk, looked at before any library reads them.

In: a folder of a model or adapter. Out: nothing, or an error that names the file. Only safetensors
pass: a pickle (`pytorch_model.bin`) runs code as it is read, and what keeps it from that has had
holes (torch CVE-2025-32434, CVE-2026-24747). Of a safetensors file the header must hold together,
and fit the file; the numbers themselves are not read.

Source of the format: https://github.com/huggingface/safetensors/blob/v0.7.0/README.md#format
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from luthier.core.errors import ModelError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

_LENGTH_BYTES = 8
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Size of one number, by the name of its type."""

_FETCH_AGAIN = "The download may be incomplete or tampered with: fetch it again from its author."


def check_weights(folder: Path, stem: str, named: str | None = None) -> None:
    """Refuse weights that could run code, or whose files are damaged or lie elsewhere.

    A folder without any weights passes: not everything that reads a folder needs them.

    Args:
        folder: The folder of a model or an adapter.
        stem: Name of its weights without suffix: `model` or `adapter_model`.
        named: A file of weights that its config names.

    Raises:
        ModelError: There are pickles and no safetensors; a file that an index or the config names
            is missing or outside of the folder; or a header is wrong.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if named is not None:
        single = _inside(folder, named, folder / "config.json")
        index = single if named.endswith(".json") else index
    if single != index and (single.exists() or single.is_symlink()):
        check_safetensors(single)
    elif index.exists():
        for name in sorted(set(_read_index(index).values())):
            check_safetensors(_inside(folder, name, index))
    elif pickles := sorted(p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES):
        raise ModelError(
            f"the weights are pickled ({', '.join(pickles[:3])}), and a pickle can run code as it "
            "is read",
            where=str(folder),
            mend=f"Ask its author for {stem}.safetensors. If you trust the file, convert it: load "
            "it with transformers or peft and call save_pretrained.",
        )


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file whose header is wrong or doesn't fit the file.

    Raises:
        ModelError: The file is missing or no ordinary file; the header is cut off, too long, not
            JSON, names a tensor twice or of an unknown type; or the places of the tensors overlap,
            leave gaps, lead out of the file or don't fit their shapes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _damaged(path, "this is no ordinary file")
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            num_left = status.st_size - _LENGTH_BYTES
            if num_left < 2:
                raise _damaged(path, f"the file has only {status.st_size} bytes")
            if length > min(num_left, MAX_HEADER_BYTES):
                room = f"the file has {num_left:,}, and {MAX_HEADER_BYTES:,} are allowed"
                raise _damaged(path, f"its header is to have {length:,} bytes; {room}")
            header = _decode(path, stream.read(length))
    except OSError as error:
        raise _damaged(path, f"the file can't be read: {error.strerror}") from error
    header.pop("__metadata__", None)
    places = [_place(path, name, about) for name, about in header.items()]
    _check_places(path, places, num_left - length)


def _decode(path: Path, data: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise _damaged(path, f"its header names {twice!r} twice")
        return dict(pairs)

    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not an object of tensors")
    return cast(dict[str, Any], header)


def _place(path: Path, name: str, about: Any) -> tuple[int, int, str]:
    """Return where a tensor begins and ends in the data, and its name."""
    match about:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            if dtype not in _BITS:
                raise _damaged(path, f"the tensor {name!r} has the unknown type {dtype[:20]!r}")
            if all(type(size) is int and size >= 0 for size in shape) and 0 <= start <= end:
                needed = math.prod(shape) * _BITS[dtype]
                if needed != 8 * (end - start):
                    what = f"{dtype} of shape {shape} takes {needed // 8:,} bytes"
                    raise _damaged(path, f"the tensor {name!r} has {end - start:,} bytes; {what}")
                return start, end, name
        case _:
            pass
    raise _damaged(path, f"the header says of the tensor {name!r} what no header may say")


def _check_places(path: Path, places: Sequence[tuple[int, int, str]], num_bytes: int) -> None:
    """Refuse tensors that share bytes, leave some out, or lie behind the end of the file."""
    at = 0
    for start, end, name in sorted(places):
        if start < at:
            raise _damaged(path, f"the tensor {name!r} shares bytes with the one before it")
        if start > at:
            raise _damaged(path, f"{start - at:,} bytes before the tensor {name!r} are of none")
        at = end
    if at > num_bytes:
        what = f"the file ends {at - num_bytes:,} bytes before its last tensor does"
        raise _damaged(path, what)
    if at < num_bytes:
        raise _damaged(path, f"{num_bytes - at:,} bytes behind the last tensor are of none")


def _read_index(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, f"it is no index of weights: {error!r}") from error
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise _damaged(path, "its weight_map does not say in which file each tensor is")
    return cast(dict[str, str], found)


def _inside(folder: Path, name: str, where: Path) -> Path:
    """Return the path of a file of weights, if it is a name alone.

    Links are not followed: the cache of the hub is made of them.
    """
    if Path(name).name != name or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise ModelError(
            f"the weights are to be read from {name!r}, which is no safetensors file of this "
            "folder",
            where=str(where),
            mend="A model's weights lie beside its config. Don't use this model: it may be "
            "hostile.",
        )
    return folder / name


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"the weights can't be used: {what}", where=str(path), mend=_FETCH_AGAIN)

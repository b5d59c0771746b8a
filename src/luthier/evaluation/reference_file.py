"""The reference's log-probabilities on disk, so that a run with the same reference computes none.

    <prepared_dir>/references/<first half of the key>.safetensors

One file for each split, with its whole key and a hash of its numbers in the header. A file that is
missing, damaged or of another key is made anew. A file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from luthier.core.disk import disk_errors
from luthier.core.files import staged_files
from luthier.core.hashing import hash_json
from luthier.evaluation.reference_log_probs import COLUMNS

if TYPE_CHECKING:
    import datasets

REFERENCE_FORMAT = 1
"""Raised whenever the same key stands for other numbers."""

_NAME = "log_probs"
_PLACE = ("name", "path")


def reference_key(
    data_key: str, split: str, model: Mapping[str, Any], computed: Mapping[str, Any]
) -> str:
    """Return what the reference's log-probabilities depend on, as one hash.

    Args:
        data_key: The key of the prepared data.
        split: `train` or `val`.
        model: What tells the reference from other models: hashes of its files, or its commit. Name
            and path are looked at only where there is nothing else.
        computed: How they are computed: precision, quantisation, layout of the batches.
    """
    what = {"format": REFERENCE_FORMAT, "data": data_key, "split": split}
    return hash_json({**what, "model": model_contents(model), "computed": dict(computed)})


def model_contents(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a model from others wherever it lies; its place, if nothing else does.

    Args:
        model: Name, path, and hashes of its files or its commit.
    """
    contents = {name: value for name, value in model.items() if name not in _PLACE}
    return contents or dict(model)


def reference_path(prepared: Path, key: str) -> Path:
    """Return the file of a key.

    Args:
        prepared: The folder of the prepared data; the file lies beside it, not in it.
        key: What `reference_key` returned.
    """
    return prepared.parent / "references" / f"{key[:32]}.safetensors"


def with_reference_log_probs(
    rows: datasets.Dataset, path: Path, key: str, compute: Callable[[], npt.NDArray[np.float32]]
) -> datasets.Dataset:
    """Add the reference's log-probabilities to pairs, as columns (`contracts/rows.py`).

    Args:
        rows: Prepared pairs of one split.
        path: Where their numbers lie, or are to lie.
        key: What the numbers depend on.
        compute: Computes them, (rows, 4), where they are not there.

    Raises:
        LuthierError: The disk is full or the folder closed.
        ValueError: `compute` gave another number of rows, or numbers that are not finite.
    """
    values_N4 = read_references(path, key, len(rows))
    if values_N4 is None:
        values_N4 = np.ascontiguousarray(compute(), np.float32)
        if values_N4.shape != (len(rows), 4) or not np.isfinite(values_N4).all():
            raise ValueError(
                f"reference log-probabilities of shape {values_N4.shape} for {len(rows)} rows, "
                f"{int((~np.isfinite(values_N4)).sum())} of them not finite"
            )
        write_references(path, key, values_N4)
    for values_N, name in zip(values_N4.T, COLUMNS, strict=True):
        # datasets would pickle the whole table to name the new one.
        fingerprint = hash_json([key, name])[:16]
        rows = rows.add_column(f"reference_{name}", values_N, new_fingerprint=fingerprint)
    return rows


def read_references(path: Path, key: str, num_rows: int) -> npt.NDArray[np.float32] | None:
    """Return the numbers of a file, (num_rows, 4), or None if it can't be trusted."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            values_N4: npt.NDArray[np.float32] = file.get_tensor(_NAME)
    except (OSError, SafetensorError):
        return None
    is_right = header == _header(key, values_N4) and values_N4.dtype == np.float32
    return values_N4 if is_right and values_N4.shape == (num_rows, 4) else None


def write_references(path: Path, key: str, values_N4: npt.NDArray[np.float32]) -> None:
    """Write a file of numbers, whole or not at all.

    Raises:
        LuthierError: The disk is full or the folder closed.
    """
    from safetensors.numpy import save_file

    elsewhere = "prepared_dir (or LUTHIER_CACHE) to a folder"
    with (
        disk_errors(path.parent, "reference log-probabilities", elsewhere, values_N4.nbytes),
        staged_files(path.parent) as staging,
    ):
        save_file({_NAME: values_N4}, staging / path.name, metadata=_header(key, values_N4))


def _header(key: str, values_N4: npt.NDArray[np.float32]) -> dict[str, str]:
    return {"key": key, "sha256": hashlib.sha256(values_N4.tobytes()).hexdigest()}

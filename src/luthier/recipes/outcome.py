"""What a run came to, in numbers that another run can be held against.

The weights are hashed by their content: by the names, types, shapes and bytes of the tensors, in
the order of the names. How they are spread over files, and what else a file says, changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.engine.metrics_file import read_metrics
from luthier.recipes.run_folder import METRICS

if TYPE_CHECKING:
    import torch

    from luthier.contracts.training import Progress


def describe_outcome(
    folder: Path, progress: Progress, last_eval: Mapping[str, float] | None, seconds: float
) -> dict[str, Any]:
    """Return what a manifest says of a run's end.

    Args:
        folder: The run's, with the trained model at its top if the run is finished.
        progress: How far it came.
        last_eval: Its newest evaluation.
        seconds: Time of this process's part.
    """
    return {
        "steps": progress.step,
        "finished": progress.finished,
        "seconds": round(seconds, 3),
        "tokens_seen": progress.num_tokens_seen,
        "supervised_tokens_seen": progress.num_supervised_seen,
        "rows_seen": progress.num_rows_seen,
        "loss": last_loss(folder / METRICS),
        "eval": None if last_eval is None else dict(last_eval),
        "weights_sha256": weights_sha256(folder) if progress.finished else None,
    }


def last_loss(metrics: Path) -> float | None:
    """Return the training loss that was logged last; None where none was."""
    losses = [record["loss"] for record in read_metrics(metrics) if record["kind"] == "train"]
    return losses[-1] if losses else None


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return each tensor of the model at the top of a folder, by name, with the file it is in."""
    from safetensors import safe_open

    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return dict(sorted(found.items()))


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """Return one tensor of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def weights_sha256(folder: Path) -> str | None:
    """Return the sha256 of the model at the top of a folder, in hex; None where there is none.

    One tensor is in memory at a time.
    """
    digest = hashlib.sha256()
    files = tensor_files(folder)
    for name, path in files.items():
        tensor = read_tensor(path, name)
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest() if files else None


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, of any type, as they lie in memory."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data

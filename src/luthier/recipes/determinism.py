"""What of torch and of the environment decides the last bits of a run: recorded, and set again.

Sums are taken in another order on another number of threads, so the same run ends in other bits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from luthier.contracts.notice import Notice
from luthier.core.secrets import redact

DECIDING_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that a run may depend on. No other one is ever recorded."""


def deciding_variables(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the deciding variables that are set, secrets hidden.

    Args:
        variables: In place of the process's own.
    """
    given = os.environ if variables is None else variables
    return {name: redact(given[name], given) for name in DECIDING_VARIABLES if name in given}


def computing_facts() -> dict[str, Any]:
    """Return the threads and switches of torch as they stand, as plain JSON."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def use_threads(num_threads: int) -> Notice | None:
    """Let torch compute on a number of threads, and say so where it would have used others."""
    import torch

    found = torch.get_num_threads()
    if found == num_threads:
        return None
    torch.set_num_threads(num_threads)
    return Notice("threads", str(found), str(num_threads), "as many as the run had")

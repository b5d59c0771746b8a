"""What this machine is and has, as plain facts: for `luthier doctor` and for a run's manifest.

Nothing secret leaves here: no host name and no user name, and of the environment only the names
in a fixed list, without the values of those that may hold a token or a password.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.cache import cache_folder

if TYPE_CHECKING:
    import torch

SHOWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "LANG",
    "LUTHIER_CACHE",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TOKENIZERS_PARALLELISM",
)
"""Environment variables that are reported with their values."""

HIDDEN_VARIABLES = ("HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "WANDB_API_KEY")
"""Environment variables of which only it is said that they are set."""

SPARE_SHARE = 0.1
"""Share of the available main memory that a run leaves alone."""

GPU_SPARE_SHARE = 0.05
"""Share of a GPU's whole memory that a run leaves alone: what is free there may lie in pieces."""

_MEASURE_S = 0.3
_MATRIX_SIZE = {"cpu": 1024, "mps": 2048, "cuda": 8192}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_facts() -> dict[str, Any]:
    """Return hardware and system as plain JSON; sizes in bytes."""
    import torch

    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu": {
            "name": cpu_name(),
            "architecture": platform.machine(),
            "cores": _usable_cores(),
            "torch_threads": torch.get_num_threads(),
        },
        "memory": memory(),
        "torch_build": torch.__version__,
        "gpus": gpus(),
        "bf16": bf16_support(),
    }


def cpu_name() -> str:
    """Return the processor's name as its maker writes it, or the architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        named = _first_line("sysctl", "-n", "machdep.cpu.brand_string")
        if named:
            return named
    return platform.processor() or platform.machine()


def memory() -> dict[str, int]:
    """Return total and available bytes of main memory, within a container's limit."""
    import psutil

    found = psutil.virtual_memory()
    total, available = int(found.total), int(found.available)
    if _CGROUP_LIMIT.is_file():
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
        if limit.isdigit() and int(limit) < total:
            total = int(limit)
            available = min(available, max(0, total - _cgroup_used()))
    return {"total_bytes": total, "available_bytes": available}


def _cgroup_used() -> int:
    """Return the bytes that a container's limit counts, cached files that can go left out."""
    used, statistics = (_CGROUP_LIMIT.with_name(f"memory.{name}") for name in ("current", "stat"))
    if not (used.is_file() and statistics.is_file()):
        return 0
    counted = dict(line.split() for line in statistics.read_text(encoding="ascii").splitlines())
    return int(used.read_text(encoding="ascii")) - int(counted.get("inactive_file", 0))


def available_memory(device: torch.device) -> int:
    """Return the bytes that a run may still take on a device, with some left to all else there."""
    import torch

    if device.type != "cuda":
        return int(memory()["available_bytes"] * (1 - SPARE_SHARE))
    free, total = torch.cuda.mem_get_info(device)
    # What torch has taken from the device and holds for later is ours too.
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, int(free + idle - GPU_SPARE_SHARE * total))


def disk() -> dict[str, dict[str, Any]]:
    """Return free bytes of the working folder's disk and of the cache folder's."""
    places = {"working folder": Path.cwd(), "cache folder": cache_folder("")}
    return {
        name: {"path": str(path), "free_bytes": shutil.disk_usage(_existing(path)).free}
        for name, path in places.items()
    }


def gpus() -> list[dict[str, Any]]:
    """Return each CUDA device (or Apple's) with its memory in bytes; empty where there is none."""
    import torch

    if torch.backends.mps.is_available():
        return [{"name": "Apple GPU (mps)", "memory_bytes": memory()["total_bytes"]}]
    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": facts.name,
                "memory_bytes": facts.total_memory,
                "compute_capability": f"{facts.major}.{facts.minor}",
                "cuda": torch.version.cuda,
                "driver": _driver(),
            }
        )
    return found


def bf16_support() -> dict[str, Any]:
    """Return whether training would compute in native bfloat16 here, and by which instructions."""
    from luthier.engine.precision import choose_device, cpu_bf16_features, has_native_bf16

    device = choose_device()
    features = cpu_bf16_features() if device.type == "cpu" else []
    return {"device": device.type, "native": has_native_bf16(device), "features": features}


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the settings of libraries that stand in the environment.

    Args:
        variables: In place of the process's own.
    """
    given = os.environ if variables is None else variables
    shown = {name: given[name] for name in SHOWN_VARIABLES if name in given}
    return shown | {name: "set (not shown)" for name in HIDDEN_VARIABLES if name in given}


def measure_matrix_rates() -> dict[str, float]:
    """Measure matrix products on the device that training would use, in about a second.

    Returns:
        GFLOP/s by type: fp32 and bf16.
    """
    import torch

    from luthier.engine.precision import choose_device

    device = choose_device()
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {name: round(_matrix_rate(device, dtype), 1) for name, dtype in types.items()}


def training_type(rates: Mapping[str, float]) -> dict[str, str]:
    """Say which type a run computes in where its settings leave it open, and why.

    The type is chosen by what the hardware has; the rates show whether that was right.

    Args:
        rates: As `measure_matrix_rates` returns them.
    """
    from luthier.engine.precision import choose_device, choose_precision, has_native_bf16
    from luthier.engine.settings import TrainingSettings

    device = choose_device()
    name = choose_precision(TrainingSettings(), device)[0].name
    ratio = rates["bf16"] / rates["fp32"]
    reason = "bf16 is in hardware" if has_native_bf16(device) else "bf16 is not in hardware"
    measured = f"measured {ratio:.1f} times as fast as fp32"
    if (name == "bf16") == (ratio > 1):
        return {"name": name, "reason": f"{reason}, and {measured}"}
    other = "false" if name == "bf16" else "true"
    return {"name": name, "reason": f"{reason}, but {measured}: try bf16: {other}"}


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    import torch

    size = _MATRIX_SIZE[device.type]
    left = torch.ones(size, size, device=device, dtype=dtype)
    torch.mm(left, left)  # The first product also chooses its kernel.
    _wait_for(device)
    started_s = time.perf_counter()
    products = 0
    while time.perf_counter() - started_s < _MEASURE_S:
        torch.mm(left, left)
        _wait_for(device)
        products += 1
    seconds = time.perf_counter() - started_s
    return 2 * size**3 * products / seconds / 1e9


def _wait_for(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _usable_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _driver() -> str | None:
    return _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def _first_line(*command: str) -> str | None:
    """Return the first line that a program prints, or None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else None


def _existing(path: Path) -> Path:
    """Return the nearest folder above that is there."""
    while not path.exists():
        path = path.parent
    return path

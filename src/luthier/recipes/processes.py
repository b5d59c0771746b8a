"""How many processes train: one, for now, and said clearly where more are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from luthier.contracts.notice import Notice
from luthier.core.errors import SettingsError


def refuse_many_processes(environment: Mapping[str, str]) -> None:
    """Raise under a launcher of several processes: each would train a model of its own.

    Args:
        environment: The process environment (WORLD_SIZE is set by torchrun and its like).

    Raises:
        SettingsError: WORLD_SIZE is above 1.
    """
    world = environment.get("WORLD_SIZE", "1")
    if world != "1":
        raise SettingsError(
            f"this luthier trains in one process, and the launcher started {world}",
            where="WORLD_SIZE",
            mend="Start it as `luthier train CONFIG`, without torchrun.",
        )


def deepspeed_notice(path: str | None) -> Notice | None:
    """Check a DeepSpeed file and say what it comes to in one process.

    ZeRO divides optimiser state, gradients and weights between processes. With one process there
    is nothing to divide, and the plain loop computes the same.

    Raises:
        SettingsError: The file is missing or is not a JSON object.
    """
    if path is None:
        return None
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"the DeepSpeed file can't be read: {error.strerror}",
            where=path,
            mend="Check the path given by deepspeed.",
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SettingsError(
            f"the DeepSpeed file is not valid JSON: {error}",
            where=path,
            mend="Check the path given by deepspeed, and the brackets and quotes of the file.",
        ) from None
    if not isinstance(content, dict):
        raise SettingsError(
            "the DeepSpeed file holds no JSON object",
            where=path,
            mend='It looks like {"zero_optimization": {"stage": 3}}.',
        )
    zero = content.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else 0
    asked = f"{Path(path).name} (ZeRO-{stage})"
    return Notice("deepspeed", asked, "plain loop", "one process has nothing to shard")

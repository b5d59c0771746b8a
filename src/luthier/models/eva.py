"""EVA: adapters begin along the directions in which the inputs of their layers vary most.

In: a base and some batches of the data. Out: for each layer the first rows of its A. B stays 0, so
the model says at first what its base says, and what is saved opens on the base as it is.

Shape suffixes: R rank, K width of a layer's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from luthier.core.errors import ModelError

MAX_PASSES = 1000
"""Forward passes after which directions that still change are given up."""


def input_directions(
    model: Any, paths: Sequence[str], rank: int, batches: Sequence[Mapping[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return the directions in which the inputs of some layers vary most, over supervised tokens.

    Each layer gets the same rank: peft's redistribution of ranks is left off (`rho` is 1).

    Args:
        model: The base, before it has adapters.
        paths: Of linear layers below its head.
        rank: Directions of each.
        batches: Padded, with `labels`; gone over again until the directions stay. Each has at least
            as many supervised tokens as there are directions.

    Returns:
        By path, orthonormal rows (R, K) of float32.

    Raises:
        ModelError: A layer is narrower than the rank, or the directions do not settle.

    Source:
        arXiv 2410.07170, algorithm 1.
    """
    from peft import EvaConfig, LoraConfig, get_eva_state_dict

    widths = {path: model.get_submodule(path).weight.shape for path in paths}
    if narrow := [path for path, shape in widths.items() if min(shape) < rank]:
        raise ModelError(
            f"lora_init: eva wants {rank} directions, and {narrow[0]} has only "
            f"{min(widths[narrow[0]])}",
            mend="Set a smaller lora_rank, or another lora_init.",
        )
    num_passes = 0

    def run(base: Any, inputs: Mapping[str, torch.Tensor]) -> None:
        nonlocal num_passes
        num_passes += 1
        if num_passes > MAX_PASSES:
            raise ModelError(
                f"lora_init: eva found no directions that stay in {MAX_PASSES} passes",
                mend="Set a smaller lora_rank, or another lora_init.",
            )
        # The decoder alone: nothing of the head is asked for.
        base.base_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])

    config = LoraConfig(
        r=rank,
        target_modules=list(paths),
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=1.0),
    )
    # The incremental decomposition seeds torch's generator.
    with torch.random.fork_rng():
        found = get_eva_state_dict(
            model, [dict(b) for b in batches], config, run, show_progress_bar=False
        )
    return {path: rows_RK.float() for path, rows_RK in found.items()}

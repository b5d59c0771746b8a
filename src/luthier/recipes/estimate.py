"""What a run will take: steps, time and memory, before a second of training.

An estimate from the model's shape and the prepared rows. Time follows from the machine's own matrix
rate; memory from what is held at the worst moment (`memory_estimate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.batches.packing import build_order
from luthier.contracts.notice import Notice
from luthier.engine.schedule import count_steps
from luthier.recipes.memory_estimate import (
    Computing,
    ModelShape,
    choose_recomputation,
    estimate_memory,
    num_positions,
    worst_rows,
)
from luthier.recipes.run_config import RunConfig
from luthier.recipes.stages import stage_of

EFFICIENCY = {False: 0.55, True: 0.6}
"""Share of the measured matrix rate that training reached with a 135M model on a 2-core CPU, padded
(False) and packed (True), by benchmarks/estimate.py. A larger model comes closer to 1."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        num_steps: Optimiser steps.
        padding_share: Share of the computed positions that hold no token.
        seconds: Time of training alone, without evaluation.
        memory_bytes: The process, weights, gradients, optimiser state, and the activations of the
            worst micro-batch; where micro-batches are cut to what fits, of the longest row alone.
        recomputes: Whether activations are recomputed in the backward pass.
        notice: Why, where that was left to auto.
    """

    num_steps: int
    padding_share: float
    seconds: float
    memory_bytes: int
    recomputes: bool
    notice: Notice | None = None


def estimate_run(
    config: RunConfig, lengths: Sequence[int], shape: ModelShape, computing: Computing
) -> Estimate:
    """Estimate a run whose model is not loaded yet.

    Args:
        config: Its settings.
        lengths: Tokens of each training row.
        shape: The model's.
        computing: What it computes with.
    """
    recomputes, notice = choose_recomputation(config, shape, lengths, computing, is_loaded=False)
    capacity = stage_of(config).layout.capacity(config.tokens.cutoff_len)
    order = build_order(lengths, config.batches, config.run.seed, capacity)
    sizes = [num_positions(config, [lengths[i] for i in rows]) for rows in order.batches(0, 0)]
    computed = sum(sizes)
    per_epoch = -(-len(sizes) // config.batches.gradient_accumulation_steps)
    num_steps = count_steps(config.training.num_train_epochs, per_epoch, config.training.max_steps)
    flops = flops_per_token(shape, recomputes) * computed * num_steps / per_epoch
    efficiency = EFFICIENCY[config.batches.is_packed]
    memory = estimate_memory(
        config, shape, worst_rows(config, lengths), computing, recompute=recomputes
    )
    return Estimate(
        num_steps=num_steps,
        padding_share=1 - sum(lengths) / computed,
        seconds=flops / (computing.flops_per_second * efficiency),
        memory_bytes=memory.total,
        recomputes=recomputes,
        notice=notice,
    )


def flops_per_token(shape: ModelShape, recomputes: bool) -> float:
    """Return the operations of a training step for each position."""
    # Forward 2, gradient of the activations 2, gradient of the trained weights 2; recomputing the
    # activations adds another forward.
    trained_share = shape.parameters.trained / max(1, shape.parameters.total)
    passes = 4 + 2 * trained_share + (2 if recomputes else 0)
    return passes * shape.matrix_parameters

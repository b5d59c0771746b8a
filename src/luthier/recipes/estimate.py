"""What a run will take: steps, time and memory, before a second of training.

An estimate from the model's shape and the prepared rows. Time follows from the machine's own matrix
rate; memory from what is held at the worst moment, the backward pass of the longest batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.batches.packing import build_order
from luthier.engine.schedule import count_steps
from luthier.models.adapters import ParameterCount
from luthier.recipes.run_config import RunConfig

EFFICIENCY = 0.35
"""Share of the measured matrix rate that the plain loop reached with a 135M model on a 2-core CPU
(benchmarks/estimate.py, docs/benchmarks.md). A larger model comes closer to 1."""

PROCESS_BYTES = 440 * 1024**2
"""What a process holds once the libraries are loaded, before any model is."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What an estimate needs to know of a model.

    Attributes:
        parameters: Trained and all parameters.
        matrix_parameters: Parameters that every token is multiplied with (no embedding table).
        hidden_size: Width.
        num_layers: Depth.
        vocab_size: Columns of the head.
        intermediate_size: Width of the feed-forward part.
    """

    parameters: ParameterCount
    matrix_parameters: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    intermediate_size: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        num_steps: Optimiser steps.
        padding_share: Share of the computed positions that hold no token.
        seconds: Time of training alone, without evaluation.
        memory_bytes: The process, weights, gradients, optimiser state, and the activations of the
            worst training batch.
    """

    num_steps: int
    padding_share: float
    seconds: float
    memory_bytes: int


def estimate_run(
    config: RunConfig,
    lengths: Sequence[int],
    shape: ModelShape,
    flops_per_second: float,
    value_bytes: int,
) -> Estimate:
    """Estimate a run.

    Args:
        config: Its settings.
        lengths: Tokens of each training row.
        shape: The model's.
        flops_per_second: The machine's measured matrix rate in the type that is computed in.
        value_bytes: Size of that type: 2 for bf16 and fp16, 4 for fp32.
    """
    order = build_order(lengths, config.batches, config.run.seed, config.tokens.cutoff_len)
    sizes = [_computed(config, [lengths[row] for row in rows]) for rows in order.batches(0, 0)]
    computed = sum(sizes)
    per_epoch = -(-len(sizes) // config.batches.gradient_accumulation_steps)
    num_steps = count_steps(config.training.num_train_epochs, per_epoch, config.training.max_steps)
    flops = _flops_per_token(config, shape) * computed * num_steps / per_epoch
    return Estimate(
        num_steps=num_steps,
        padding_share=1 - sum(lengths) / computed,
        seconds=flops / (flops_per_second * EFFICIENCY),
        memory_bytes=_memory_bytes(config, shape, max(sizes), value_bytes),
    )


def _computed(config: RunConfig, lengths: Sequence[int]) -> int:
    """Return the positions that a batch of rows of these lengths takes."""
    return sum(lengths) if config.batches.packing else len(lengths) * max(lengths)


def _flops_per_token(config: RunConfig, shape: ModelShape) -> float:
    # Forward 2, gradient of the activations 2, gradient of the trained weights 2; recomputing the
    # activations adds another forward.
    trained_share = shape.parameters.trained / max(1, shape.parameters.total)
    passes = 4 + 2 * trained_share + (2 if config.model.gradient_checkpointing else 0)
    return passes * shape.matrix_parameters


def _memory_bytes(config: RunConfig, shape: ModelShape, worst_tokens: int, value_bytes: int) -> int:
    # A frozen base is stored in the type that is computed in; what is trained, in float32.
    plain_bytes = value_bytes if config.tuning.finetuning_type == "lora" else 4
    weight_bytes = {4: 0.55, 8: 1.1}.get(config.quantization.bits or 0, plain_bytes)
    weights = shape.parameters.total * weight_bytes
    # Gradient and Adam's two moments, in float32.
    states = 3 if config.optimizer.optim == "adamw_torch" else 1
    trained = shape.parameters.trained * 4 * states
    # Per token and layer: the inputs of the products, normed inputs, and the feed-forward's parts.
    layer_values = 10 * shape.hidden_size + 5 * shape.intermediate_size
    kept_layers = 2 if config.model.gradient_checkpointing else shape.num_layers
    activations = worst_tokens * layer_values * kept_layers * value_bytes
    # The logits in the computed type and in float32, and the gradient of both.
    logits = worst_tokens * shape.vocab_size * 2 * (value_bytes + 4)
    return int(PROCESS_BYTES + weights + trained + activations + logits)


def model_shape(model: Any, count: ParameterCount) -> ModelShape:
    """Read a model's shape from its config.

    Args:
        model: A transformers model, on the meta device or not.
        count: Its trained and all parameters.
    """
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight.numel()
    tied = model.config.get_text_config().tie_word_embeddings
    return ModelShape(
        parameters=count,
        matrix_parameters=count.total - (0 if tied else embedding),
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        intermediate_size=getattr(config, "intermediate_size", 4 * config.hidden_size),
    )

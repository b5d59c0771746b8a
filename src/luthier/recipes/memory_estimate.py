"""The memory that a run takes, before it takes it, and whether it should recompute activations.

What is held at the worst moment: the backward pass of the batch that takes most. Counted from the
model's shape, for the layers that a LLaMA-like model has (benchmarks/estimate.py holds it against
real runs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.batches.packing import build_order
from luthier.contracts.notice import Notice
from luthier.core.units import format_bytes
from luthier.engine.optimizer import STATES, STATES_8BIT
from luthier.models.adapters import ParameterCount
from luthier.models.compiled_layers import decoder_layers, decoder_of
from luthier.models.cpu_attention import KEPT_TOKENS, WHOLE_TOKENS
from luthier.models.layer_split import frozen_depth
from luthier.objectives.logit_chunks import CHUNK_ELEMENTS, TILE_ELEMENTS
from luthier.recipes.run_config import RunConfig
from luthier.recipes.stages import stage_of

PROCESS_BYTES = 440 * 1024**2
"""What a process holds once the libraries are loaded, before any model is."""

CPU_SLACK = {False: 1.35, True: 1.2}
"""Activations in resident memory over what is asked for, padded (False) and packed (True): batches
differ in length, and freed blocks of one length don't fit the next (benchmarks/estimate.py)."""

GPU_SLACK = 1.1
"""The same for the blocks of a GPU's allocator. Not measured yet."""


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
        num_heads: Heads of the attention.
        query_width: Width of the queries of all heads.
        key_value_width: Width of keys and values of all heads.
        kept_layers: Layers whose activations the backward pass needs: not those below the first
            one that is trained.
    """

    parameters: ParameterCount
    matrix_parameters: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    intermediate_size: int
    num_heads: int
    query_width: int
    key_value_width: int
    kept_layers: int


@dataclass(frozen=True, slots=True)
class Computing:
    """What a run computes with.

    Attributes:
        value_bytes: Size of the type that it computes in: 2 for bf16 and fp16, 4 for fp32.
        device_type: `cuda`, `cpu` or `mps`.
        available_bytes: Memory of the device that the run may still take.
        flops_per_second: The measured matrix rate in that type.
        full_logits: Whether the loss is computed from all logits at once.
    """

    value_bytes: int
    device_type: str
    available_bytes: int
    flops_per_second: float = 0.0
    full_logits: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the worst moment of a run.

    Attributes:
        process: Python and its libraries.
        weights: The model as it is loaded.
        training: The optimiser's state, weights cast to the computed type, and gradients where a
            step has several micro-batches: with one, they come as activations go.
        activations: What the backward pass needs of the forward pass; or all gradients, if these
            take more.
        loss: Logits and the gradient of the head.
    """

    process: int
    weights: int
    training: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.process + self.weights + self.to_come

    @property
    def to_come(self) -> int:
        """What is not there yet when the model is loaded."""
        return self.training + self.activations + self.loss


def estimate_memory(
    config: RunConfig,
    shape: ModelShape,
    lengths: Sequence[int],
    computing: Computing,
    *,
    recompute: bool,
) -> Memory:
    """Estimate a run's memory.

    Args:
        config: Its settings.
        shape: The model's.
        lengths: Tokens of the rows of its largest micro-batch; `worst_rows` knows them.
        computing: What it computes with.
        recompute: Whether activations are recomputed in the backward pass.
    """
    stored_bytes = _stored_bytes(config, computing.value_bytes)
    weight_bytes = {4: 0.55, 8: 1.1}.get(config.quantization.bits or 0, stored_bytes)
    gradients = shape.parameters.trained * 4
    training = _optimizer_state(config, shape)
    activations = _activations(config, shape, lengths, computing, recompute)
    if config.batches.is_auto or config.batches.gradient_accumulation_steps > 1:
        training += gradients
    if stored_bytes != computing.value_bytes:
        training += shape.matrix_parameters * computing.value_bytes
    return Memory(
        process=PROCESS_BYTES,
        weights=int(shape.parameters.total * weight_bytes),
        training=training,
        activations=max(activations, gradients),
        loss=_loss(config, shape, num_positions(config, lengths), computing),
    )


def _optimizer_state(config: RunConfig, shape: ModelShape) -> int:
    optim, trained = config.optimizer.optim, shape.parameters.trained
    if optim in STATES_8BIT:
        return STATES_8BIT[optim] * trained
    numbers = STATES[optim] * trained
    if optim == "muon" and config.tuning.finetuning_type == "full":
        # Embeddings and head are AdamW's, with a second moment: one matrix where they are tied.
        tables = 1 if shape.matrix_parameters == shape.parameters.total else 2
        numbers += tables * shape.vocab_size * shape.hidden_size
    return 4 * numbers  # trained weights are in float32


def _stored_bytes(config: RunConfig, value_bytes: int) -> int:
    # A frozen base is stored in the type that is computed in; what is trained, in float32.
    return value_bytes if config.tuning.finetuning_type == "lora" else 4


def _activations(
    config: RunConfig,
    shape: ModelShape,
    lengths: Sequence[int],
    computing: Computing,
    recompute: bool,
) -> int:
    tokens, value_bytes = num_positions(config, lengths), computing.value_bytes
    on_cpu, packed = computing.device_type == "cpu", config.batches.is_packed
    stream = tokens * shape.hidden_size * _stored_bytes(config, value_bytes)
    # The inputs of both norms, and in the computed type: their outputs, queries, keys, values, what
    # attention gives, and the feed-forward part before, within and after its activation.
    values = 2 * shape.hidden_size + 2 * shape.query_width + 4 * shape.intermediate_size
    # Beside a mask, transformers copies keys and values for every head of the queries.
    values += 2 * (shape.key_value_width if packed else shape.query_width)
    values *= tokens
    if not packed:
        values += tokens * max(lengths)  # the mask, as numbers that are added to the scores
    elif on_cpu:
        values += shape.num_heads * sum(map(_kept_scores, lengths))
    layer = 2 * stream + values * value_bytes
    kept = shape.kept_layers * stream + layer if recompute else shape.kept_layers * layer
    return int(kept * (CPU_SLACK[packed] if on_cpu else GPU_SLACK))


def _kept_scores(length: int) -> int:
    """Return the attention weights of one head that a packed row keeps on a CPU."""
    if length > KEPT_TOKENS:
        return 0
    return length * length if length <= WHOLE_TOKENS else length * length // 2


def _loss(config: RunConfig, shape: ModelShape, tokens: int, computing: Computing) -> int:
    logits = tokens * shape.vocab_size
    if computing.full_logits:
        # In the computed type and in float32, and the gradient of both.
        return logits * 2 * (computing.value_bytes + 4)
    chunk = max(shape.vocab_size, min(logits, CHUNK_ELEMENTS))
    tile = min(chunk, TILE_ELEMENTS) if computing.device_type == "cpu" else chunk
    hidden = tokens * shape.hidden_size * (computing.value_bytes + 4)
    # The head's gradient is formed beside the loss, before it is added up.
    gradient = shape.vocab_size * shape.hidden_size * 4
    is_trained = config.tuning.finetuning_type == "full"
    return chunk * computing.value_bytes + 2 * tile * 4 + hidden + is_trained * gradient


def num_positions(config: RunConfig, lengths: Sequence[int]) -> int:
    """Return the positions that a batch of rows of these lengths takes."""
    return sum(lengths) if config.batches.is_packed else len(lengths) * max(lengths)


def worst_rows(config: RunConfig, lengths: Sequence[int]) -> list[int]:
    """Return the lengths of the rows of the largest micro-batch of the first epoch.

    With `per_device_train_batch_size: auto` it is the longest row: of more, as many are taken as
    fit. With `packing: true` the longest rows are taken to fall into one batch.
    """
    longest_first = sorted(map(int, lengths), reverse=True)
    if config.batches.is_auto:
        return longest_first[:1]
    if config.batches.packing is True:
        room = (
            stage_of(config).layout.capacity(config.tokens.cutoff_len)
            * config.batches.rows_per_batch
        )
        chosen: list[int] = []
        for length in longest_first:
            if length <= room:
                chosen.append(length)
                room -= length
        return chosen
    capacity = stage_of(config).layout.capacity(config.tokens.cutoff_len)
    order = build_order(lengths, config.batches, config.run.seed, capacity)
    batches = ([int(lengths[row]) for row in rows] for rows in order.batches(0, 0))
    return max(batches, key=lambda batch: num_positions(config, batch))


def choose_recomputation(
    config: RunConfig,
    shape: ModelShape,
    lengths: Sequence[int],
    computing: Computing,
    *,
    is_loaded: bool,
) -> tuple[bool, Notice | None]:
    """Decide whether activations are recomputed: as the setting says, or if memory asks for it.

    Args:
        config: The settings; `gradient_checkpointing` is true, false or auto.
        shape: The model's.
        lengths: Tokens of each training row.
        computing: What the run computes with.
        is_loaded: Whether the model is in memory already.

    Returns:
        The choice, and a notice where auto chose to recompute.
    """
    asked = config.model.gradient_checkpointing
    if asked != "auto":
        return asked, None
    rows = worst_rows(config, lengths)
    plain, recomputed = (
        estimate_memory(config, shape, rows, computing, recompute=recompute)
        for recompute in (False, True)
    )
    already = 0 if is_loaded else plain.weights
    if plain.to_come + already <= computing.available_bytes:
        return False, None
    reason = (
        f"training would take about {format_bytes(plain.to_come + already)} more, and "
        f"{format_bytes(computing.available_bytes)} are available; with it, about "
        f"{format_bytes(recomputed.to_come + already)}"
    )
    return True, Notice("gradient_checkpointing", "auto", "true", reason)


def model_shape(model: Any, count: ParameterCount) -> ModelShape:
    """Read a model's shape from its config.

    Args:
        model: A transformers model, with adapters or without, on the meta device or not.
        count: Its trained and all parameters.
    """
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight.numel()
    # A reward model has no head that could share the table.
    tied = config.tie_word_embeddings and model.get_output_embeddings() is not None
    num_heads = _size(config, "num_attention_heads") or 1
    width = _size(config, "head_dim") or config.hidden_size // num_heads
    num_kv_heads = _size(config, "num_key_value_heads") or num_heads
    return ModelShape(
        parameters=count,
        matrix_parameters=count.total - (0 if tied else embedding),
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        intermediate_size=_size(config, "intermediate_size") or 4 * config.hidden_size,
        num_heads=num_heads,
        query_width=num_heads * width,
        key_value_width=num_kv_heads * width,
        kept_layers=_kept_layers(model) or config.num_hidden_layers,
    )


def _size(config: Any, name: str) -> int | None:
    """Return a size from a config: its largest where it has one a layer, None where it has none."""
    value = getattr(config, name, None)
    return max(value, default=None) if isinstance(value, list | tuple) else value


def _kept_layers(model: Any) -> int:
    """Return how many layers stand at or above the first trained one; 0 where it is not known."""
    layers = decoder_layers(model)
    if model.get_input_embeddings().weight.requires_grad:
        return len(layers)
    return len(layers) - frozen_depth(decoder_of(model))

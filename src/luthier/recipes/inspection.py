"""Look at a run before it starts: what would be taught, what was left out, what it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.contracts.notice import Notice
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import ModelError
from luthier.core.seeds import derive_seed
from luthier.engine.precision import choose_device, choose_precision
from luthier.models.adapters import apply_tuning, count_parameters
from luthier.models.load import check_model_path
from luthier.recipes.data import PreparedRun, prepare_data
from luthier.recipes.estimate import Estimate, ModelShape, estimate_run, model_shape
from luthier.recipes.machine import measure_matrix_rates
from luthier.recipes.run_config import RunConfig
from luthier.recipes.screen import Screen


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of one kind, as text.

    Attributes:
        text: What the tokens stand for.
        taught: Whether they carry loss.
        special: Whether it is a control token of the tokenizer.
        num_tokens: How many they are.
    """

    text: str
    taught: bool
    special: bool
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One training row, in pieces."""

    origin: str
    pieces: tuple[Piece, ...]

    @property
    def num_tokens(self) -> int:
        """Length of the row."""
        return sum(piece.num_tokens for piece in self.pieces)

    @property
    def num_taught(self) -> int:
        """Tokens that carry loss."""
        return sum(piece.num_tokens for piece in self.pieces if piece.taught)


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that `luthier inspect` shows."""

    data: PreparedRun
    rows: tuple[ShownRow, ...]
    shape: ModelShape
    estimate: Estimate
    precision: str
    notices: tuple[Notice, ...]


def inspect_run(config: RunConfig, screen: Screen, num_rows: int) -> Inspection:
    """Prepare the data of a run and look at it; no weight is read.

    Args:
        config: The run's settings.
        screen: Told what takes time.
        num_rows: Rows to show, drawn by the run's seed.

    Raises:
        LuthierError: As training itself would.
    """
    check_model_path(config.model)
    data = prepare_data(config, screen)
    train = data.prepared.train
    random = np.random.default_rng(derive_seed(config.run.seed, "inspect"))
    chosen = random.permutation(len(train))[:num_rows].tolist()
    rows = tuple(show_row(train[index], data.tokenizer) for index in sorted(chosen))
    shape = shape_of(config)
    precision, notice = choose_precision(config.training, choose_device())
    rates = measure_matrix_rates()
    rate = rates.get(precision.name, rates["fp32"]) * 1e9
    estimate = estimate_run(config, train["length"], shape, rate, precision.dtype.itemsize)
    notices = (*data.notices, *([notice] if notice else []))
    return Inspection(data, rows, shape, estimate, precision.name, notices)


def show_row(row: dict[str, Any], tokenizer: Any) -> ShownRow:
    """Cut a prepared row into pieces of one kind, so that no character is torn apart."""
    # The named ones alone would leave out Llama 3's <|start_header_id|> and its like.
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control |= set(tokenizer.all_special_ids)
    kinds = [
        (label != IGNORE_INDEX, token in control)
        for token, label in zip(row["input_ids"], row["labels"], strict=True)
    ]
    pieces: list[Piece] = []
    start = 0
    for end in range(1, len(kinds) + 1):
        if end == len(kinds) or kinds[end] != kinds[start]:
            text = tokenizer.decode(row["input_ids"][start:end], skip_special_tokens=False)
            pieces.append(Piece(text, *kinds[start], end - start))
            start = end
    return ShownRow(str(row["origin"]), tuple(pieces))


def shape_of(config: RunConfig) -> ModelShape:
    """Build the model without memory (on the meta device) and count what would be trained.

    Raises:
        ModelError: It is no causal language model, or of a kind that transformers doesn't know.
        SettingsError: The settings name modules that it does not have.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    name, trust = config.model.model_name_or_path, config.model.trust_remote_code
    try:
        found = AutoConfig.from_pretrained(
            name, trust_remote_code=trust, revision=config.model.model_revision
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"transformers can't build this model: {str(error).strip().splitlines()[0]}",
            where=name,
            mend="Check that it is a causal language model and that the download is complete.",
        ) from error
    with torch.device("meta"):
        tuned = apply_tuning(model, config.tuning)
    return model_shape(model, count_parameters(tuned))


def length_histogram(lengths: Sequence[int], num_bins: int = 10) -> list[tuple[int, int, int]]:
    """Count rows by length.

    Returns:
        `(from, to, rows)` for each bin, both ends included.
    """
    width = max(1, -(-max(lengths) // num_bins))
    counts = [0] * num_bins
    for length in lengths:
        counts[min((length - 1) // width, num_bins - 1)] += 1
    return [(i * width + 1, (i + 1) * width, count) for i, count in enumerate(counts)]

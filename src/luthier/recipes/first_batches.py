"""Some rows of a run, batched before it starts: what `lora_init: eva` looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from luthier.batches.collate import causal_lm_collate
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import SettingsError
from luthier.core.seeds import derive_seed
from luthier.models.settings import LoraTuning
from luthier.recipes.data import PreparedRun
from luthier.recipes.run_config import RunConfig

NUM_BATCHES = 16
AUTO_ROWS = 8
"""Rows of a batch where the settings leave them to the memory."""


def first_batches(config: RunConfig, data: PreparedRun) -> list[dict[str, torch.Tensor]]:
    """Return the batches that adapters are to begin from; none where they begin otherwise.

    Args:
        config: The run's settings.
        data: Its rows, from which the run's seed draws.

    Raises:
        SettingsError: No batch has as many supervised tokens as an adapter has ranks.
    """
    tuning = config.tuning
    if not isinstance(tuning, LoraTuning) or tuning.lora_init != "eva":
        return []
    rows: Any = data.prepared.train
    asked = config.batches.per_device_train_batch_size
    size = asked if isinstance(asked, int) else AUTO_ROWS
    random = np.random.default_rng(derive_seed(config.run.seed, "eva"))
    drawn = random.permutation(len(rows))[: NUM_BATCHES * size].tolist()
    batches = [
        causal_lm_collate([rows[i] for i in drawn[at : at + size]], data.tokenizer.pad_token_id)
        for at in range(0, len(drawn), size)
    ]
    rank = tuning.lora_rank
    enough = [b for b in batches if int((b["labels"] != IGNORE_INDEX).sum()) >= rank]
    if not enough:
        raise SettingsError(
            f"lora_init: eva wants {rank} supervised tokens in a batch, and none has as many",
            mend="Set a smaller lora_rank, a larger per_device_train_batch_size, or another "
            "lora_init.",
        )
    return enough

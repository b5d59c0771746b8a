"""`freeze` training without computing the frozen layers again: whether, and with how much room.

In: the model's head and decoder, and the prepared rows. Out: a head whose decoder remembers what
the layers under the first trained one gave for each row, or the reason why it doesn't.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.contracts.notice import Notice
from luthier.core.disk import free_bytes
from luthier.core.units import GIB, format_bytes, format_count
from luthier.dataset.prepared import row_lengths
from luthier.models.activation_store import ActivationStore
from luthier.models.cached_decoder import CachedDecoder
from luthier.models.layer_split import LayerSplit, frozen_depth, split_decoder
from luthier.models.settings import FreezeTuning
from luthier.recipes.machine import memory
from luthier.recipes.stages import batch_inputs, stage_of

if TYPE_CHECKING:
    from luthier.contracts.training import EpochBatches
    from luthier.dataset.prepare import Prepared
    from luthier.engine.loop import Training
    from luthier.objectives.head import Head
    from luthier.recipes.run_config import RunConfig

MEMORY_SHARE = 0.25
"""Of the memory that is available when the model is loaded."""
DISK_SHARE = 0.2
"""Of what is free on the disk of output_dir: checkpoints go there too."""


def with_frozen_layers_cached(
    head: Head | None,
    config: RunConfig,
    prepared: Prepared,
    folder: Path,
    say: Callable[[str], None],
) -> tuple[Head | None, Notice | None]:
    """Give the head a decoder that remembers, where the settings ask for it and it is exact.

    Call it in the run's autocast, once it is settled what is trained.

    Args:
        head: The head of the model that is trained, if it could be found.
        config: All settings.
        prepared: The rows of training and validation.
        folder: The run's folder, where the file of the cache goes.
        say: Told in one line what is kept and how much room it takes.

    Returns:
        The head, changed or as it was, and why it is as it was. Without a notice there was nothing
        to gain: no frozen layer under a trained one, or no row that is seen twice.
    """
    tuning = config.tuning
    if not isinstance(tuning, FreezeTuning) or not tuning.freeze_cache:
        return head, None
    again = rows_seen_again(config, prepared)
    if not again:
        return head, None
    if config.run.trainer != "luthier":
        return head, _runs_all(f"trainer: {config.run.trainer} is the reference")
    if stage_of(config).rows.is_judged:
        return head, _runs_all("answers that are compared are not rows of their own")
    if config.objective.neftune_noise_alpha:
        return head, _runs_all("neftune_noise_alpha draws other noise each time")
    if head is None:
        return None, _runs_all("the loss is computed from full logits")
    if not frozen_depth(head.decoder):
        return head, None
    split = split_decoder(head.decoder, packed=config.batches.is_packed)
    if isinstance(split, str):
        return head, _runs_all(split)
    in_memory, on_disk = limits(tuning, folder)
    wanted = sum(again) * split.token_bytes
    store = ActivationStore(min(in_memory, wanted), on_disk, folder, say)
    say(_account(split, again, store))
    keeps_training = seen_twice(config)
    return replace(head, decoder=CachedDecoder(split, store, keeps_training)), None


def _runs_all(reason: str) -> Notice:
    return Notice("freeze_cache", "true", "false", reason)


def memory_to_come(head: Head | None) -> int:
    """Return the bytes of memory that remembered activations may yet take."""
    if head is None or not isinstance(head.decoder, CachedDecoder):
        return 0
    store = head.decoder.store
    return store.memory_limit - store.memory_bytes


@contextmanager
def frozen_layers_run(head: Head | None) -> Generator[None]:
    """Let the plain decoder run for as long as batches are tried that are not of the training."""
    decoder = head.decoder if head is not None else None
    if isinstance(decoder, CachedDecoder):
        decoder.paused = True
    try:
        yield
    finally:
        if isinstance(decoder, CachedDecoder):
            decoder.paused = False


def remember_again(
    head: Head | None, run: Training, earlier: EpochBatches, tell: Callable[[Notice], None]
) -> None:
    """Fill the cache of a run that goes on, in the batches in which it was filled before.

    So the run ends with the very same numbers as if it had never stopped, as long as there is room
    for all rows: in other batches products would be rounded differently.

    Args:
        head: The head of the model that is trained.
        run: The training, at the point from which it goes on.
        earlier: The run's batches, at their beginning.
        tell: Told that it takes time.
    """
    if head is None or not isinstance(head.decoder, CachedDecoder):
        return
    at = run.batches.get_state()
    num_windows = earlier.windows_per_epoch() if at["epoch"] else at["window"]
    if not head.decoder.keep_training_rows or not num_windows:
        return
    reason = f"the frozen layers run again over {num_windows:,} steps of the first epoch"
    tell(Notice("freeze_cache", "true", "true", reason))
    run.model.train()
    for window in islice(earlier.windows(), num_windows):
        for batch in run.micro_batches.cut(window):
            on_device = {name: t.to(run.device, non_blocking=True) for name, t in batch.items()}
            with run.precision.autocast():
                head.decoder.remember(**batch_inputs(on_device))


def seen_twice(config: RunConfig) -> bool:
    """Whether training comes to a row more than once, as far as the settings tell."""
    training = config.training
    return bool(training.max_steps) or training.num_train_epochs > 1


def rows_seen_again(config: RunConfig, prepared: Prepared) -> list[int]:
    """Return the lengths of the rows that are computed more than once."""
    sides = [prepared.train] if seen_twice(config) else []
    if prepared.val is not None:
        sides.append(prepared.val)
    return [int(length) for rows in sides for length in row_lengths(rows)]


def limits(tuning: FreezeTuning, folder: Path) -> tuple[int, int]:
    """Return how many bytes may be kept in memory and on disk."""
    in_memory, on_disk = tuning.freeze_cache_memory_gib, tuning.freeze_cache_disk_gib
    if in_memory is None:
        in_memory = MEMORY_SHARE * memory()["available_bytes"] / GIB
    if on_disk is None:
        on_disk = DISK_SHARE * free_bytes(folder) / GIB
    return int(in_memory * GIB), int(on_disk * GIB)


def _account(split: LayerSplit, lengths: Sequence[int], store: ActivationStore) -> str:
    tokens = sum(lengths)
    wanted = tokens * split.token_bytes
    on_disk = min(wanted - store.memory_limit, store.disk_limit)
    places = [f"{format_bytes(store.memory_limit)} of memory"]
    if on_disk:
        places.append(f"{format_bytes(on_disk)} of disk")
    what = f"{format_count(len(lengths))} rows of {format_count(tokens)} tokens"
    line = (
        f"Layers 1 to {split.depth}, which are frozen, run once for each row: "
        f"{what} take {' and '.join(places)}"
    )
    if rest := wanted - store.memory_limit - on_disk:
        line += f"; {format_bytes(rest)} find no room, and those rows are computed each time"
    return line

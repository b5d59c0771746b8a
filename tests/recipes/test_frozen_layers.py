"""`freeze` runs with remembered activations: the same steps, in less work, within their room."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from luthier.core.units import GIB
from luthier.models.cached_decoder import CachedDecoder
from luthier.models.settings import FreezeTuning
from luthier.recipes import frozen_layers
from luthier.recipes.frozen_layers import (
    frozen_layers_run,
    limits,
    memory_to_come,
    rows_seen_again,
    seen_twice,
)
from luthier.recipes.job import build_job
from luthier.recipes.stages import STAGES

FREEZE = ("--finetuning_type", "freeze", "--freeze_trainable_layers", "1")
OFF = ("--freeze_cache", "false")
PACKINGS = ["false", "padding_free", "true"]


@pytest.fixture
def build(small_run: Any, recorder: Any, tmp_path: Path):
    def build(*flags: str, **settings: Any) -> Any:
        return build_job(small_run.config(*FREEZE, *flags, **settings), tmp_path, None, recorder)

    return build


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[CachedDecoder]:
    """The decoders that remember, of all runs of a test."""
    made: list[CachedDecoder] = []

    class Watched(CachedDecoder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(frozen_layers, "CachedDecoder", Watched)
    return made


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_batch_the_same_gives_the_same_bits(
    packing: str, small_run: Any, decoders: list[CachedDecoder]
):
    # All 13 rows in one batch: the order in it changes, the shape of it doesn't.
    flags = (*FREEZE, "--packing", packing, "--cutoff_len", "512", "--num_train_epochs", "3")
    flags += ("--per_device_train_batch_size", "13", "--gradient_accumulation_steps", "1")
    runs = [
        small_run.train(*flags, *more, output_dir=str(small_run.folder / name))
        for name, more in {"cached": (), "plain": OFF}.items()
    ]
    losses = [run.losses() for run in runs]
    assert len(losses[0]) == 3
    if packing == "false":
        # Each row keeps its shape, padded to the longest of all.
        assert losses[0] == losses[1]
        found, expected = (load_file(run.folder / "model.safetensors") for run in runs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    ends = [run.result.last_eval["eval_loss"] for run in runs]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
    (decoder,) = decoders
    assert decoder.num_read > decoder.num_computed


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("room", ["memory", "disk", "little"])
def test_new_batches_in_each_epoch_give_the_same_losses_to_rounding(
    packing: str, room: str, small_run: Any, decoders: list[CachedDecoder]
):
    mebibyte = 1 / 1024
    memory, disk = {
        "memory": (1, 0),
        "disk": (0, 1),
        "little": (mebibyte / 64, mebibyte / 64),
    }[room]
    flags = (*FREEZE, "--packing", packing, "--cutoff_len", "128", "--num_train_epochs", "3")
    limited = ("--freeze_cache_memory_gib", f"{memory}", "--freeze_cache_disk_gib", f"{disk}")
    cached = small_run.train(*flags, *limited, output_dir=str(small_run.folder / "cached"))
    plain = small_run.train(*flags, *OFF, output_dir=str(small_run.folder / "plain"))
    assert cached.losses() == pytest.approx(plain.losses(), rel=1e-6)
    evals = [
        [e["eval_loss"] for e in run.metrics() if e["kind"] == "eval"] for run in (cached, plain)
    ]
    assert evals[0] == pytest.approx(evals[1], rel=1e-6)
    (decoder,) = decoders
    store = decoder.store
    assert (store.memory_bytes > 0) == (room != "disk")
    assert (store.disk_bytes > 0) == (room != "memory")
    assert store.memory_bytes <= memory * GIB
    assert store.disk_bytes <= disk * GIB
    # Nothing of the cache is left in the run's folder.
    assert {path.name for path in cached.folder.iterdir()} == {
        path.name for path in plain.folder.iterdir()
    }


def test_a_run_that_goes_on_builds_its_cache_anew(small_run: Any, decoders: list[CachedDecoder]):
    whole = small_run.train(*FREEZE, output_dir=str(small_run.folder / "whole"))
    for stop_after in (2, 5):  # In the first epoch, and in the second.
        folder = str(small_run.folder / f"parts-{stop_after}")
        small_run.train(*FREEZE, stop_after=stop_after, output_dir=folder)
        resumed = small_run.train(*FREEZE, "--resume_from_checkpoint", output_dir=folder)
        # To the last bit: the rows were met in the same batches as before.
        assert resumed.losses() == whole.losses()
        assert [str(notice) for notice in resumed.screen.notices] == [
            f"freeze_cache: the frozen layers run again over {min(stop_after, 4)} steps of the "
            "first epoch"
        ]
        assert decoders[-1].num_computed == decoders[0].num_computed
    assert len(decoders) == 5
    # It may go on without the cache, or with other room.
    folder = str(small_run.folder / "without")
    small_run.train(*FREEZE, stop_after=5, output_dir=folder)
    resumed = small_run.train(*FREEZE, *OFF, "--resume_from_checkpoint", output_dir=folder)
    assert resumed.losses()[-3:] == pytest.approx(whole.losses()[-3:], rel=1e-6)


def test_with_recomputed_activations(small_run: Any, decoders: list[CachedDecoder]):
    flags = (*FREEZE, "--gradient_checkpointing")
    cached = small_run.train(*flags, output_dir=str(small_run.folder / "cached"))
    plain = small_run.train(*flags, *OFF, output_dir=str(small_run.folder / "plain"))
    assert cached.losses() == pytest.approx(plain.losses(), rel=1e-6)
    assert len(decoders) == 1


def test_what_it_takes_is_said_in_one_line(build: Any, recorder: Any):
    build("--freeze_cache_memory_gib", "1")
    (line,) = [line for line in recorder.said if "frozen" in line]
    tokens = sum(len(row["input_ids"]) for row in recorder.prepared.train)
    tokens += sum(len(row["input_ids"]) for row in recorder.prepared.val)
    size = tokens * 32 * 4
    assert line == (
        f"Layers 1 to 1, which are frozen, run once for each row: 16 rows of {tokens} tokens take "
        f"{size / 1024:.1f} KiB of memory"
    )
    recorder.said.clear()
    small = 1 / 2**20  # A kibibyte, in GiB.
    build("--freeze_cache_memory_gib", f"{small}", "--freeze_cache_disk_gib", f"{2 * small}")
    (line,) = [line for line in recorder.said if "frozen" in line]
    assert line.endswith(
        f"take 1.0 KiB of memory and 2.0 KiB of disk; {size / 1024 - 3:.1f} KiB find no room, "
        "and those rows are computed each time"
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--freeze_extra_modules", "embed_tokens"), "something below layer 1 is trained too"),
        (("--neftune_noise_alpha", "5"), "neftune_noise_alpha draws other noise each time"),
        (("--trainer", "transformers"), "trainer: transformers is the reference"),
    ],
)
def test_where_it_is_not_exact_all_layers_run_and_it_is_said(
    flags: tuple[str, ...], reason: str, build: Any, recorder: Any
):
    job = build(*flags)
    assert not isinstance(job.head.decoder, CachedDecoder)
    assert [str(n) for n in recorder.notices] == [f"freeze_cache: true -> false ({reason})"]


def test_dropout_in_the_frozen_layers(tiny_llama: Any, small_run: Any, recorder: Any):
    model = str(tiny_llama("dropping", attention_dropout=0.1))
    config = small_run.config(*FREEZE, model_name_or_path=model)
    job = build_job(config, small_run.folder, None, recorder)
    assert not isinstance(job.head.decoder, CachedDecoder)  # pyright: ignore[reportOptionalMemberAccess]
    (notice,) = recorder.notices
    assert notice.reason == (
        "its frozen layers have dropout (attention_dropout 0.1), new at each pass"
    )


def test_without_a_head_all_layers_run(build: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch):
    headless = dataclasses.replace(STAGES["sft"], find_head=lambda _model: (None, None))
    monkeypatch.setitem(STAGES, "sft", headless)
    assert build().head is None
    assert [n.reason for n in recorder.notices] == ["the loss is computed from full logits"]


@pytest.mark.parametrize(
    "flags",
    [
        OFF,
        ("--freeze_trainable_layers", "-1"),
        ("--freeze_trainable_layers", "2"),
    ],
)
def test_nothing_to_remember_and_nothing_to_say(flags: tuple[str, ...], build: Any, recorder: Any):
    job = build(*flags)
    assert not isinstance(job.head.decoder, CachedDecoder)
    assert recorder.notices == []


def test_rows_seen_again(build: Any):
    job = build("--num_train_epochs", "2")
    prepared = job.data.prepared
    train = [len(row["input_ids"]) for row in prepared.train]
    val = [len(row["input_ids"]) for row in prepared.val]
    config = job.config

    def training(**changed: Any) -> Any:
        return config.model_copy(update={"training": config.training.model_copy(update=changed)})

    assert rows_seen_again(config, prepared) == [*train, *val]
    once = training(num_train_epochs=1)
    assert not seen_twice(once)
    assert rows_seen_again(once, prepared) == val
    assert rows_seen_again(once, dataclasses.replace(prepared, val=None)) == []
    assert seen_twice(training(num_train_epochs=1, max_steps=99))
    assert seen_twice(training(num_train_epochs=1.5))


def test_a_single_epoch_remembers_validation_alone(small_run: Any, decoders: list[CachedDecoder]):
    run = small_run.train(*FREEZE, "--num_train_epochs", "1", "--eval_on_start")
    (decoder,) = decoders
    assert len(decoder.store) == 3
    assert sum(record["kind"] == "eval" for record in run.metrics()) >= 2
    assert decoder.num_read > 0


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frozen_layers, "memory", lambda: {"available_bytes": 8000})
    monkeypatch.setattr(frozen_layers, "free_bytes", lambda _folder: 5000)
    assert limits(FreezeTuning(), tmp_path) == (2000, 1000)
    given = FreezeTuning(freeze_cache_memory_gib=0, freeze_cache_disk_gib=1.5)
    assert limits(given, tmp_path) == (0, int(1.5 * GIB))


def test_memory_to_come_is_what_is_not_filled_yet(build: Any):
    job = build()
    store = job.head.decoder.store
    tokens = sum(rows_seen_again(job.config, job.data.prepared))
    assert memory_to_come(job.head) == tokens * 32 * 4
    store.put(b"key", np.zeros(100, np.uint8))
    assert memory_to_come(job.head) == tokens * 32 * 4 - 100
    assert memory_to_come(build(*OFF).head) == memory_to_come(None) == 0


def test_nothing_runs_again_where_nothing_was_remembered(small_run: Any):
    for number, flags in enumerate([OFF, ("--num_train_epochs", "1")]):
        folder = str(small_run.folder / f"out-{number}")
        small_run.train(*FREEZE, *flags, stop_after=2, output_dir=folder)
        rest = small_run.train(*FREEZE, *flags, "--resume_from_checkpoint", output_dir=folder)
        assert rest.result.finished
        assert rest.screen.notices == []


def test_batches_that_are_only_tried_are_not_remembered(
    small_run: Any, decoders: list[CachedDecoder]
):
    auto: dict[str, Any] = {"per_device_train_batch_size": "auto", "train_batch_size": 4}
    auto["gradient_accumulation_steps"] = None
    run, plain = (
        small_run.train(*FREEZE, *flags, output_dir=str(small_run.folder / name), **auto)
        for name, flags in {"cached": (), "plain": OFF}.items()
    )
    (decoder,) = decoders
    assert not decoder.paused
    # What was tried has left no number behind: the first epoch is the plain one to the last bit.
    steps = len(run.losses()) // 2
    assert run.losses()[:steps] == plain.losses()[:steps]
    assert run.losses() == pytest.approx(plain.losses(), rel=1e-6)


def test_frozen_layers_run_again_after_an_error(build: Any):
    head = build().head
    with frozen_layers_run(head), frozen_layers_run(None):
        assert head.decoder.paused
    assert not head.decoder.paused
    with pytest.raises(ZeroDivisionError), frozen_layers_run(head):
        raise ZeroDivisionError
    assert not head.decoder.paused

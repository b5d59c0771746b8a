"""A tiny run with checkpoints, built afresh each time as a new process would build it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.batches.collate import CausalLMCollator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import BatchStream
from luthier.checkpoints.listing import MODEL
from luthier.checkpoints.settings import CheckpointSettings
from luthier.checkpoints.store import CheckpointStore, RunState
from luthier.contracts.training import Accumulation, Progress, SampleRecord, StepRecord
from luthier.engine.loop import Training, train
from luthier.engine.optimizer import build_optimizer
from luthier.engine.precision import Precision
from luthier.engine.schedule import build_schedule
from luthier.engine.settings import AdamWOptimizer, ScheduleSettings
from luthier.models.adapters import apply_tuning
from luthier.models.load import load_model
from luthier.models.settings import FullTuning, LoraTuning, ModelSettings, QuantizationSettings
from luthier.objectives.sft import SupervisedFineTuning

torch.set_num_threads(1)

VOCABULARY, NUM_STEPS = 64, 6
CPU = torch.device("cpu")


@dataclass
class Losses:
    """An observer that keeps the loss of every step."""

    values: list[float] = field(default_factory=list)

    def on_step(self, record: StepRecord) -> None:
        self.values.append(record.metrics["loss"])

    def on_start(self, progress: Progress) -> None: ...
    def on_log(self, record: StepRecord) -> None: ...
    def on_evaluation(self, record: StepRecord) -> None: ...
    def on_samples(self, record: SampleRecord) -> None: ...
    def on_checkpoint(self, step: int, path: str, seconds: float) -> None: ...
    def on_end(self, progress: Progress) -> None: ...


@dataclass
class Stop:
    """A request that a test makes."""

    requested: bool = False
    has_work: bool = False

    def take_checkpoint_request(self) -> bool:
        return False


@dataclass
class PlainModel:
    """A model that its own library writes, as it stands at that moment."""

    write: Callable[[Path], None]
    num_bytes: int = 0


@dataclass
class TinyRun:
    """One run: `train_to` a step, or look at its parts."""

    training: Training
    store: CheckpointStore
    losses: list[float]

    def train_to(self, step: int) -> TinyRun:
        self.training.progress.num_steps = step
        train(self.training)
        return self


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "base"
    LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder


def tiny_rows() -> list[dict[str, list[int]]]:
    random = torch.Generator().manual_seed(3)
    rows = []
    for length in (5, 9, 4, 7, 6, 8, 3):
        ids = torch.randint(3, VOCABULARY, (length,), generator=random).tolist()
        rows.append({"input_ids": ids, "labels": [-100, *ids[1:]]})
    return rows


@pytest.fixture
def make_run(base_folder: Path) -> Callable[..., TinyRun]:
    """Build a run in a folder, from the start or from a checkpoint, by what is on disk alone."""

    def make(
        folder: Path,
        checkpoint: Path | None = None,
        *,
        lora: bool = True,
        optimizer: Any = None,
        limit: int | None = None,
        save_every: int | None = None,
        workers: int = 0,
        evaluator: Any = None,
        eval_every: int | None = None,
        accumulation_steps: int = 2,
        take_model: Any = None,
        stop: Stop | None = None,
        **saving: Any,
    ) -> TinyRun:
        torch.manual_seed(99 if checkpoint is None else 12345)  # load() must bring it back
        weights = str(checkpoint / MODEL) if checkpoint else None
        model: Any = load_model(
            ModelSettings(model_name_or_path=str(base_folder)),
            QuantizationSettings(),
            device=CPU,
            dtype=torch.float32,
            weights_from=None if lora else weights,
        ).model
        tuning = LoraTuning(lora_rank=4, lora_dropout=0.1) if lora else FullTuning()
        model = apply_tuning(model, tuning, weights if lora else None)
        schedule = ScheduleSettings(learning_rate=1e-2, weight_decay=0.1, warmup_steps=2)
        settings = BatchSettings(
            per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulation_steps,
            packing=False,
            dataloader_num_workers=workers,
        )
        rows = tiny_rows()
        lengths = [len(row["input_ids"]) for row in rows]
        batches = BatchStream(rows, lengths, CausalLMCollator(0), settings, seed=1)
        built = build_optimizer(
            model,
            optimizer or AdamWOptimizer(),
            learning_rate=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
        )
        accumulation = Accumulation()
        state = RunState(built, batches, None, {"data": "abc"}, accumulation=accumulation)
        take = take_model(model) if take_model else lambda _: PlainModel(model.save_pretrained)
        saved = CheckpointSettings(save_total_limit=limit, **saving)
        store = CheckpointStore(folder, state, take, saved)
        progress = Progress(num_steps=NUM_STEPS)
        if checkpoint is not None:
            store.load(checkpoint, progress)
        losses = Losses()
        training = Training(
            model=model,
            batches=batches,
            objective=SupervisedFineTuning(),
            optimizer=built,
            rate=build_schedule(schedule, NUM_STEPS),
            precision=Precision(torch.float32, "cpu"),
            device=CPU,
            progress=progress,
            max_grad_norm=1.0,
            logging_steps=1,
            stop=stop or Stop(),
            accumulation=accumulation,
            save_every=save_every,
            evaluator=evaluator,
            eval_every=eval_every,
            sink=store,
            observers=(losses,),
        )
        return TinyRun(training, store, losses.values)

    return make


class NoBatches:
    """A batch source whose position is all that matters here."""

    state: Mapping[str, Any] = {"epoch": 0, "window": 0}

    def epochs_done(self) -> float:
        return 0.0

    def windows_per_epoch(self) -> int:
        return 1

    def windows(self) -> Any:
        raise NotImplementedError

    def window_rows(self) -> tuple[int, ...]:
        return ()

    def take_back(self) -> None: ...

    def get_state(self) -> dict[str, Any]:
        return dict(self.state)

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.state = state


def write_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights.txt").write_text("weights" * 100)


@pytest.fixture
def bare_store(tmp_path: Path) -> Callable[..., CheckpointStore]:
    """Make a store around an optimiser of one number: a checkpoint in a millisecond."""

    def make(
        limit: int | None = None, writer: Any = write_model, options: Any = None, **saving: Any
    ) -> CheckpointStore:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])
        state = RunState(optimizer, NoBatches(), None, {})
        settings = CheckpointSettings(save_total_limit=limit, **saving)

        def take(as_copy: bool) -> PlainModel:
            return PlainModel(writer, num_bytes=700)

        return CheckpointStore(tmp_path, state, take, settings, **(options or {}))

    return make

"""A tiny Llama, rows for it, and a whole training that takes milliseconds a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from luthier.batches.flat import build_collator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import BatchStream
from luthier.contracts.training import Progress, SampleRecord, StepRecord
from luthier.engine.loop import Training
from luthier.engine.optimizer import build_optimizer
from luthier.engine.precision import Precision
from luthier.engine.schedule import build_schedule, count_steps
from luthier.engine.settings import AdamWOptimizer, ScheduleSettings
from luthier.objectives.sft import SupervisedFineTuning

torch.set_num_threads(1)

VOCABULARY = 96
CAPACITY = 32


@dataclass
class Recorder:
    """An observer that remembers what it was told, in order."""

    events: list[tuple[str, Any]] = field(default_factory=list)

    def on_start(self, progress: Progress) -> None:
        self.events.append(("start", progress.step))

    def on_step(self, record: StepRecord) -> None:
        self.events.append(("step", record))

    def on_log(self, record: StepRecord) -> None:
        self.events.append(("log", record))

    def on_evaluation(self, record: StepRecord) -> None:
        self.events.append(("evaluation", record))

    def on_samples(self, record: SampleRecord) -> None:
        self.events.append(("samples", record))

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        self.events.append(("checkpoint", step))

    def on_end(self, progress: Progress) -> None:
        self.events.append(("end", progress.step))

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.events if name == kind]

    def losses(self) -> list[float]:
        return [record.metrics["loss"] for record in self.of("log")]


@dataclass
class Sink:
    """A checkpoint sink that remembers what it was asked to save."""

    saved: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    told: int = 0
    waited: int = 0

    def save(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        self.saved.append((progress.step, dict(metrics)))

    def sealed(self) -> list[tuple[int, str, float]]:
        new = self.saved[self.told :]
        self.told = len(self.saved)
        return [(step, f"step-{step}", 0.5) for step, _ in new]

    def wait(self) -> None:
        self.waited += 1


@dataclass
class Stop:
    """A stop request that comes true when it is asked for the n-th time."""

    after: int | None = None
    asked: int = 0
    has_work: bool = False
    wanted_checkpoints: int = 0

    @property
    def requested(self) -> bool:
        self.asked += 1
        return self.after is not None and self.asked > self.after

    def take_checkpoint_request(self) -> bool:
        wanted, self.wanted_checkpoints = self.wanted_checkpoints > 0, 0
        return wanted


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def new_recorder() -> Callable[[], Recorder]:
    return Recorder


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def stop_after() -> Callable[[int | None], Stop]:
    return Stop


@pytest.fixture(scope="session")
def base_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


@pytest.fixture
def make_model(base_model: Any) -> Callable[..., Any]:
    """Copy the same initial weights; with `lora=True` wrapped in the same adapters."""

    def make(*, lora: bool = False, dropout: float = 0.0) -> Any:
        model = copy.deepcopy(base_model)
        if not lora:
            return model
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=4,
            lora_alpha=8,
            lora_dropout=dropout,
            target_modules="all-linear",
            init_lora_weights=False,  # B is not zero either: every adapter weight has a gradient.
        )
        return get_peft_model(model, config)

    return make


@pytest.fixture
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    """Make rows of 3 to 16 tokens; the first third or so of each is a prompt without loss."""

    def make(count: int = 22, *, weighted: bool = False, seed: int = 0) -> list[dict[str, Any]]:
        random = torch.Generator().manual_seed(seed)
        rows: list[dict[str, Any]] = []
        for _ in range(count):
            length = int(torch.randint(3, 17, (), generator=random))
            ids = torch.randint(3, VOCABULARY, (length,), generator=random).tolist()
            prompt = max(1, length // 3)
            row: dict[str, Any] = {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}
            if weighted:
                row["loss_weights"] = (torch.rand(length, generator=random) * 2).tolist()
            rows.append(row)
        return rows

    return make


@pytest.fixture
def make_training(
    make_model: Callable[..., Any], make_rows: Callable[..., list[dict[str, Any]]]
) -> Callable[..., Training]:
    """Wire a training as recipes do; keywords replace any field of `Training`."""

    def make(
        *,
        model: Any = None,
        rows: list[dict[str, Any]] | None = None,
        batch_size: int = 2,
        accumulation: int = 1,
        epochs: float = 1.0,
        max_steps: int | None = None,
        optimizer: Any = None,
        seed: int = 0,
        packing: Any = False,
        **fields: Any,
    ) -> Training:
        model = make_model() if model is None else model
        rows = make_rows() if rows is None else rows
        schedule = fields.pop("schedule", ScheduleSettings(learning_rate=1e-2))
        settings = BatchSettings(
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            packing=packing,
        )
        lengths = [len(row["input_ids"]) for row in rows]
        batches = BatchStream(rows, lengths, build_collator(settings, 0), settings, seed, CAPACITY)
        num_steps = count_steps(epochs, batches.windows_per_epoch(), max_steps)
        training = Training(
            model=model,
            batches=batches,
            objective=SupervisedFineTuning(),
            optimizer=build_optimizer(
                model,
                optimizer or AdamWOptimizer(),
                learning_rate=schedule.learning_rate,
                weight_decay=schedule.weight_decay,
            ),
            rate=build_schedule(schedule, num_steps),
            precision=Precision(torch.float32, "cpu"),
            device=torch.device("cpu"),
            progress=Progress(num_steps=num_steps),
            max_grad_norm=schedule.max_grad_norm,
            logging_steps=1,
            stop=Stop(),
        )
        return replace(training, **fields)

    return make

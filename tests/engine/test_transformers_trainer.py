"""The parity test: luthier's loop and transformers.Trainer, step by step.

The reference builds its own AdamW and scheduler from TrainingArguments. The last comparison shares
nothing with luthier but the collate function: the Trainer, its loss and the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.batches.collate import CausalLMCollator
from luthier.batches.loading import make_loader
from luthier.batches.sampling import EpochBatchSampler, epoch_batches
from luthier.batches.settings import BatchSettings
from luthier.contracts.training import Progress
from luthier.core.errors import RunError
from luthier.engine.loop import train
from luthier.engine.settings import AdafactorOptimizer, ScheduleSettings
from luthier.engine.transformers_trainer import ReferenceRun, train_with_transformers
from luthier.objectives.sft import SupervisedFineTuning

SCHEDULE = ScheduleSettings(
    learning_rate=3e-3,
    lr_scheduler_type="cosine",
    warmup_ratio=0.2,
    weight_decay=0.1,
    max_grad_norm=1.0,
)
SEED = 5
EPOCHS = {1: 2.25, 4: 8.0}
"""By accumulation: 11 batches an epoch are 11 steps, or 3 of 4, 4 and 3 batches. 24 to 25 steps."""


def say(schedule: ScheduleSettings, folder: Path, accumulation: int) -> dict[str, Any]:
    """Return the schedule in TrainingArguments' words."""
    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": EPOCHS[accumulation],
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": names[schedule.lr_scheduler_type],
        "warmup_steps": schedule.warmup_ratio,
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.max_grad_norm,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": SEED,
    }


@pytest.fixture
def reference(tmp_path: Path) -> Callable[..., ReferenceRun]:
    """Wire a run of transformers.Trainer on the same batches in the same order."""

    def make(
        model: Any, rows: list[dict[str, Any]], *, accumulation: int = 1, **fields: Any
    ) -> ReferenceRun:
        lengths = [len(row["input_ids"]) for row in rows]
        settings = BatchSettings(per_device_train_batch_size=2)
        sampler = EpochBatchSampler(lengths, 2, SEED, group_by_length=False)
        arguments = say(fields.pop("schedule", SCHEDULE), tmp_path, accumulation)
        return ReferenceRun(
            model=model,
            train_loader=make_loader(rows, sampler, CausalLMCollator(0), settings),
            train_rows=rows,
            objective=fields.pop("objective", SupervisedFineTuning()),
            arguments=arguments | fields.pop("arguments", {}),
            progress=Progress(),
            **fields,
        )

    return make


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same_steps(own: Any, logs: list[dict[str, float]]) -> None:
    """Compare the loss, the gradient's length and the rate at every step."""
    for name in ("loss", "grad_norm", "learning_rate"):
        mine = [record.metrics[name] for record in own.of("log")]
        assert mine == pytest.approx([log[name] for log in logs], abs=1e-5), name


def assert_same_weights(ours: Any, theirs: Any, before: dict[str, torch.Tensor]) -> None:
    expected = trained_weights(theirs)
    assert expected.keys() == before.keys()
    for name, weight in trained_weights(ours).items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5, msg=name)
        assert not torch.equal(weight, before[name]), f"{name} was not trained"


@pytest.fixture
def assert_same_run(
    make_training: Any, make_model: Any, make_rows: Any, reference: Any, new_recorder: Any
) -> Callable[..., Any]:
    """Train the same model on the same rows both ways and compare every step and weight."""

    def compare(
        *,
        lora: bool = False,
        dropout: float = 0.0,
        weighted: bool = False,
        accumulation: int = 1,
        schedule: ScheduleSettings = SCHEDULE,
        objective: SupervisedFineTuning | None = None,
        optimizer: Any = None,
        arguments: dict[str, Any] | None = None,
    ) -> Any:
        rows = make_rows(21, weighted=weighted)
        objective = objective or SupervisedFineTuning()
        ours, theirs = (make_model(lora=lora, dropout=dropout) for _ in range(2))
        before = trained_weights(ours)
        own, other = new_recorder(), new_recorder()
        training = make_training(
            model=ours,
            rows=rows,
            accumulation=accumulation,
            epochs=EPOCHS[accumulation],
            schedule=schedule,
            seed=SEED,
            optimizer=optimizer,
            objective=objective,
            observers=(own,),
        )
        torch.manual_seed(SEED)  # As the Trainer does for itself.
        progress = train(training)
        run = reference(
            theirs,
            rows,
            accumulation=accumulation,
            schedule=schedule,
            objective=objective,
            arguments=arguments or {},
            observers=(other,),
        )
        there = train_with_transformers(run)
        assert_same_steps(own, [record.metrics for record in other.of("log")])
        assert_same_weights(ours, theirs, before)
        assert there.epoch == pytest.approx(progress.epoch)
        there.epoch = progress.epoch
        assert there == progress
        assert progress.step == len(own.of("log")) == {1: 25, 4: 24}[accumulation]
        return own

    return compare


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("lora", [False, True])
def test_same_losses_and_weights(assert_same_run: Any, *, accumulation: int, lora: bool) -> None:
    own = assert_same_run(accumulation=accumulation, lora=lora)
    norms = [record.metrics["grad_norm"] for record in own.of("log")]
    assert max(norms) > SCHEDULE.max_grad_norm, "nothing was clipped, so clipping is not tested"


@pytest.mark.parametrize(("accumulation", "lora"), [(4, False), (1, True)])
def test_same_with_loss_weights(assert_same_run: Any, *, accumulation: int, lora: bool) -> None:
    assert_same_run(accumulation=accumulation, lora=lora, weighted=True)


@pytest.mark.parametrize("shape", ["linear", "constant"])
def test_same_with_other_schedules_adafactor_and_no_clipping(
    assert_same_run: Any, shape: Any
) -> None:
    schedule = SCHEDULE.model_copy(update={"lr_scheduler_type": shape, "max_grad_norm": 0.0})
    assert_same_run(
        schedule=schedule,
        optimizer=AdafactorOptimizer(),
        arguments={"optim": "adafactor"},
    )


def test_same_with_dropout(assert_same_run: Any) -> None:
    """Neither loop draws from the random generator beyond the model's own dropout."""
    assert_same_run(lora=True, dropout=0.2)


def test_same_with_label_smoothing(assert_same_run: Any) -> None:
    assert_same_run(objective=SupervisedFineTuning(label_smoothing=0.1))


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("lora", [False, True])
def test_same_as_a_plain_trainer_with_the_models_own_loss(
    make_training: Any,
    make_model: Any,
    make_rows: Any,
    recorder: Any,
    tmp_path: Path,
    *,
    accumulation: int,
    lora: bool,
) -> None:
    """An independent reference: nothing overridden but the order of the rows."""
    from transformers import Trainer, TrainingArguments

    rows = make_rows(21)
    lengths = [len(row["input_ids"]) for row in rows]
    ours, theirs = make_model(lora=lora), make_model(lora=lora)
    before = trained_weights(ours)
    train(
        make_training(
            model=ours,
            rows=rows,
            accumulation=accumulation,
            epochs=EPOCHS[accumulation],
            schedule=SCHEDULE,
            seed=SEED,
            observers=(recorder,),
        )
    )

    class PlainTrainer(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return FixedOrder(lengths)

    trainer = PlainTrainer(
        theirs,
        TrainingArguments(**say(SCHEDULE, tmp_path, accumulation)),
        train_dataset=rows,
        data_collator=CausalLMCollator(pad_id=0),
    )
    trainer.train()

    assert_same_steps(recorder, [log for log in trainer.state.log_history if "loss" in log])
    assert_same_weights(ours, theirs, before)


class FixedOrder(torch.utils.data.Sampler[int]):
    """luthier's order as rows, for a Trainer that cuts batches itself."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Any:
        for batch in epoch_batches(self._lengths, 2, SEED, self._epoch):
            yield from batch

    def __len__(self) -> int:
        return len(self._lengths)


def test_evaluates_and_logs_when_due(
    make_model: Any, make_rows: Any, reference: Any, recorder: Any
) -> None:
    """Evaluations do not depend on when a log is due; the log of a step comes before both."""
    losses = iter([5.0, float("nan"), 3.0, 4.0, 6.0])
    run = reference(
        make_model(),
        make_rows(21),
        arguments={"max_steps": 7, "logging_steps": 3},
        evaluator=lambda model: {"eval_loss": next(losses)},
        eval_every=2,
        eval_on_start=True,
        observers=(recorder,),
    )
    progress = train_with_transformers(run)
    told = [
        kind if kind in ("start", "end") else f"{kind} {value.step}"
        for kind, value in recorder.events
        if kind != "step"
    ]
    assert told == [
        *("start", "evaluation 0", "evaluation 2", "log 3", "evaluation 4"),
        *("log 6", "evaluation 6", "log 7", "evaluation 7", "end"),
    ]
    assert [record.step for record in recorder.of("step")] == list(range(1, 8))
    assert progress.best_eval_loss == 3.0
    assert progress.num_steps == progress.step == 7
    assert progress.epoch == pytest.approx(7 / 11)


def test_a_loss_that_is_no_number_is_not_hidden(
    make_model: Any, make_rows: Any, reference: Any, recorder: Any
) -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(RunError, match="training ended with the loss nan"):
        train_with_transformers(reference(model, make_rows(21), observers=(recorder,)))
    assert all(loss != loss for loss in recorder.losses())


def test_the_trainer_prints_nothing_beside_the_observers(
    make_model: Any, make_rows: Any, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train_with_transformers(reference(make_model(), make_rows(5)))
    assert "loss" not in capsys.readouterr().out

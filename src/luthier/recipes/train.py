"""One fine-tuning job, from settings to a saved model: the wiring, and nothing but the wiring.

Cheap checks come first, so that a wrong path is found before a model is loaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from luthier.batches.loading import worker_errors
from luthier.checkpoints.listing import list_checkpoints
from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, StopAskedError, StopRequest
from luthier.core.clock import now
from luthier.core.errors import RunError
from luthier.core.files import staged_files
from luthier.core.lock import locked_folder
from luthier.engine.guards import DivergedError
from luthier.engine.loop import train
from luthier.engine.memory import MicroBatches, memory_errors
from luthier.engine.metrics_file import read_metrics
from luthier.engine.schedule_free import settle_averaged_weights
from luthier.models.load import check_model_path
from luthier.recipes.callback_file import describe_callbacks, load_callbacks
from luthier.recipes.events import EVENTS, EventFile
from luthier.recipes.job import Job, build_job, model_writer
from luthier.recipes.loss_rows import measure_after, measure_before
from luthier.recipes.manifest import (
    describe_run,
    earlier_parts,
    keep_source_diff,
    write_manifest,
)
from luthier.recipes.outcome import describe_outcome
from luthier.recipes.own_loop import build_loop_run
from luthier.recipes.pair_reference import with_reference
from luthier.recipes.processes import refuse_many_processes
from luthier.recipes.reference import train_by_reference
from luthier.recipes.resume import find_checkpoint
from luthier.recipes.rollback import go_back
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import (
    METRICS,
    clear_earlier_run,
    open_run_folder,
    remove_unfinished,
    replaces_earlier_run,
    write_run_yaml,
)
from luthier.recipes.run_report import RunReport
from luthier.recipes.screen import Screen
from luthier.recipes.stages import stage_of
from luthier.recipes.watching import Watching, watched
from luthier.trackers.registry import require_packages


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run came to.

    Attributes:
        evaluations: All of the run, those before a stop included: step and `eval_...` metrics.
        seconds: Time of this process's part.
        can_go_on: Whether there is a checkpoint.
        can_chat: Whether the model writes answers, and has a chat template.
    """

    folder: Path
    progress: Progress
    evaluations: tuple[dict[str, float], ...]
    seconds: float
    can_go_on: bool = True
    can_chat: bool = True

    @property
    def first_eval(self) -> dict[str, float] | None:
        """The earliest evaluation: of the untrained model, where its step is 0."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def last_eval(self) -> dict[str, float] | None:
        """The newest evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.progress.finished


def run_training(
    config: RunConfig,
    command: Sequence[str],
    screen: Screen,
    stop: StopRequest,
    max_positions: int | None = None,
) -> TrainResult:
    """Train a model as the settings say, and save it.

    Args:
        config: All settings.
        command: The command line, for the manifest.
        screen: Shows what happens.
        stop: Asked while training.
        max_positions: Positions of a micro-batch, to cut as another run did; None: as the settings
            and the memory want it.

    Returns:
        The outcome; an unfinished run has a checkpoint to go on from.

    Raises:
        LuthierError: Anything that the user can mend, before training where it can be known.
    """
    started_s = time.perf_counter()
    refuse_many_processes(os.environ)
    check_model_path(config.model)
    require_packages(config.tracking)
    callbacks = load_callbacks(config.run.callbacks)
    folder = open_run_folder(config)
    report = RunReport(folder, screen.notice)
    with report.at_the_end(), locked_folder(folder, screen.say), worker_errors(), memory_errors():
        remove_unfinished(folder)
        checkpoint = find_checkpoint(config, folder, screen.say)
        job = build_job(config, folder, checkpoint, screen)
        if replaces_earlier_run(folder, config.checkpoints):
            clear_earlier_run(folder)
        prepared = job.data.prepared.manifest
        facts = describe_run(config, command, prepared, job.notices, job.data.corpus)
        if callbacks:
            facts |= {"callbacks": describe_callbacks(callbacks)}
        if checkpoint is not None:
            facts |= {"goes_on_from": str(checkpoint), "earlier": earlier_parts(folder)}
        write_run_yaml(folder, config)
        keep_source_diff(folder)
        write_manifest(folder, facts)

        def tell(notice: Notice) -> None:
            screen.notice(notice)
            facts["notices"].append(notice.as_json())
            write_manifest(folder, facts)

        split = stage_of(job.config).layout.split
        micro_batches = MicroBatches(split, max_positions, tell)
        if checkpoint is None:
            measure_before(job, tell)
        with watched(config, folder, callbacks, screen, report, tell) as watching:
            if config.run.trainer == "transformers":
                progress = train_by_reference(job, watching.observers)
            else:
                stop = watching.stop_request(stop)
                job, progress = train_with_rollbacks(
                    job, checkpoint, watching, stop, tell, screen, micro_batches
                )
            watching.raise_error()
        seconds = time.perf_counter() - started_s
        evaluations = read_evaluations(folder / METRICS)
        can_go_on = bool(list_checkpoints(folder))
        can_chat = job.data.tokenizer.chat_template is not None
        can_chat = can_chat and stage_of(config).model_kind == "causal_lm"
        result = TrainResult(folder, progress, evaluations, seconds, can_go_on, can_chat)
        if result.finished:
            save_final_model(job, folder)
            measure_after(job, progress.step, tell)
        outcome = describe_outcome(folder, progress, result.last_eval, seconds)
        outcome |= {"max_positions": micro_batches.max_positions}
        write_manifest(folder, facts | {"ended": now(), "outcome": outcome})
    return result


def train_with_rollbacks(
    job: Job,
    checkpoint: Path | None,
    watching: Watching,
    stop: StopRequest,
    tell: Callable[[Notice], None],
    screen: Screen,
    micro_batches: MicroBatches,
) -> tuple[Job, Progress]:
    """Train with luthier's own loop; where numbers go wrong, go back and pass over what led there.

    Args:
        job: What is trained.
        checkpoint: Where to go on from.
        watching: Those who are told what happens.
        stop: Asked while training.
        tell: Told what was substituted, and every event.
        screen: Shows how the job is built anew.
        micro_batches: Cuts the batches.

    Returns:
        The job that came to an end, and how far it came.

    Raises:
        DivergedError: The settings say not to go back (again), or there is no checkpoint.
    """
    config, folder = job.config, job.folder
    events = EventFile(folder / EVENTS, lambda rows: job.data.prepared.train[rows]["origin"], tell)
    pass_over: frozenset[int] = frozenset()
    num_rollbacks = 0
    while True:
        try:
            job = with_reference(job, checkpoint, screen.working, lambda: stop.requested)
        except StopAskedError:
            return job, Progress(num_steps=1)
        run = build_loop_run(
            job, checkpoint, watching, stop, tell, events, micro_batches, pass_over
        )
        events.go_on_after(run.progress.step, run.guards.pass_over)
        try:
            progress = train(run)
            settle_averaged_weights(run.optimizer)
            return job, progress
        except DivergedError as diverged:
            if num_rollbacks == config.guards.max_rollbacks or stop.requested:
                raise
            num_rollbacks += 1
            assert run.sink is not None, "luthier's own loop writes checkpoints"
            run.sink.wait()  # One that is being written now would come after the one gone back to.
            checkpoint = go_back(folder, diverged, events)
            pass_over |= set(diverged.pass_over)
        # Behind `except`: its traceback would hold the model while another is loaded.
        del run
        watching.detach()
        job = build_job(config, folder, checkpoint, screen)


def save_final_model(job: Job, folder: Path) -> None:
    """Write the trained model to the top of the run's folder.

    Raises:
        RunError: The disk is full, or the folder was closed meanwhile.
    """
    try:
        with staged_files(folder, last=".safetensors") as staging:
            model_writer(job)(staging)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the trained model could not be written: {error}",
            where=str(folder),
            mend="Make room and go on with --resume_from_checkpoint: the checkpoints are intact.",
        ) from error


def read_evaluations(metrics: Path) -> tuple[dict[str, float], ...]:
    """Return the evaluations of a run in their order: the step and what was measured."""
    return tuple(
        {n: float(v) for n, v in record.items() if n == "step" or n.startswith("eval_")}
        for record in read_metrics(metrics)
        if record["kind"] == "eval"
    )

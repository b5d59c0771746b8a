"""`luthier lr-find`: a range test on a run's own rows, optimiser and precision, and what it found.

Comes in: the settings of a run. Goes out: `lr-find/` in its output_dir, with the curve as JSON and
as a page. Nothing else is written there, and a run that is there already is left as it is.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.batches.loading import worker_errors
from luthier.contracts.notice import Notice
from luthier.contracts.training import StopRequest
from luthier.core.clock import now
from luthier.core.files import write_json, write_text
from luthier.core.lock import locked_folder
from luthier.engine.lr_range import End, RangeWatch, find_range
from luthier.engine.lr_suggestion import (
    RangeCurve,
    Smoothed,
    Suggestion,
    smooth,
    smoothing_beta,
    suggest,
)
from luthier.engine.memory import MicroBatches, memory_errors
from luthier.models.load import check_model_path
from luthier.models.settings import FreezeTuning
from luthier.recipes.job import build_job
from luthier.recipes.own_loop import build_loop_run
from luthier.recipes.pair_reference import with_reference
from luthier.recipes.processes import refuse_many_processes
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import LR_FIND, output_errors, settings_of
from luthier.recipes.screen import Screen
from luthier.recipes.stages import stage_of
from luthier.recipes.watching import Watching
from luthier.report.lr_page import lr_page, verdict
from luthier.report.words import say

JSON, PAGE = "lr_find.json", "lr_find.html"

USUAL_STEPS = 100
"""As fastai has it: over seven decades, each rate is 1.18 times the one before."""

SHORTEST_STEPS = 40
"""Few rows are gone over again for so many steps: fewer would leap over the valley."""


@dataclass(frozen=True, slots=True)
class FoundRate:
    """What a range test came to.

    Attributes:
        folder: Where it is written.
        num_steps: Steps of the whole test; `curve` is shorter if it ended early.
    """

    folder: Path
    curve: RangeCurve
    smoothed: Smoothed
    suggestion: Suggestion
    end: End
    num_steps: int
    seconds: float

    def words(self) -> tuple[str, str]:
        """Return how sure the suggestion is or why there is none, and how the test ended."""
        return verdict(_verdict_of(self.suggestion)).en, say(f"lr_end_{self.end}").en

    def labelled_rates(self) -> list[tuple[str, float]]:
        """Return the choices and the minimum, each in plain words with its rate."""
        suggestion = self.suggestion
        rates = [(say(f"lr_{name}").en, rate) for name, rate in suggestion.choices.items()]
        lowest = [] if suggestion.minimum is None else [(say("lr_minimum").en, suggestion.minimum)]
        return rates + lowest


def find_learning_rate(
    config: RunConfig,
    screen: Screen,
    stop: StopRequest,
    *,
    min_lr: float,
    max_lr: float,
    num_steps: int | None,
) -> FoundRate:
    """Test which learning rates a run can learn at, and write down what was measured.

    Args:
        config: The run's settings; its learning rate and schedule are not used.
        screen: Shows what happens.
        stop: Ends the test with what is measured by then.
        min_lr: The lowest rate.
        max_lr: The highest rate, if the loss does not diverge before it.
        num_steps: Optimiser steps; None: 100, or as many as one pass over the rows has.

    Raises:
        LuthierError: As training itself would.
    """
    started_s = time.perf_counter()
    refuse_many_processes(os.environ)
    check_model_path(config.model)
    folder = _open_folder(config)
    with locked_folder(folder, screen.say), worker_errors(), memory_errors():
        job = build_job(_for_the_test(config, screen), folder, None, screen)
        # Before the first step a signal stops at once: nobody needs to be asked.
        job = with_reference(job, None, screen.working, lambda: False)
        run = build_loop_run(
            job,
            None,
            Watching((screen,)),
            stop,
            screen.notice,
            lambda event: None,
            MicroBatches(stage_of(job.config).layout.split, None, screen.notice),
        )
        steps = settle_steps(num_steps, run.batches.windows_per_epoch(), screen)
        screen.say(f"First the losses of the untrained model on the rows of {steps} steps")
        watch = find_range(
            run,
            min_lr=min_lr,
            max_lr=max_lr,
            num_steps=steps,
            working=lambda done, total: screen.working(
                "Losses of the untrained model", done, total
            ),
        )
        found = _read(watch, folder, steps, started_s)
        asked = {"min_lr": min_lr, "max_lr": max_lr, "num_steps": steps}
        return _write(found, asked | {"settings": settings_of(config)})


def settle_steps(asked: int | None, windows_per_epoch: int, screen: Screen) -> int:
    """Return the steps of a test, and say where they are not the usual ones or rows come again.

    Args:
        asked: By the user; None: what is best.
        windows_per_epoch: Steps of one pass over the rows.
        screen: Told.
    """
    steps = asked or max(SHORTEST_STEPS, min(USUAL_STEPS, windows_per_epoch))
    if steps > windows_per_epoch:
        passes = f"{steps / windows_per_epoch:.1f} passes over the few rows"
        reason = f"{passes}: some of the fall may be rows learnt by heart"
        screen.notice(Notice("num_steps", str(asked or USUAL_STEPS), str(steps), reason))
    elif asked is None and steps < USUAL_STEPS:
        screen.notice(Notice("num_steps", str(USUAL_STEPS), str(steps), "one pass over the rows"))
    return steps


def _open_folder(config: RunConfig) -> Path:
    folder = Path(config.run.output_dir).expanduser() / LR_FIND
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _for_the_test(config: RunConfig, screen: Screen) -> RunConfig:
    """Return the settings without what a test of a few steps has no use for."""
    changed: dict[str, Any] = {}
    if config.run.trainer != "luthier":
        reason = "the test runs in luthier's own loop, on the same rows and losses"
        screen.notice(Notice("trainer", config.run.trainer, "luthier", reason))
        changed["run"] = config.run.model_copy(update={"trainer": "luthier"})
    if isinstance(config.tuning, FreezeTuning):
        # Exact, and worth its room only over several epochs.
        changed["tuning"] = config.tuning.model_copy(update={"freeze_cache": False})
    return config.model_copy(update=changed)


def _read(watch: RangeWatch, folder: Path, num_steps: int, started_s: float) -> FoundRate:
    curve, beta = watch.curve(), smoothing_beta(watch.num_rates)
    smoothed = smooth(curve.rates, curve.losses, beta)
    suggestion = suggest(curve, smoothed, beta)
    assert watch.end is not None, "the loop has told its end"
    seconds = time.perf_counter() - started_s
    return FoundRate(folder, curve, smoothed, suggestion, watch.end, num_steps, seconds)


def _verdict_of(suggestion: Suggestion) -> dict[str, Any]:
    return {
        "suggestion": suggestion.rate,
        "verdict": suggestion.verdict,
        "choices": dict(suggestion.choices),
        "minimum": suggestion.minimum,
        "fall": suggestion.fall,
        "noise": suggestion.noise,
    }


def _write(found: FoundRate, asked: dict[str, Any]) -> FoundRate:
    """Put the test in the place of an earlier one."""
    curve = found.curve
    record: dict[str, Any] = {
        "kind": "luthier lr-find",
        "luthier": __version__,
        "created": now(),
        **_verdict_of(found.suggestion),
        "end": found.end,
        "seconds": found.seconds,
        # JSON has no NaN.
        "start_loss": curve.start if math.isfinite(curve.start) else None,
        "curve": {"learning_rate": curve.rates, "loss": curve.losses},
        "smoothed": {"learning_rate": found.smoothed.rates, "loss": found.smoothed.losses},
    } | asked
    page = found.folder / PAGE
    page.unlink(missing_ok=True)
    write_json(found.folder / JSON, record)
    write_text(page, lr_page(record))
    return found

"""What a sweep draws next, by optuna: samplers, pruners and the importance of settings.

Each draw is made by a study that is built anew from the trials that are done, with a seed of its
own: so a sweep that was stopped draws what it would have drawn in one piece.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luthier.core.errors import MissingExtraError
from luthier.core.seeds import derive_seed
from luthier.recipes.sweep_plan import SweepPlan
from luthier.recipes.sweep_record import SweepTrial
from luthier.recipes.sweep_settings import Choice, Range

if TYPE_CHECKING:
    import optuna

FEWEST_FOR_IMPORTANCE = 10
"""Finished trials below which there is no best tenth."""


class OpenTrial:
    """A trial that is under way: its values, and whether it is worth going on."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self.reported: list[float] = []

    @property
    def params(self) -> dict[str, Choice]:
        """The value of each swept setting."""
        return dict(self._trial.params)

    def report(self, value: float) -> bool:
        """Take the metric of one more validation, and return whether to stop the trial early."""
        self.reported.append(value)
        self._trial.report(value, len(self.reported))
        return bool(self._trial.should_prune())


def open_trial(
    plan: SweepPlan, done: Sequence[SweepTrial], params: Mapping[str, Choice] | None = None
) -> OpenTrial:
    """Begin a trial.

    Args:
        plan: The sweep.
        done: The trials before it, in their order.
        params: Its values, where they were drawn before a stop; None draws them.

    Raises:
        MissingExtraError: optuna is not installed.
    """
    study = _study(plan, done)
    if params is not None:
        study.enqueue_trial(dict(params))
    return OpenTrial(study.ask(_distributions(plan)))


def importance(plan: SweepPlan, done: Sequence[SweepTrial]) -> dict[str, float]:
    """Return which share each setting has in what makes a trial one of the best tenth.

    By PED-ANOVA, which needs numpy alone; fANOVA, optuna's usual choice, needs scikit-learn.

    Returns:
        Shares that add up to 1, the largest first; empty below `FEWEST_FOR_IMPORTANCE` trials.

    Source: arXiv 2304.10255.
    """
    if sum(trial.state == "finished" for trial in done) < FEWEST_FOR_IMPORTANCE:
        return {}
    optuna = load_optuna()
    with warnings.catch_warnings():
        # That optuna 4 calls it an experiment; that trials of one value tell nothing apart.
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            _study(plan, done), evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {name: round(share, 4) for name, share in found.items() if math.isfinite(share)}


def load_optuna() -> Any:
    """Return optuna, which is slow to load and not always there.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError.of("optuna", "sweep", "a sweep") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(plan: SweepPlan, done: Sequence[SweepTrial]) -> optuna.Study:
    optuna = load_optuna()
    settings = plan.settings
    seed = derive_seed(plan.config.run.seed, f"sweep trial {len(done)}") % 2**32
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    pruner = optuna.pruners.NopPruner()
    if settings.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=settings.prune_after)
    study = optuna.create_study(
        direction=settings.direction,
        sampler=samplers[settings.sampler](seed=seed),
        pruner=pruner,
    )
    for trial in done:
        study.add_trial(_as_optuna(plan, trial))
    return study


def _as_optuna(plan: SweepPlan, trial: SweepTrial) -> optuna.trial.FrozenTrial:
    optuna = load_optuna()
    states = optuna.trial.TrialState
    # One that was pruned before its first validation says no more than one that failed.
    pruned = states.PRUNED if trial.reported else states.FAIL
    state = {"finished": states.COMPLETE, "pruned": pruned, "failed": states.FAIL}[trial.state]
    value = trial.value
    if state == states.PRUNED:
        value = trial.reported[-1]
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=dict(trial.params),
        distributions=_distributions(plan),
        intermediate_values=dict(enumerate(trial.reported, start=1)),
    )


def _distributions(plan: SweepPlan) -> dict[str, optuna.distributions.BaseDistribution]:
    ranges = plan.settings.ranges
    return {name: _distribution(ranges[name], whole=name in plan.whole) for name in ranges}


def _distribution(
    values: Range | list[Choice], *, whole: bool
) -> optuna.distributions.BaseDistribution:
    kinds = load_optuna().distributions
    if not isinstance(values, Range):
        return kinds.CategoricalDistribution(values)
    low, high, step = values.low, values.high, values.step
    if step is not None:
        high = low + math.floor((high - low) / step + 1e-9) * step  # The last that is reached.
    if whole:
        return kinds.IntDistribution(int(low), int(high), log=values.log, step=int(step or 1))
    return kinds.FloatDistribution(float(low), float(high), log=values.log, step=step)

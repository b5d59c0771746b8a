"""Benchmark tasks through lm-eval: its tasks, its prompts, its metrics.

In: a loaded model and names of tasks. Out: each metric with the interval that follows from the
standard error which lm-eval reports (1.96 of them to each side).

Source: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/python-api.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from numbers import Real
from typing import Any

from luthier.core.errors import MissingExtraError, SettingsError, did_you_mean
from luthier.evaluation.intervals import Estimate

_ERROR = "_stderr"
_Z = 1.96


def check_tasks(names: Sequence[str]) -> None:
    """Refuse tasks that lm-eval does not have, before a model is loaded.

    Raises:
        MissingExtraError: Tasks are named, and lm-eval is not installed.
        SettingsError: There is no task of a name; the message names the nearest.
    """
    if not names:
        return
    known: list[str] = _lm_eval("tasks").TaskManager().all_tasks
    for name in names:
        if name not in known:
            raise SettingsError(
                f"lm-eval has no task {name!r}",
                where="--tasks",
                mend=f"{did_you_mean(name, known)[:500]} `lm-eval ls tasks` lists all.",
            )


def run_tasks(
    model: Any, tokenizer: Any, names: Sequence[str], num_rows: int | None, batch_size: int
) -> dict[str, Estimate]:
    """Run tasks on a model that is loaded.

    Args:
        model: A causal language model of transformers, or a peft model around one.
        tokenizer: Its own.
        names: Tasks of lm-eval.
        num_rows: Only the first so many questions of each task; None: all.
        batch_size: Requests computed at once.

    Returns:
        Each metric as `task/metric`.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    wrapped = _lm_eval("models.huggingface").HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=batch_size
    )
    found = _lm_eval("evaluator").simple_evaluate(
        model=wrapped, tasks=list(names), limit=num_rows, log_samples=False
    )
    return read_results(found)


def read_results(found: Mapping[str, Any]) -> dict[str, Estimate]:
    """Return the numbers of what `simple_evaluate` returns.

    Args:
        found: `results` holds for each task `METRIC,FILTER` and `METRIC_stderr,FILTER`; `n-samples`
            how many questions were asked.
    """
    estimates: dict[str, Estimate] = {}
    for task, values in found["results"].items():
        counts = found.get("n-samples", {}).get(task, {})
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith(_ERROR) or not isinstance(value, Real):
                continue
            # A filter of its own, such as strict-match, makes another metric of it.
            name = metric if kind == "none" else f"{metric} ({kind})"
            error = values.get(f"{metric}{_ERROR},{kind}")
            low = high = None
            if isinstance(error, Real):
                low, high = float(value) - _Z * float(error), float(value) + _Z * float(error)
            num_rows = int(counts.get("effective", 0))
            estimates[f"{task}/{name}"] = Estimate(float(value), low, high, num_rows)
    return estimates


def _lm_eval(module: str) -> Any:
    try:
        return import_module(f"lm_eval.{module}")
    except ImportError as error:
        raise MissingExtraError.of("lm-eval", "lm-eval", "running benchmark tasks") from error

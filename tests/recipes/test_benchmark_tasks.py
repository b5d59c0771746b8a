from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest

from luthier.core.errors import MissingExtraError, SettingsError
from luthier.evaluation.intervals import Estimate
from luthier.recipes.benchmark_tasks import check_tasks, read_results, run_tasks

needs_lm_eval = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'luthier[lm-eval]'"
)

RETURNED = {
    "results": {
        "arc_easy": {
            "alias": "arc_easy",
            "acc,none": 0.5,
            "acc_stderr,none": 0.1,
            "acc_norm,none": 0.25,
            "acc_norm_stderr,none": "N/A",
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.0,
            "exact_match_stderr,strict-match": 0.0,
        },
    },
    "n-samples": {"arc_easy": {"original": 2376, "effective": 40}},
}


def test_numbers_are_read_with_their_errors():
    found = read_results(RETURNED)
    assert found == {
        "arc_easy/acc": Estimate(0.5, 0.5 - 1.96 * 0.1, 0.5 + 1.96 * 0.1, 40),
        "arc_easy/acc_norm": Estimate(0.25, None, None, 40),
        "gsm8k/exact_match (strict-match)": Estimate(0.0, 0.0, 0.0, 0),
    }


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    for name in ("tasks", "models.huggingface"):
        monkeypatch.setitem(sys.modules, f"lm_eval.{name}", None)
    check_tasks(())
    for call in (
        lambda: check_tasks(["arc_easy"]),
        lambda: run_tasks(None, None, ["arc_easy"], None, 1),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'luthier\[lm-eval\]'"):
            call()


@needs_lm_eval
def test_a_task_that_is_not_known_is_answered_with_the_nearest():
    check_tasks(["arc_easy"])
    with pytest.raises(SettingsError, match=r"no task 'arc_esy'(.|\n)*Did you mean arc_easy"):
        check_tasks(["arc_esy"])


@needs_lm_eval
def test_a_task_runs_on_a_loaded_model(tiny_llama):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = Dataset.from_list([{"q": "Red and", "a": " green"}, {"q": "One,", "a": " two"}])
    task: Any = {
        "task": "colours",
        "custom_dataset": lambda **_: {"test": rows},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "acc"}],
    }
    folder = tiny_llama()
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = run_tasks(model, AutoTokenizer.from_pretrained(folder), [task], 1, 1)
    assert found["colours/acc"].value in (0.0, 1.0)
    assert found["colours/acc"].num_rows == 1

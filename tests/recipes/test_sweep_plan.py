"""A sweep is checked to the ends of its ranges before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command
from luthier.recipes.sweep_plan import SweepPlan, read_sweep

Read = Callable[..., SweepPlan]

NO_VALIDATION = "model_name_or_path: m\ntrain_file: rows.jsonl\noutput_dir: out\n"
BASE = "model_name_or_path: m\ntrain_file: rows.jsonl\nval_size: 0.1\noutput_dir: out\n"
RANGES = "sweep:\n  ranges:\n    learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a settings file with flags, as the command does."""

    def read(text: str, *flags: str) -> SweepPlan:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return read_sweep(read_flags([str(path), *flags], options=("num_trials",)))

    return read


def ranges(text: str, base: str = BASE) -> str:
    return f"{base}sweep:\n  ranges: {text}\n"


def test_the_settings_of_a_trial_follow(read: Read) -> None:
    plan = read(BASE + RANGES + "    lora_rank: [8, 16]\n    num_train_epochs: {low: 1, high: 3}\n")
    assert plan.config.run.output_dir == "out"
    assert plan.whole == {"lora_rank"}
    params = {"learning_rate": 5e-4, "lora_rank": 16, "num_train_epochs": 1.5}
    config = plan.trial_config(params, "out/trial-0000")
    assert config.schedule.learning_rate == 5e-4
    assert config.tuning.lora_rank == 16  # type: ignore[union-attr]
    assert config.training.num_train_epochs == 1.5
    assert config.run.output_dir == "out/trial-0000"
    assert config.data.val_size == 0.1


def test_a_range_goes_before_the_value_for_single_runs(read: Read) -> None:
    plan = read(BASE + "learning_rate: 0.5\n" + RANGES)
    assert plan.config.schedule.learning_rate == 1e-5


def test_flags_hold_for_every_trial(read: Read) -> None:
    plan = read(BASE + RANGES, "--seed", "7", "--num_trials", "3", "--output_dir", "elsewhere")
    assert plan.settings.num_trials == 3
    assert plan.config.run.output_dir == "elsewhere"
    assert plan.trial_config({"learning_rate": 1e-4}, "x").run.seed == 7


@pytest.mark.parametrize(
    ("flags", "actions"),
    [
        ((), (False, False)),
        (("--resume_from_checkpoint",), (True, False)),
        (("--resume_from_checkpoint", "latest"), (True, False)),
        (("--overwrite_output_dir",), (False, True)),
        # As in `luthier train`, going on removes nothing.
        (("--overwrite_output_dir", "--resume_from_checkpoint"), (True, False)),
    ],
)
def test_what_becomes_of_an_earlier_sweep_is_no_setting_of_a_trial(
    read: Read, flags: tuple[str, ...], actions: tuple[bool, bool]
) -> None:
    plan = read(BASE + RANGES, *flags)
    assert (plan.goes_on, plan.overwrites) == actions
    checkpoints = plan.trial_config({"learning_rate": 1e-4}, "x").checkpoints
    assert (checkpoints.resume_from_checkpoint, checkpoints.overwrite_output_dir) == (False, False)


@pytest.mark.parametrize(
    ("text", "problem", "mend"),
    [
        (BASE, "there is no `sweep` section", "docs/sweeps.md"),
        (BASE + "sweep:\n", "there is no `sweep` section", "ranges"),
        (BASE + "sweep: 3\n", "sweep is a section, and its value is 3", "indented"),
        (BASE + "sweep:\n  metric: loss\n", "the sweep has no ranges", "learning_rate"),
        (BASE + "sweep:\n  trials: 3\n  ranges: {}\n", "no setting of a sweep is named trials", ""),
        (ranges("{}"), "at least 1 item", "ranges: "),
        (ranges("{lerning_rate: [1]}"), "no setting is named lerning_rate", "mean learning_rate"),
        (ranges("{output_dir: [a, b]}"), "output_dir can't vary in a sweep", "out of the ranges"),
        (ranges("{lora_rank: []}"), "the range of lora_rank is empty", ""),
        (ranges("{lora_rank: 8}"), "the range of lora_rank is neither a list of values nor", ""),
        (ranges("{lora_rank: {low: 9, high: 8}}"), "the range of lora_rank: low is 9", ""),
        (ranges("{lora_rank: {high: 8}}"), "the range of lora_rank, low: field required", ""),
        (ranges("{weight_decay: {low: 0, high: 1, log: true}}"), "log needs a low above 0", ""),
        (ranges("{learning_rate: {low: -1, high: 1}}"), "learning_rate is -1", "learning rate"),
        (ranges("{warmup_ratio: {low: 0, high: 1}}"), "warmup_ratio is 1", ""),
        (ranges("{lora_rank: {low: 8, high: 16.5}}"), "lora_rank is 16.5", ""),
        (ranges("{lora_rank: [8, many]}"), "lora_rank is 'many'", ""),
        (ranges("{bf16: {low: 0, high: 1}}"), "bf16 takes no numbers between two ends", "list"),
        (ranges("{lora_rank: [8]}", BASE + "finetuning_type: full\n"), "lora_rank is not used", ""),
        (ranges("{lora_rank: [8]}\n  num_trials: 0"), "num_trials is 0", "num_trials: "),
        (
            ranges("{lora_rank: [8]}\n  metric: eval_token_accuracy"),
            "metric is eval_token_accuracy: say by direction whether more is better",
            "metric: ",
        ),
        (ranges("{lora_rank: [8]}\n  direction: up"), "direction is 'up'", "direction: "),
        (
            ranges("{lora_rank: [8]}", NO_VALIDATION),
            "the metric eval_loss needs validation data",
            "val_size",
        ),
        (
            ranges("{lora_rank: [8]}\n  metric: eval_perplexity", NO_VALIDATION),
            "the metric eval_perplexity needs validation data",
            "val_size",
        ),
    ],
)
def test_what_can_not_be_tried_is_refused(read: Read, text: str, problem: str, mend: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        read(text)
    assert mend in (caught.value.mend or "")
    assert "sweep.yaml" in (caught.value.where or "")


def test_a_metric_of_training_needs_no_validation(read: Read) -> None:
    assert read(ranges("{lora_rank: [8]}\n  metric: loss", NO_VALIDATION)).settings.metric == "loss"


def test_a_flag_and_a_range_for_one_setting_are_refused(read: Read) -> None:
    with pytest.raises(SettingsError, match="learning_rate is given, and the sweep varies it"):
        read(BASE + RANGES, "--learning_rate", "1e-4")


def test_a_sweep_goes_on_in_its_own_folder_alone(read: Read) -> None:
    with pytest.raises(SettingsError, match="resume_from_checkpoint is 'elsewhere'"):
        read(BASE + RANGES, "--resume_from_checkpoint", "elsewhere")


def test_without_a_settings_file_there_is_no_sweep() -> None:
    with pytest.raises(SettingsError, match="no settings file is given"):
        read_sweep(read_flags([]))


def test_num_trials_without_a_number_is_refused(read: Read) -> None:
    with pytest.raises(SettingsError, match="num_trials is") as caught:
        read(BASE + RANGES, "--num_trials")
    assert caught.value.where == "--num_trials"


def test_plain_training_says_that_the_file_is_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(BASE + RANGES, encoding="utf-8")
    with pytest.raises(SettingsError, match="no setting is named sweep") as caught:
        resolve_command(read_flags([str(path)]))
    assert caught.value.mend == "Take it out, or run `luthier sweep` on this file."


def test_the_example_of_the_docs_is_a_sweep(read: Read) -> None:
    docs = Path(__file__).parents[2] / "docs" / "sweeps.md"
    example = docs.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    plan = read(example)
    assert list(plan.settings.ranges) == ["learning_rate", "lora_rank", "num_train_epochs"]
    assert plan.settings.num_trials == 20

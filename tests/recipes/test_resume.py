"""Which checkpoint a run goes on from, and which one it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.checkpoints.manifest import seal
from luthier.core.errors import RunError, SettingsError
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve
from luthier.recipes.resume import find_checkpoint, run_fingerprint, settle_differences
from luthier.recipes.run_config import RunConfig


def config_of(**values: object) -> RunConfig:
    values = {"model_name_or_path": "m", "packing": False, **values}
    return resolve((), [Entry(name, value, "test") for name, value in values.items()]).config


def make_checkpoint(
    run: Path, step: int, fingerprint: dict[str, str] | None = None, loss: float | None = None
) -> Path:
    folder = run / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}", encoding="utf-8")
    metrics = {} if loss is None else {"eval_loss": loss}
    seal(folder, {"step": step, "metrics": metrics, "fingerprint": fingerprint or {}})
    return folder


def find(run: Path, resume: object, said: list[str] | None = None) -> Path | None:
    say = (said if said is not None else []).append
    return find_checkpoint(config_of(resume_from_checkpoint=resume), run, say)


@pytest.mark.parametrize("resume", [False, None])
def test_a_new_run_goes_on_from_nothing(tmp_path: Path, resume: object):
    make_checkpoint(tmp_path, 3)
    assert find(tmp_path, resume) is None


def test_the_bare_flag_finds_the_newest_good_one(tmp_path: Path):
    make_checkpoint(tmp_path, 3)
    good = make_checkpoint(tmp_path, 7)
    broken = make_checkpoint(tmp_path, 10)
    (broken / "state.json").write_text("x", encoding="utf-8")
    said: list[str] = []
    assert find(tmp_path, True, said) == good
    assert len(said) == 1
    assert said[0].startswith(
        "Passed over a damaged checkpoint: step-000010: state.json has 1 byte"
    )


def test_a_path_names_a_checkpoint_or_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, new = make_checkpoint(tmp_path / "other", 3), make_checkpoint(tmp_path / "other", 7)
    run = tmp_path / "out"
    assert find(run, str(old)) == old
    assert find(run, str(tmp_path / "other")) == new
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find(run, "~/other/checkpoints/step-000003") == old


def test_no_checkpoint_at_all(tmp_path: Path):
    message = r"checkpoints: there is no good checkpoint to go on from\n  Take --resume"
    with pytest.raises(RunError, match=message):
        find(tmp_path, True)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunError, match=message):
        find(tmp_path / "elsewhere", str(tmp_path))


def test_a_damaged_checkpoint_that_was_named_is_an_error(tmp_path: Path):
    broken = make_checkpoint(tmp_path, 3)
    (broken / "state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RunError, match=r"the content of state\.json has changed since it was"):
        find(tmp_path, str(broken))


def test_a_folder_that_is_no_checkpoint(tmp_path: Path):
    with pytest.raises(RunError, match=r"not a finished checkpoint: it has no manifest\.json"):
        find(tmp_path, str(tmp_path))


def test_a_path_that_leads_nowhere(tmp_path: Path):
    make_checkpoint(tmp_path, 30)
    message = r"step-00030: there is no such checkpoint or run folder\n  Did you mean step-000030\?"
    with pytest.raises(RunError, match=message):
        find(tmp_path, str(tmp_path / "checkpoints" / "step-00030"))
    with pytest.raises(RunError, match=r"no such checkpoint or run folder\n  Name a folder below"):
        find(tmp_path, str(tmp_path / "none" / "step-1"))


def fingerprint(precision: str = "fp32", data: str = "d", **values: object) -> dict[str, str]:
    return run_fingerprint(config_of(**values), data, precision)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-4},
        {"lr_scheduler_type": "cosine"},
        {"num_train_epochs": 2},
        {"max_steps": 9},
        {"weight_decay": 0.1},
        {"max_grad_norm": 0.5},
        {"adam_beta2": 0.95},
        {"optim": "adafactor"},
        {"label_smoothing_factor": 0.1},
        {"per_device_train_batch_size": 2},
        {"gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": "auto"},
        {"group_by_length": True},
        {"packing": "padding_free"},
        {"packing": True},
        {"finetuning_type": "full"},
        {"lora_rank": 4},
        {"lora_target": ["q_proj"]},
        {"quantization_bit": 4},
        {"seed": 1},
        {"model_name_or_path": "n"},
        {"new_special_tokens": "<a>,<b>"},
        {"add_tokens": ["spruce"]},
        {"data": "e"},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_what_the_weights_depend_on_must_be_the_same(tmp_path: Path, change: dict[str, object]):
    saved = make_checkpoint(tmp_path, 3, fingerprint())
    name = next(iter(change))
    message = rf"step-000003: this checkpoint was made with other settings: .*{name}.* -> .*\n  Use"
    with pytest.raises(RunError, match=message):
        settle_differences(saved, fingerprint(**change), [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"logging_steps": 1},
        {"save_steps": 3},
        {"save_strategy": "no"},
        {"save_total_limit": 1},
        {"eval_on_start": False},
        {"val_size": 0.1, "eval_steps": 2},
        {"dataloader_num_workers": 2},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"output_dir": "elsewhere"},
        {"resume_from_checkpoint": True},
    ],
    ids=str,
)
def test_what_changes_no_weight_may_differ(tmp_path: Path, change: dict[str, object]):
    saved = make_checkpoint(tmp_path, 3, fingerprint())
    settle_differences(saved, fingerprint(**change), [])  # type: ignore[arg-type]


def test_each_difference_is_named_with_both_values(tmp_path: Path):
    saved = make_checkpoint(tmp_path, 3, fingerprint())
    message = r"other settings: data \(files, .*\): d -> e; learning_rate: 2e-05 -> 0\.1; seed: 42"
    with pytest.raises(RunError, match=message):
        settle_differences(saved, fingerprint(data="e", seed=1, learning_rate=0.1), [])


def test_a_setting_that_is_not_used_is_no_difference(tmp_path: Path):
    auto = {"per_device_train_batch_size": "auto"}
    assert "train_batch_size" not in fingerprint()
    saved = make_checkpoint(tmp_path, 3, fingerprint(**auto))  # type: ignore[arg-type]
    with pytest.raises(RunError, match="other settings: train_batch_size: 16 -> 8"):
        settle_differences(saved, fingerprint(train_batch_size=8, **auto), [])  # type: ignore[arg-type]


def test_latest_and_best_are_names(tmp_path: Path):
    best = make_checkpoint(tmp_path, 3, loss=1.0)
    latest = make_checkpoint(tmp_path, 7, loss=2.0)
    assert find(tmp_path, "best") == best
    assert find(tmp_path, "latest") == latest
    (tmp_path / "new").mkdir()
    with pytest.raises(RunError, match="there is no good checkpoint to go on from"):
        find(tmp_path / "new", "best")


def test_a_change_that_is_allowed_is_taken_and_told(tmp_path: Path):
    saved = make_checkpoint(tmp_path, 3, fingerprint())
    today = fingerprint(seed=1, learning_rate=0.1)
    notices = settle_differences(saved, today, ["seed", "learning_rate", "weight_decay"])
    assert [str(notice) for notice in notices] == [
        "learning_rate: 2e-05 -> 0.1 (allow_change)",
        "seed: 42 -> 1 (allow_change)",
    ]
    message = r"settings: learning_rate: .*\n  .* all the same: --allow_change learning_rate,seed$"
    with pytest.raises(RunError, match=message):
        settle_differences(saved, today, ["seed"])


def test_a_setting_that_is_no_longer_used_may_be_allowed(tmp_path: Path):
    saved = make_checkpoint(tmp_path, 3, fingerprint(packing=True))
    today = fingerprint(packing=False)
    with pytest.raises(RunError, match=r"--allow_change packing,packing_window$"):
        settle_differences(saved, today, [])
    notices = settle_differences(saved, today, ["packing", "packing_window"])
    assert "packing_window: 1024 -> None (allow_change)" in map(str, notices)


def test_what_the_tensors_belong_to_can_not_be_allowed(tmp_path: Path):
    saved = make_checkpoint(tmp_path, 3, fingerprint())
    today = fingerprint(lora_rank=4)
    with pytest.raises(RunError) as refused:
        settle_differences(saved, today, [])
    assert "allow_change" not in str(refused.value)
    with pytest.raises(SettingsError, match="allow_change: lora_rank can't change on the way"):
        settle_differences(saved, today, ["lora_rank"])


def test_a_name_that_nothing_depends_on_is_refused(tmp_path: Path):
    saved = make_checkpoint(tmp_path, 3, fingerprint())
    message = "allow_change: sead is nothing that .*\\n  Did you mean seed"
    with pytest.raises(SettingsError, match=message):
        settle_differences(saved, fingerprint(), ["sead"])

"""A tiny model trained from a settings file to a folder that transformers and peft open."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from luthier.core.errors import DataError, ModelError, RunError, SettingsError
from luthier.engine import fitting
from luthier.recipes import train
from luthier.recipes.answering import load_answering_model
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command
from luthier.recipes.train import read_evaluations

TUNINGS = {
    "lora": {"finetuning_type": "lora", "lora_rank": 4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "full": {"finetuning_type": "full"},
}
EVERY_TUNING = pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS.keys())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model" if (folder / "adapter_model.safetensors").is_file() else "model"
    return load_file(folder / f"{name}.safetensors")


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer("Name three colours.", return_tensors="pt").input_ids
    with torch.no_grad():
        return model.eval()(ids).logits


@EVERY_TUNING
@pytest.mark.parametrize("trainer", ["luthier", "transformers"])
def test_the_run_folder_opens_as_it_is(small_run, tuning: dict[str, Any], trainer: str):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = small_run.train(trainer=trainer, **tuning)
    folder = trained.folder
    assert trained.result.finished
    assert (trained.result.progress.step, trained.result.progress.num_steps) == (8, 8)
    assert trained.losses()[-1] < trained.losses()[0] - 0.1

    base = AutoModelForCausalLM.from_pretrained(small_run.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    untrained = logits(base, tokenizer)
    is_lora = tuning["finetuning_type"] == "lora"
    if is_lora:
        assert not (folder / "model.safetensors").exists()
        model = PeftModel.from_pretrained(base, folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert model.config.use_cache is True
    assert not torch.allclose(logits(model, tokenizer), untrained, atol=1e-3)
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (folder / "chat_template.jinja").is_file()
    ends = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert ends["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    names = {item.name for item in folder.iterdir()}
    assert {"run.yaml", "manifest.json", "metrics.jsonl"} <= names
    assert ("checkpoints" in names) == (trainer == "luthier")
    assert "transformers" not in names


@pytest.mark.parametrize("name", ["lora", "full"])
def test_both_trainers_take_the_same_steps(small_run, name: str):
    common = {"eval_steps": 3, "warmup_steps": 2, **TUNINGS[name]}
    ours = small_run.train(output_dir=str(small_run.folder / "a"), **common)
    theirs = small_run.train(
        output_dir=str(small_run.folder / "b"), trainer="transformers", **common
    )
    for kind, key in (("train", "loss"), ("eval", "eval_loss"), ("train", "learning_rate")):
        left, right = (
            {m["step"]: m[key] for m in trained.metrics() if m["kind"] == kind}
            for trained in (ours, theirs)
        )
        assert left == pytest.approx(right, abs=1e-5), (kind, key)
    assert [r.step for r in theirs.screen.evaluations] == [0, 3, 6, 8]
    assert [r.step for r in theirs.screen.logs] == list(range(1, 9))
    assert [r.step for r in theirs.screen.steps] == list(range(1, 9))
    for tensor, other in zip(
        weights(ours.folder).values(), weights(theirs.folder).values(), strict=True
    ):
        torch.testing.assert_close(tensor, other, atol=1e-5, rtol=1e-4)
    counts = ("num_tokens_seen", "num_supervised_seen", "num_rows_seen")
    left, right = (
        [getattr(trained.result.progress, name) for name in counts] for trained in (ours, theirs)
    )
    assert left == right
    assert left[2] == 26


def test_what_a_run_leaves_behind(small_run):
    trained = small_run.train("--save_steps", "3", "--eval_steps", "2", "--seed", "7")
    steps = {
        kind: [m["step"] for m in trained.metrics() if m["kind"] == kind]
        for kind in ("train", "eval")
    }
    assert steps == {"train": [1, 2, 3, 4, 5, 6, 7, 8], "eval": [0, 2, 4, 6, 8]}
    checkpoints = sorted(path.name for path in (trained.folder / "checkpoints").iterdir())
    assert checkpoints == ["step-000003", "step-000006", "step-000008"]
    assert_same(weights(trained.folder), weights(trained.folder / "checkpoints/step-000008/model"))
    assert trained.screen.started_at == 0
    assert trained.screen.ended == [8]
    assert trained.screen.prepared is not None
    assert len(trained.screen.prepared.train) == 13

    manifest = trained.manifest()
    assert manifest["seed"] == 7
    assert manifest["command"] == ["luthier", "train", "small.yaml"]
    assert manifest["data"]["splits"]["train"]["rows"] == 13
    assert manifest["data"]["inputs"]["train"][0]["sha256"]
    assert manifest["outcome"]["finished"] is True
    assert manifest["outcome"]["steps"] == 8
    assert manifest["outcome"]["eval"]["step"] == 8
    assert manifest["outcome"]["eval"]["eval_loss"] == trained.metrics()[-1]["eval_loss"]
    result = trained.result
    assert result.first_eval is not None
    assert result.last_eval is not None
    assert (result.first_eval["step"], result.last_eval["step"]) == (0, 8)
    assert read_evaluations(trained.folder / "metrics.jsonl") == result.evaluations
    assert len(result.evaluations) == 5


def test_run_yaml_trains_the_same_model_again(small_run, train_as):
    first = small_run.train("--lora_dropout", "0.1")
    args = [str(first.folder / "run.yaml"), "--output_dir", str(small_run.folder / "again")]
    again = train_as(resolve_command(read_flags(args)).config)
    assert_same(weights(first.folder), weights(again.folder))
    assert first.losses() == again.losses()


def test_another_seed_gives_another_model(small_run):
    first = small_run.train("--max_steps", "3", output_dir=str(small_run.folder / "a"))
    other = small_run.train("--max_steps", "3", "--seed", "1")
    assert first.losses() != other.losses()


OPTIMISED = {
    "lion-loraplus": {"finetuning_type": "lora", "optim": "lion", "loraplus_lr_ratio": 4.0},
    "pissa": {"finetuning_type": "lora", "lora_init": "pissa", "lora_rank": 4},
    "neftune-dft": {
        "finetuning_type": "lora",
        "neftune_noise_alpha": 5.0,
        "use_dft_loss": True,
    },
    "muon-layerwise": {"finetuning_type": "full", "optim": "muon", "layerwise_lr_decay": 0.5},
    "schedule-free": {
        "finetuning_type": "full",
        "optim": "schedule_free_adamw",
        "lr_scheduler_type": "constant",
        "warmup_steps": 2,
    },
    "schedule-free-lora": {
        "finetuning_type": "lora",
        "optim": "schedule_free_adamw",
        "lr_scheduler_type": "constant",
        "loraplus_lr_ratio": 4,
        "weight_decay": 0.1,
    },
}


@pytest.mark.parametrize(
    "tuning", [*TUNINGS.values(), *OPTIMISED.values()], ids=[*TUNINGS, *OPTIMISED]
)
def test_a_stopped_run_goes_on_to_the_very_same_model(small_run, tuning: dict[str, Any]):
    if tuning["finetuning_type"] == "lora":
        tuning = {**tuning, "lora_dropout": 0.2}  # what is drawn must go on, too
    common = {"save_steps": 3, "eval_steps": 2, **tuning}
    whole = small_run.train(output_dir=str(small_run.folder / "whole"), **common)
    part = small_run.train(stop_after=5, **common)
    assert not part.result.finished
    assert [step for step, _ in part.screen.checkpoints] == [3, 5]
    assert not (part.folder / "tokenizer.json").exists()
    assert part.manifest()["outcome"]["finished"] is False
    stopped_at = part.manifest()["outcome"]["steps"]

    rest = small_run.train("--resume_from_checkpoint", **common)
    assert rest.screen.started_at == 5
    (earlier,) = rest.manifest()["earlier"]
    assert earlier["outcome"]["steps"] == stopped_at == 5
    assert earlier["command"] == ["luthier", "train", "small.yaml"]
    assert rest.manifest()["goes_on_from"].endswith("step-000005")
    assert [record.step for record in rest.screen.steps] == [6, 7, 8]
    assert rest.result.finished
    assert_same(weights(whole.folder), weights(rest.folder))
    last = "checkpoints/step-000008"
    for name in ("optimizer", "random"):
        assert_same(
            load_file(whole.folder / last / f"{name}.safetensors"),
            load_file(rest.folder / last / f"{name}.safetensors"),
        )
    assert rest.losses() == whole.losses()
    assert [m["step"] for m in rest.metrics()] == [m["step"] for m in whole.metrics()]
    strip = [{**e, "eval_seconds": 0.0} for e in rest.result.evaluations]
    assert strip == [{**e, "eval_seconds": 0.0} for e in whole.result.evaluations]
    assert rest.result.progress == whole.result.progress


def test_going_on_from_a_named_checkpoint(small_run):
    whole = small_run.train("--save_steps", "3")
    named = whole.folder / "checkpoints" / "step-000003"
    expected = weights(whole.folder)
    again = small_run.train("--save_steps", "3", "--resume_from_checkpoint", str(named))
    assert again.screen.started_at == 3
    assert_same(expected, weights(again.folder))


def test_a_checkpoint_of_another_folder_begins_a_run_of_its_own(small_run):
    first = small_run.train("--save_steps", "3", stop_after=3)
    other = str(small_run.folder / "other")
    for named in (first.folder / "checkpoints" / "step-000003", first.folder):
        moved = small_run.train(
            "--resume_from_checkpoint", str(named), "--output_dir", other, "--overwrite_output_dir"
        )
        assert moved.folder == Path(other)
        assert moved.screen.started_at == 3
    with pytest.raises(RunError, match="output_dir holds a run already"):
        small_run.train("--resume_from_checkpoint", str(first.folder), "--output_dir", other)


def test_going_on_after_the_end_changes_nothing(small_run):
    first = small_run.train()
    before = weights(first.folder)
    again = small_run.train("--resume_from_checkpoint")
    assert again.screen.steps == []
    assert again.result.finished
    assert_same(before, weights(first.folder))
    assert again.manifest()["outcome"]["eval"] == first.result.last_eval


def test_a_damaged_checkpoint_is_passed_over_and_said(small_run):
    first = small_run.train("--save_steps", "3", stop_after=6)
    broken = first.folder / "checkpoints" / "step-000006" / "optimizer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    again = small_run.train("--save_steps", "3", "--resume_from_checkpoint")
    assert again.screen.started_at == 3
    assert any("Passed over" in line and "step-000006" in line for line in again.screen.said)


def test_other_settings_are_refused_and_leave_the_run_as_it_was(small_run):
    first = small_run.train(stop_after=4)
    before = {f: (first.folder / f).read_bytes() for f in ("run.yaml", "manifest.json")}
    for flags, message in (
        (["--lora_rank", "2"], r"lora_rank: 8 -> 2"),
        (["--finetuning_type", "full"], r"finetuning_type: lora -> full.*lora_alpha"),
        (
            ["--cutoff_len", "22", "--num_train_epochs", "1"],
            r"data \(files, .*num_train_epochs: 2.0",
        ),
    ):
        with pytest.raises(RunError, match=rf"made with other settings: .*{message}"):
            small_run.train("--resume_from_checkpoint", *flags)
    assert before == {f: (first.folder / f).read_bytes() for f in before}


def test_logging_and_saving_may_change_when_going_on(small_run):
    whole = small_run.train(output_dir=str(small_run.folder / "whole"))
    small_run.train(stop_after=3)
    rest = small_run.train(
        *("--resume_from_checkpoint", "--save_steps", "7", "--eval_strategy", "epoch"),
        *("--logging_steps", "4", "--dataloader_num_workers", "1"),
    )
    assert_same(weights(whole.folder), weights(rest.folder))


def test_a_run_is_not_written_over(small_run):
    small_run.train("--max_steps", "1")
    with pytest.raises(RunError, match=r"output_dir holds a run already\n.*resume.*overwrite"):
        small_run.train("--max_steps", "2")
    (small_run.folder / "out" / "old.txt").write_text("old", encoding="utf-8")
    again = small_run.train("--max_steps", "2", "--overwrite_output_dir")
    assert not (again.folder / "old.txt").exists()
    assert again.result.progress.step == 2
    assert "step-000001" not in {p.name for p in (again.folder / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--train_file", "gone.json"], DataError),
        (["--deepspeed", "gone.json"], SettingsError),
        (["--lora_target", "x_proj"], SettingsError),
        (["--train_file", "null"], SettingsError),
        (["--model_name_or_path", "./gone"], ModelError),
    ],
)
def test_a_run_that_can_not_start_removes_no_earlier_one(
    small_run, flags: list[str], error: type[Exception]
):
    first = small_run.train("--max_steps", "1")
    before = sorted((p, p.stat().st_mtime_ns) for p in first.folder.rglob("*"))
    with pytest.raises(error):
        small_run.train("--overwrite_output_dir", *flags)
    assert before == sorted((p, p.stat().st_mtime_ns) for p in first.folder.rglob("*"))


def test_what_was_replaced_is_said_and_recorded(small_run, write_file):
    deepspeed = write_file("ds_z3.json", '{"zero_optimization": {"stage": 3}}')
    trained = small_run.train(
        *("--flash_attn", "--deepspeed", str(deepspeed), "--max_steps", "1", "--fp16"), bf16=None
    )
    recorded = trained.manifest()["notices"]
    assert recorded == [notice.as_json() for notice in trained.screen.notices]
    if torch.cuda.is_available():
        return
    by_setting = {notice["setting"]: notice for notice in recorded}
    assert by_setting.keys() >= {"flash_attn", "deepspeed", "fp16"}
    assert by_setting["flash_attn"]["asked"] == "fa2"
    assert by_setting["flash_attn"]["used"] == "sdpa"
    assert by_setting["deepspeed"]["asked"] == "ds_z3.json (ZeRO-3)"
    assert by_setting["fp16"]["used"] in ("bf16", "fp32")


@pytest.mark.parametrize("name", ["lora", "full"])
def test_gradient_checkpointing_changes_memory_and_not_the_model(small_run, name: str):
    plain = small_run.train(output_dir=str(small_run.folder / "plain"), **TUNINGS[name])
    recomputed = small_run.train("--gradient_checkpointing", **TUNINGS[name])
    assert plain.losses() == recomputed.losses()
    assert_same(weights(plain.folder), weights(recomputed.folder))


@pytest.mark.parametrize("create_new", [False, True])
def test_a_stack_of_adapters_is_one_that_opens_on_the_base(small_run, create_new: bool):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def train(name: str, *adapters: Any, **values: Any) -> Any:
        folder = str(small_run.folder / name)
        stack = ",".join(str(adapter) for adapter in adapters) or None
        return small_run.train(output_dir=folder, adapter_name_or_path=stack, max_steps=3, **values)

    first = train("first", lora_rank=2)
    second = train("second", lora_rank=3, seed=7)
    new = {"create_new_adapter": True, "lora_rank": 4} if create_new else {}
    whole = train("whole", first.folder, second.folder, save_steps=2, **new)
    base = AutoModelForCausalLM.from_pretrained(small_run.model, dtype=torch.float32)
    opened: Any = PeftModel.from_pretrained(base, str(whole.folder))
    assert opened.peft_config["default"].r == (4 + 2 + 3 if create_new else 3 + 2)
    # One step's worth of training apart from both below it, and a run that goes on is the same.
    again = small_run.train(
        "--resume_from_checkpoint",
        str(whole.folder / "checkpoints" / "step-000002"),
        output_dir=str(small_run.folder / "again"),
        adapter_name_or_path=f"{first.folder},{second.folder}",
        max_steps=3,
        save_steps=2,
        **new,
    )
    assert_same(weights(whole.folder), weights(again.folder))
    assert again.losses()[-1] == whole.losses()[-1]
    facts = whole.manifest()
    assert [facts[name]["name"] for name in ("adapter_1", "adapter")] == [
        str(first.folder),
        str(second.folder),
    ]


def test_training_goes_on_from_an_adapter(small_run):
    first = small_run.train("--lora_rank", "4", output_dir=str(small_run.folder / "first"))
    second = small_run.train("--adapter_name_or_path", str(first.folder), "--max_steps", "1")
    assert weights(second.folder).keys() == weights(first.folder).keys()
    assert second.losses()[0] == pytest.approx(first.losses()[-1], abs=0.2)
    assert second.screen.evaluations[0].metrics["eval_loss"] == pytest.approx(
        first.screen.evaluations[-1].metrics["eval_loss"], abs=1e-5
    )


def test_a_launcher_of_several_processes_is_refused(small_run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="the launcher started 2"):
        small_run.train()
    assert not (small_run.folder / "out").exists()


def test_a_run_without_validation_rows(small_run):
    trained = small_run.train("--max_steps", "2", val_file=None)
    assert trained.result.evaluations == ()
    assert trained.result.last_eval is None
    assert trained.manifest()["outcome"]["eval"] is None


def test_a_stop_before_the_first_step_leaves_no_checkpoint(small_run):
    trained = small_run.train(stop_after=0)
    assert trained.screen.steps == []
    assert not trained.result.finished
    assert not (trained.folder / "checkpoints").exists()
    again = small_run.train("--overwrite_output_dir", "--max_steps", "1")
    assert again.result.finished


def test_every_start_of_a_run_stays_on_record(small_run):
    for step in (2, 4):
        flags = ["--resume_from_checkpoint"] if step > 2 else []
        small_run.train(*flags, stop_after=step)
    last = small_run.train("--resume_from_checkpoint")
    steps = [part["outcome"]["steps"] for part in last.manifest()["earlier"]]
    assert steps == [2, 4]
    assert last.manifest()["outcome"]["steps"] == 8
    fresh = small_run.train("--overwrite_output_dir", "--max_steps", "1")
    assert "earlier" not in fresh.manifest()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")]
)
def test_a_model_that_can_not_be_written_leaves_its_checkpoints(
    small_run, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def full(_job: Any) -> Any:
        def write(folder: Path) -> None:
            (folder / "half.json").touch()
            raise error

        return write

    monkeypatch.setattr(train, "model_writer", full)
    message = (
        r"out: the trained model could not be written: .*No space left.*\n  Make room and go on"
    )
    with pytest.raises(RunError, match=message):
        small_run.train()
    assert not list((small_run.folder / "out").glob("**/half.json"))
    monkeypatch.undo()
    again = small_run.train("--resume_from_checkpoint")
    assert again.screen.steps == []
    assert weights(again.folder)


def test_prepared_data_is_made_once(small_run):
    first = small_run.train("--max_steps", "1", output_dir=str(small_run.folder / "a"))
    shutil.rmtree(first.folder)
    second = small_run.train("--max_steps", "1", "--learning_rate", "1e-3")
    assert first.screen.prepared is not None
    assert second.screen.prepared is not None
    assert not first.screen.prepared.from_cache
    assert second.screen.prepared.from_cache


AUTO = {
    "per_device_train_batch_size": "auto",
    "gradient_accumulation_steps": None,
    "train_batch_size": 4,
    "lora_rank": 4,
}


@pytest.mark.parametrize("packing", [False, "padding_free"])
def test_auto_trains_the_step_that_was_asked_for(
    small_run, monkeypatch: pytest.MonkeyPatch, packing: Any
):
    plain = small_run.train(output_dir=str(small_run.folder / "a"), packing=packing, lora_rank=4)
    monkeypatch.setattr(fitting, "CPU_POSITIONS", 60)
    auto = small_run.train(output_dir=str(small_run.folder / "b"), packing=packing, **AUTO)
    assert auto.losses() == pytest.approx(plain.losses(), abs=1e-5)
    for name, tensor in weights(plain.folder).items():
        torch.testing.assert_close(weights(auto.folder)[name], tensor, atol=1e-5, rtol=1e-4)
    left, right = plain.result.progress, auto.result.progress
    assert (left.num_rows_seen, left.num_tokens_seen) == (
        right.num_rows_seen,
        right.num_tokens_seen,
    )
    (notice,) = (n for n in auto.screen.notices if n.setting == "per_device_train_batch_size")
    assert (notice.asked, notice.used) == ("auto", "at most 60 tokens at once")
    assert notice.as_json() in auto.manifest()["notices"]


def test_a_run_goes_on_with_the_micro_batch_that_it_found(
    small_run, monkeypatch: pytest.MonkeyPatch
):
    common = {**AUTO, "lora_dropout": 0.2, "save_steps": 3}
    monkeypatch.setattr(fitting, "CPU_POSITIONS", 60)
    whole = small_run.train(output_dir=str(small_run.folder / "whole"), **common)
    part = small_run.train(stop_after=5, **common)
    # Another measurement would find another size.
    monkeypatch.setattr(fitting, "CPU_POSITIONS", 10_000)
    rest = small_run.train("--resume_from_checkpoint", **common)
    assert not part.result.finished
    assert rest.result.finished
    assert_same(weights(whole.folder), weights(rest.folder))
    assert rest.losses() == whole.losses()
    (notice,) = (n for n in rest.screen.notices if n.setting == "per_device_train_batch_size")
    assert notice.used == "at most 60 tokens at once"
    assert notice.reason == "the size of the run that is gone on with or repeated"


def test_the_flag_says_auto_too(small_run):
    config = small_run.config(
        *("--per_device_train_batch_size", "auto", "--train_batch_size", "8"),
        per_device_train_batch_size=None,
        gradient_accumulation_steps=None,
    )
    assert (config.batches.is_auto, config.batches.rows_per_batch) == (True, 8)
    config = small_run.config("--per_device_train_batch_size", "3")
    assert config.batches.per_device_train_batch_size == 3


NEW_TOKENS = {"new_special_tokens": "<call>", "add_tokens": ["Red", "colours"]}


def trained_with_tokens(small_run: Any, name: str, folder: Path, **flags: Any) -> Any:
    tuning = dict(TUNINGS[name])
    if name == "freeze":
        tuning["freeze_extra_modules"] = "embed_tokens,lm_head"
    return small_run.train(**NEW_TOKENS, **tuning, output_dir=str(folder), save_steps=3, **flags)


@pytest.mark.parametrize("name", TUNINGS)
@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_new_tokens_are_trained_saved_and_gone_on_with(
    small_run: Any, tiny_llama: Any, tmp_path: Path, name: str, is_tied: bool
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny_llama("of_words", tie_word_embeddings=is_tied)
    small_run.values["model_name_or_path"] = str(model)
    whole = trained_with_tokens(small_run, name, tmp_path / "whole")
    assert not any(notice.setting == "head" for notice in whole.screen.notices)
    stopped = trained_with_tokens(small_run, name, tmp_path / "parts", stop_after=5)
    assert not stopped.result.finished
    again = trained_with_tokens(small_run, name, tmp_path / "parts", resume_from_checkpoint=True)
    assert_same(weights(whole.folder), weights(again.folder))

    tokenizer: Any = AutoTokenizer.from_pretrained(whole.folder)
    ids = tokenizer.convert_tokens_to_ids(["<call>", "Red", "colours"])
    assert ids == [len(tokenizer) - 3, len(tokenizer) - 2, len(tokenizer) - 1]
    if name == "lora":
        opened: Any = AutoModelForCausalLM.from_pretrained(str(model))
        opened.resize_token_embeddings(len(tokenizer))
        opened = PeftModel.from_pretrained(opened, str(whole.folder)).merge_and_unload()
    else:
        opened = AutoModelForCausalLM.from_pretrained(whole.folder)
    assert opened.get_input_embeddings().weight.shape[0] == len(tokenizer)
    rows = opened.get_input_embeddings().weight[ids]
    base: Any = AutoModelForCausalLM.from_pretrained(str(model))
    mean = base.get_input_embeddings().weight.mean(0)
    assert (rows[1:] - mean).abs().amax(dim=1).min() > 1e-3
    answering = load_answering_model(str(whole.folder), torch.device("cpu"), "float32")
    torch.testing.assert_close(
        logits(answering.model, tokenizer), logits(opened, tokenizer), rtol=1e-4, atol=1e-5
    )


def test_an_adapter_with_new_tokens_is_trained_on(small_run: Any, tmp_path: Path):
    first = trained_with_tokens(small_run, "lora", tmp_path / "first")
    settings = {**NEW_TOKENS, "adapter_name_or_path": str(first.folder)}
    second = small_run.train(**settings, output_dir=str(tmp_path / "second"))
    before, after = weights(first.folder), weights(second.folder)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ModelError, match="Give new_special_tokens and add_tokens as the run had"):
        small_run.train(adapter_name_or_path=str(first.folder), output_dir=str(tmp_path / "third"))


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'luthier[bnb]'",
)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_run_is_the_same_evaluated_stopped_or_neither(
    small_run: Any, tmp_path: Path, bits: int
):
    settings = {"quantization_bit": bits, "finetuning_type": "lora"}
    whole = small_run.train(**settings, output_dir=str(tmp_path / "whole"))
    assert whole.losses()[-1] < whole.losses()[0] - 0.1
    unseen = {"val_file": None, "eval_on_start": False, "output_dir": str(tmp_path / "unseen")}
    assert_same(weights(whole.folder), weights(small_run.train(**settings, **unseen).folder))
    parts = {"save_steps": 3, "output_dir": str(tmp_path / "parts")}
    small_run.train(**settings, **parts, stop_after=5)
    again = small_run.train(**settings, **parts, resume_from_checkpoint=True)
    assert_same(weights(whole.folder), weights(again.folder))
    plain = small_run.train(finetuning_type="lora", output_dir=str(tmp_path / "plain"))
    first = whole.result.first_eval["eval_loss"]
    assert first != plain.result.first_eval["eval_loss"]
    assert first == pytest.approx(plain.result.first_eval["eval_loss"], rel=0.05)


@pytest.mark.parametrize("tuning", [{"finetuning_type": "full"}, {"finetuning_type": "lora"}])
def test_schedule_free_measures_saves_and_leaves_the_average(
    small_run: Any, train_as: Any, tuning: dict[str, Any]
):
    settings = {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant", **tuning}
    run = small_run.train(save_steps=4, save_in_background=True, eval_steps=4, **settings)
    assert run.losses()[-1] < run.losses()[0] - 0.1
    last = run.folder / "checkpoints" / "step-000008"
    assert_same(weights(run.folder), weights(last / "model"))
    state = load_file(last / "optimizer.safetensors")
    trained_with = [tensor for name, tensor in state.items() if name.endswith(".y")]
    saved = list(weights(run.folder).values())
    assert not any(torch.equal(y, x) for y in trained_with for x in saved if y.shape == x.shape)
    # How often it is looked at changes nothing.
    seen = small_run.train(output_dir=str(small_run.folder / "seen"), eval_steps=1, **settings)
    assert_same(weights(run.folder), weights(seen.folder))


def test_adapters_begin_from_the_runs_own_rows(small_run: Any):
    settings = {"finetuning_type": "lora", "lora_rank": 4, "lora_init": "eva"}
    whole = small_run.train(**settings, output_dir=str(small_run.folder / "whole"))
    assert whole.losses()[-1] < whole.losses()[0] - 0.1
    config = json.loads((whole.folder / "adapter_config.json").read_text())
    assert (config["init_lora_weights"], config["eva_config"]) == (True, None)
    by_default = small_run.train(lora_rank=4, output_dir=str(small_run.folder / "default"))
    # B is 0 at first: both say what the base says, and learn otherwise.
    assert whole.result.first_eval["eval_loss"] == by_default.result.first_eval["eval_loss"]
    assert whole.losses()[-1] != by_default.losses()[-1]
    small_run.train(**settings, save_steps=3, stop_after=5)
    again = small_run.train("--resume_from_checkpoint", **settings, save_steps=3)
    assert_same(weights(whole.folder), weights(again.folder))

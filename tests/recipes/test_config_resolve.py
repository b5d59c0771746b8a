"""File and flags to one RunConfig: both layouts agree, flags win, every mistake has its place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from luthier.core.errors import SettingsError
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_layout import leaves
from luthier.recipes.config_resolve import (
    ResolvedConfig,
    resolve,
    resolve_command,
    resolve_file,
)
from luthier.recipes.run_config import RunConfig

Resolve = Callable[..., ResolvedConfig]

LECTURE_FILE = Path(__file__).parents[2] / "configs" / "lora_qlora.yaml"
LECTURE = {
    "stage": "sft",
    "model_name_or_path": "/data/model/Meta-Llama-3-8B-Instruct",
    "finetuning_type": "lora",
    "template": "llama3",
    "train_file": "data/alpaca.jsonl",
    "val_file": "data/val.jsonl",
    "output_dir": "output/lora-sft",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.03,
    "num_train_epochs": 3.0,
    "lora_target": ["q_proj", "v_proj"],
    "bnb_4bit_quant_type": "nf4",
    "save_total_limit": 3,
    "logging_steps": 10,
}
MODEL = "model_name_or_path: m\n"


def sectioned(flat: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        found.setdefault(leaves()[name].section, {})[name] = value
    return found


def as_toml(values: dict[str, Any]) -> str:
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"[{name}]", as_toml(value)]
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines)


def test_the_lectures_file_means_what_the_lecture_says(values_of):
    resolved = resolve_file(LECTURE_FILE)
    assert values_of(resolved) == LECTURE
    assert resolved.where["lora_target"] == f"{LECTURE_FILE}:14"
    assert resolved.config.quantization.bits == 4
    assert not resolved.config.quantization.is_firm


@pytest.mark.parametrize("is_flat", [True, False], ids=["flat", "sectioned"])
@pytest.mark.parametrize("suffix", ["yaml", "json", "toml"])
def test_both_layouts_in_all_languages_are_one_config(
    suffix: str, is_flat: bool, resolve_text: Resolve, tmp_path: Path
):
    flat = YAML(typ="safe").load(LECTURE_FILE.read_text(encoding="utf-8"))
    values = flat if is_flat else sectioned(flat)
    if suffix == "yaml":
        path = tmp_path / "written.yaml"
        YAML().dump(values, path)
        text = path.read_text(encoding="utf-8")
    else:
        text = json.dumps(values) if suffix == "json" else as_toml(values)
    resolved = resolve_text(text, name=f"run.{suffix}")
    assert resolved.config == resolve_file(LECTURE_FILE).config
    assert resolved.where.keys() == LECTURE.keys()


def test_the_lectures_command():
    args = ["--config", str(LECTURE_FILE), "--flash_attn", "--gradient_checkpointing"]
    resolved = resolve_command(read_flags(args))
    assert resolved.config.model.flash_attn == "fa2"
    assert resolved.config.model.gradient_checkpointing is True
    assert resolved.where["flash_attn"] == "--flash_attn"
    args += ["--resume_from_checkpoint", "--quantization_bit", "4", "--deepspeed", "ds_z3.json"]
    config = resolve_command(read_flags(args)).config
    assert config.checkpoints.resume_from_checkpoint is True
    assert config.quantization.quantization_bit == 4
    assert config.quantization.is_firm
    assert config.run.deepspeed == "ds_z3.json"


def test_no_file_at_all():
    config = resolve_command(read_flags(["--model_name_or_path", "m", "--fp16"])).config
    assert (config.model.model_name_or_path, config.training.fp16) == ("m", True)


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(resolve_text: Resolve):
    resolved = resolve_text(MODEL + "seed: 1\nlogging_steps: 5\n", "--seed", "7")
    assert resolved.config.run.seed == 7
    assert resolved.where["seed"] == "--seed"
    assert resolved.config.training.logging_steps == 5
    assert Path(resolved.where["logging_steps"]).name == "run.yaml:3"
    assert resolved.config.training.save_steps is None
    assert "save_steps" not in resolved.where


def test_a_flag_mends_a_wrong_value_of_the_file(resolve_text: Resolve):
    assert resolve_text(MODEL + "seed: x\n", "--seed", "7").config.run.seed == 7


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("learning_rate: 2e-4", "learning_rate", 2e-4),
        ("learning_rate: '2e-4'", "learning_rate", 2e-4),
        ("num_train_epochs: 3", "num_train_epochs", 3.0),
        ("bf16: yes", "bf16", True),
        ("fp16: off", "fp16", False),
        ("eval_strategy: no", "eval_strategy", "no"),
        ("bf16: null", "bf16", None),
        ("max_steps: null", "max_steps", None),
        ("resume_from_checkpoint: null", "resume_from_checkpoint", False),
        ("resume_from_checkpoint: out/step-2", "resume_from_checkpoint", "out/step-2"),
        ("flash_attn: true", "flash_attn", "fa2"),
        ("flash_attn: false", "flash_attn", "auto"),
        ("quantization_bit: 8", "quantization_bit", 8),
        ("quantization_bit: '8'", "quantization_bit", 8),
        ("packing: false", "packing", False),
        ("packing: auto", "packing", "auto"),
        ("lora_target: q_proj, v_proj", "lora_target", ["q_proj", "v_proj"]),
        ("lora_target: [q_proj, v_proj]", "lora_target", ["q_proj", "v_proj"]),
        ("lora_target: all", "lora_target", "all"),
        ("report_to: [none]", "report_to", ["none"]),
        ("train_file: [a.json, b.json]", "train_file", ["a.json", "b.json"]),
        ("output_dir: 2026-01-31", "output_dir", "2026-01-31"),
    ],
)
def test_values(text: str, name: str, value: Any, resolve_text: Resolve, values_of):
    found = values_of(resolve_text(MODEL + text + "\n"))[name]
    assert found == value
    assert type(found) is type(value)


UNKNOWN = {
    "flat": ("a.yaml", MODEL + "\nlerning_rate: 1\n", 3),
    "sectioned": ("a.yaml", "model:\n  model_name_or_path: m\nschedule:\n  lerning_rate: 1\n", 4),
    "json": ("a.json", '{"model_name_or_path": "m",\n"lerning_rate": 1}', 2),
    "toml": ("a.toml", '[schedule]\n# words\nlerning_rate = 1\n[model]\nmodel_name_or_path="m"', 3),
}


@pytest.mark.parametrize(("name", "text", "line"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_name(name: str, text: str, line: int, resolve_text: Resolve):
    message = rf"/{name}:{line}: no setting is named lerning_rate\n  Did you mean learning_rate\?$"
    with pytest.raises(SettingsError, match=message):
        resolve_text(text, name=name)


def test_an_unknown_name_near_a_section_and_near_nothing(resolve_text: Resolve):
    with pytest.raises(SettingsError, match=r"named optimiser\n  Did you mean optimizer\?"):
        resolve_text("optimiser:\n  optim: adafactor\n" + MODEL)
    with pytest.raises(SettingsError, match=r"named wxyz\n  `luthier config` lists all"):
        resolve_text(MODEL + "wxyz: 1\n")


REFUSED = {
    "wrong section": (
        "model:\n  seed: 1\n", r":3: seed stands in the section model\n.*the section run"),
    "flat and in its section": (
        "seed: 1\nrun:\n  seed: 1\n", r":4: seed is set twice, first at .*:2\n  Keep one"),
    "flat section name": ("model: m\n", r":2: model is a section, and its value is 'm'"),
    "word for a number": (
        "seed: many\n", r":2: seed is 'many': .*valid integer.*\n  seed: Seed of"),
    "number for a word": ("template: 3\n", r":2: template is 3: .*valid string.*\n  template: "),
    "true for a number": ("seed: true\n", r":2: seed is true, which is not a value of it\n  seed:"),
    "true for a word": ("template: false\n", r":2: template is false, which is not a value"),
    "true for an option": ("quantization_bit: true\n", r":2: quantization_bit is true, which"),
    "negative": ("max_steps: -1\n", r":2: max_steps is -1: .*greater than 0"),
    "zero": ("learning_rate: 0\n", r":2: learning_rate is 0: .*greater than 0"),
    "share above one": ("warmup_ratio: 1.5\n", r":2: warmup_ratio is 1.5: .*less than 1"),
    "fraction": ("lora_rank: 1.5\n", r":2: lora_rank is 1.5: .*fractional part"),
    "infinite": ("num_train_epochs: .inf\n", r":2: num_train_epochs is inf: .*finite"),
    "not a number": ("weight_decay: .nan\n", r":2: weight_decay is nan: .*finite"),
    "null": ("seed: null\n", r":2: seed is null: .*valid integer"),
    "list for a number": ("seed: [1]\n", r":2: seed is \[1\]: .*valid integer"),
    "number in a list": ("train_file: [a, 1]\n", r":2: train_file is \['a', 1\]: .*valid string"),
    "word in a mapping": (
        "task_weights: {a: x}\ntask_column: t\n", r":2: task_weights is \{'a': 'x'\}: .*number"),
    "option": (
        "stage: sort\n",
        r":2: stage is 'sort', and can be sft or pt or dpo.* or grpo\n  stage: What is",
    ),
    "near an option": (
        "lr_scheduler_type: cosin\n",
        r":2: lr_scheduler_type is 'cosin', and can be linear or .* or warmup_stable_decay\n"
        r"  Did you mean cosine\?"),
    "number that is no option": (
        "quantization_bit: 3\n", r":2: quantization_bit is 3, and can be 4 or 8\n  quantiz"),
    "tracker": (
        "report_to: [wandbb]\n",
        r":2: report_to is \['wandbb'\], and can be none or .*swanlab\n  Did you mean wandb"),
    "no tracker beside one": (
        "report_to: [none, wandb]\n", r":2: report_to is .*: report_to names none beside a"),
    "packing": (
        "packing: full\n",
        r":2: packing is 'full', and can be auto or false or true or padding_free\n"),
    "choice": (
        "finetuning_type: loar\n",
        r":2: finetuning_type is 'loar', and can be lora or full or freeze\n  Did you mean lora\?"),
    "true for a choice": ("finetuning_type: true\n", r":2: finetuning_type is true, and can be"),
    "null for a choice": ("optim: null\n", r":2: optim is null, and can be adamw_torch or adaf"),
    "setting of another choice": (
        "lora_rank: 8\nfinetuning_type: full\n",
        r":2: lora_rank is not used with finetuning_type: full\n.*set finetuning_type: lora"),
    "setting of the choice that is not the default": (
        "freeze_trainable_layers: 2\n",
        r":2: freeze_trainable_layers is not used with finetuning_type: lora\n.*: freeze"),
    "setting of another optimiser": (
        "optim: adafactor\nadam_beta1: 0.9\n",
        r":3: adam_beta1 is not used with optim: adafactor\n.*set optim: adamw_torch"),
    "two warm-ups": (
        "seed: 1\nwarmup_steps: 3\nwarmup_ratio: 0.1\n",
        r":3: warmup_ratio and warmup_steps are both set: give one"),
    "two precisions": ("bf16: true\nfp16: true\n", r":2: bf16 and fp16 are both set: give one"),
    "a strategy without its steps": (
        "save_strategy: steps\n", r":2: save_strategy: steps needs save_steps"),
    "steps without their strategy": (
        "eval_steps: 3\nval_size: 0.1\neval_strategy: epoch\n",
        r":2: eval_steps is not used by eval_strategy: epoch"),
    "two masks": (
        "train_on_prompt: true\nmask_history: true\n", r":2: train_on_prompt and mask_history"),
    "two names of the data": (
        "train_file: a.json\ndataset: a\n", r":2: train_file and dataset are two names"),
    "two validations": (
        "val_file: a.json\nval_size: 0.1\n", r":2: val_file and val_size both choose"),
    "a share of more than one row": ("val_size: 1.5\n", r":2: val_size is a share below 1"),
    "weights of no tasks": ("task_weights: {a: 1}\n", r":2: task_weights needs task_column"),
    "negative weights": (
        "task_weights: {a: -1}\ntask_column: t\n", r":2: task_weights can't be negative"),
    "nothing to train": (
        "finetuning_type: freeze\nfreeze_trainable_layers: 0\n",
        r":3: freeze_trainable_layers is 0: freeze_trainable_layers can't be 0"),
    "8 bits in 4-bit words": (
        "quantization_bit: 8\nbnb_4bit_quant_type: fp4\n",
        r":[23]: bnb_4bit_quant_type is not used by quantization_bit: 8"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_settings_can_not_be(text: str, message: str, resolve_text: Resolve):
    with pytest.raises(SettingsError, match=r"^/.*/run\.yaml" + message):
        resolve_text(MODEL + text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "x"], r"^--seed: seed is 'x': .*valid integer"),
        (["--seed", "true"], r"^--seed: seed is 'true': .*valid integer"),
        (["--quantization_bit", "5"], r"^--quantization_bit: .* is '5', and can be 4 or 8"),
        (["--stage", "sort"], r"^--stage: stage is 'sort', and can be sft or pt"),
        (["--packing", "full"], r"^--packing: packing is 'full', and can be auto or false or true"),
        (["--bf16", "--fp16"], r"^--bf16: bf16 and fp16 are both set"),
        (["--finetuning_type", "full"], r"run.yaml:2: lora_rank is not used with .*: full"),
    ],
)
def test_what_flags_can_not_be(flags: list[str], message: str, resolve_text: Resolve):
    with pytest.raises(SettingsError, match=message):
        resolve_text(MODEL + "lora_rank: 4\n", *flags)


def test_a_run_yaml_of_before_a_setting_moved(resolve_text: Resolve):
    text = "model: {model_name_or_path: m}\nrun: {report_to: none, seed: 3}\n"
    assert resolve_text(text).config.tracking.report_to == "none"
    with pytest.raises(SettingsError, match=r"report_to stands in the section model\n.*tracking"):
        resolve_text("model: {model_name_or_path: m, report_to: none}\n")


def test_a_model_must_be_named(resolve_text: Resolve):
    message = r"^model_name_or_path is not set\n.*give --model_name_or_path"
    with pytest.raises(SettingsError, match=message):
        resolve_text("seed: 1\n")
    with pytest.raises(SettingsError, match=message):
        resolve((), ())


def test_every_default_is_valid_and_needs_no_model_but_its_name(resolve_text: Resolve):
    assert isinstance(resolve_text(MODEL).config, RunConfig)


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["train", "--help"],
        ["config", "FILE"],
        ["train", "TYPO"],
        ["inspect", "TYPO"],
        ["train", "FILE", "--lora_ranc", "3"],
    ],
    ids=" ".join,
)
def test_torch_is_not_loaded_before_the_settings_are_right(argv: list[str], tmp_path: Path):
    (tmp_path / "FILE.yaml").write_text(MODEL, encoding="utf-8")
    (tmp_path / "TYPO.yaml").write_text(MODEL + "lerning_rate: 1\n", encoding="utf-8")
    words = [f"{word}.yaml" if word.isupper() else word for word in argv]
    code = (
        "import sys\nfrom luthier.cli.main import main\n"
        f"sys.argv = ['luthier', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as exit:\n    code = exit.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules)\n"
        "print('LOADED', sorted(heavy), 'EXIT', code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    is_wrong = "TYPO" in argv or "--lora_ranc" in argv
    assert done.stdout.splitlines()[-1] == f"LOADED [] EXIT {2 if is_wrong else 0}", done.stderr
    assert ("Did you mean" in done.stderr) == is_wrong


@pytest.mark.parametrize("text", ["steps: exact, near", "steps: [exact, near]"])
def test_words_with_commas_between_are_a_list(text: str, resolve_text: Resolve):
    assert resolve_text(f"{MODEL}{text}").config.preparation.steps == ["exact", "near"]
    flags = read_flags(["--steps", "exact,near", "--model_name_or_path", "m"])
    assert resolve_command(flags).config.preparation.steps == ["exact", "near"]


def test_a_setting_that_holds_a_secret_is_refused_and_never_shown(
    resolve_text: Resolve, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_SECRET", "s3cr3t-value")
    key = f"hf_{'aB3dE5gH7j' * 3}"
    cases = [
        (f"{MODEL}train_file: x/s3cr3t-value/y", [], r"run.yaml:2: train_file holds the value of"),
        (f"{MODEL}lora_rank: s3cr3t-value", [], r"run.yaml:2: lora_rank holds .*MY_SECRET"),
        (f"{MODEL}task_weights: {{s3cr3t-value: 1}}", [], r"task_weights holds the value of"),
        (MODEL, ["--output_dir", key], r"^--output_dir: output_dir holds a key or token, and"),
        (MODEL, ["--val_file", "s3://a:b@c/d"], r"^--val_file: val_file holds a URL with a pass"),
    ]
    for text, flags, message in cases:
        with pytest.raises(SettingsError, match=message) as caught:
            resolve_text(text, *flags)
        shown = str(caught.value)
        assert "s3cr3t" not in shown
        assert key not in shown
        assert "a:b" not in shown
        assert "Tokens come from the environment alone, for example HF_TOKEN" in shown

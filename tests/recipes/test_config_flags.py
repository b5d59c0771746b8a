"""The command line: the lecture's command, bare flags, values, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes.config_flags import read_flags

LECTURE = ["--config", "configs/lora_qlora.yaml", "--flash_attn", "--gradient_checkpointing"]


def flags(*args: str) -> dict[str, Any]:
    return {entry.name: entry.value for entry in read_flags(args).entries}


@pytest.mark.parametrize(
    "args",
    [
        LECTURE,
        ["--config=configs/lora_qlora.yaml", *LECTURE[2:]],
        ["configs/lora_qlora.yaml", *LECTURE[2:]],
        ["--flash_attn", "configs/lora_qlora.yaml", "--gradient_checkpointing"],
        ["--flash_attn", "--gradient_checkpointing", "configs/lora_qlora.yaml"],
        [*LECTURE[2:], *LECTURE[:2]],
    ],
)
def test_the_lectures_command_in_any_order(args: list[str]):
    command = read_flags(args)
    assert command.config == Path("configs/lora_qlora.yaml")
    assert {e.name: e.value for e in command.entries} == {
        "flash_attn": True,
        "gradient_checkpointing": True,
    }
    assert [e.where for e in command.entries] == ["--flash_attn", "--gradient_checkpointing"]
    assert [e.section for e in command.entries] == [None, None]


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["--resume_from_checkpoint"], True),
        (["--resume_from_checkpoint", "run.yaml"], True),
        (["--resume_from_checkpoint", "--flash_attn"], True),
        (
            ["--resume_from_checkpoint", "out/checkpoints/step-000002"],
            "out/checkpoints/step-000002",
        ),
        (["--resume_from_checkpoint=out/step-2"], "out/step-2"),
        (["--resume_from_checkpoint", "false"], False),
        (["--resume_from_checkpoint", "True"], True),
        (["--resume_from_checkpoint", "null"], None),
    ],
)
def test_resume_bare_and_with_a_path(args: list[str], value: Any):
    assert flags(*args)["resume_from_checkpoint"] == value


def test_a_flag_with_a_choice_keeps_its_value():
    assert flags("--flash_attn", "sdpa") == {"flash_attn": "sdpa"}
    assert flags("--bf16", "null", "--fp16", "TRUE") == {"bf16": None, "fp16": True}


def test_a_word_after_a_bare_flag_that_is_not_its_value_is_the_settings_file():
    command = read_flags(["--gradient_checkpointing", "run.d/base"])
    assert command.config == Path("run.d/base")
    assert command.entries[0].value is True


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--quantization_bit", "4"], {"quantization_bit": "4"}),
        (["--deepspeed", "configs/ds_z3.json"], {"deepspeed": "configs/ds_z3.json"}),
        (["--learning_rate=1e-4"], {"learning_rate": "1e-4"}),
        (["--freeze_trainable_layers", "-2"], {"freeze_trainable_layers": "-2"}),
        (["--lora_target", "q_proj,v_proj"], {"lora_target": "q_proj,v_proj"}),
        (["--lora_target", "[q_proj, v_proj]"], {"lora_target": ["q_proj", "v_proj"]}),
        (["--task_weights", "{math: 2e-1}"], {"task_weights": {"math": 0.2}}),
        (["--train_file", "[a.json, b.json]"], {"train_file": ["a.json", "b.json"]}),
        (["--default_system", "[be brief]"], {"default_system": "[be brief]"}),
        (["--default_system="], {"default_system": ""}),
        (["--max_steps", "null"], {"max_steps": None}),
        (["--seed", "1", "--seed", "2"], {"seed": "2"}),
    ],
)
def test_values(args: list[str], expected: dict[str, Any]):
    assert flags(*args) == expected


def test_a_commands_own_options():
    command = read_flags(["--rows", "5", "run.yaml", "--all"], options=("rows", "all"))
    assert command.options == {"rows": "5", "all": True}
    assert command.config == Path("run.yaml")
    assert read_flags(["--rows=7"], options=("rows",)).options == {"rows": "7"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--learning-rate", "1"], r"^--learning-rate: no .* learning-rate\n  .* learning_rate\?"),
        (["--lr_sheduler_type=cosine"], r"^--lr_sheduler_type: .*\n  Did you mean lr_scheduler_ty"),
        (["--conf", "x.yaml"], r"^--conf: .*\n  Did you mean config\?"),
        (["--row", "3"], r"^--row: .*\n  Did you mean rows\?"),
        (["--qqqq"], r"^--qqqq: no setting is named qqqq\n.*`luthier config` lists all"),
        (["--learning_rate"], r"^--learning_rate: --learning_rate needs a value\n  Write"),
        (["--learning_rate", "--fp16"], r"^--learning_rate: --learning_rate needs a value"),
        (["--config"], r"^--config: --config needs a value\n  Write --config VALUE"),
        (["a.yaml", "b.yaml"], r"two settings files are given: a.yaml and b.yaml\n  Give one"),
        (["--config", "a.yaml", "b.yaml"], r"two settings files are given: a.yaml and b.yaml"),
        (["--lora_target", "[q_proj"], r"^--lora_target: '\[q_proj' is not a list.*\n.*in quotes"),
        (["--task_weights", "{math: 1"], r"^--task_weights: '{math: 1' is not a list or mapping"),
    ],
)  # fmt: skip
def test_what_a_command_line_can_not_be(args: list[str], message: str):
    with pytest.raises(SettingsError, match=message):
        read_flags(args, options=("rows",))

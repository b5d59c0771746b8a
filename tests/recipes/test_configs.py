"""Each file of `configs/` that the README lists trains a model, tuned and laid out in every way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command, resolve_file
from luthier.recipes.stages import STAGES

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "sft": "sft_alpaca.yaml",
    "pt": "pt_text.yaml",
    "dpo": "dpo_pairs.yaml",
    "orpo": "orpo_pairs.yaml",
    "simpo": "simpo_pairs.yaml",
    "cpo": "cpo_pairs.yaml",
    "kto": "kto_verdicts.yaml",
    "rm": "rm_lora.yaml",
    "grpo": "grpo_sums.yaml",
}
"""The file of each stage."""

FULL = CONFIGS | {"sft": "sft_full.yaml", "rm": "rm_full.yaml"}
"""The same where all weights are trained."""


BRIEF = {
    # What is measured are the likeliest answers, which a small step need not change.
    "grpo": (
        *("--max_completion_length", "12", "--reward_max_chars", "10"),
        *("--learning_rate", "1e-2"),
    )
}
"""What keeps a test short, by stage."""


def test_every_stage_has_its_file() -> None:
    assert CONFIGS.keys() == STAGES.keys()
    for stage, name in CONFIGS.items():
        assert resolve_file(ROOT / "configs" / name).config.run.stage == stage


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_every_file_stands_in_the_table(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for stage, file in [*CONFIGS.items(), *FULL.items()]:
        assert f"| `{stage}` |" in text
        assert f"`configs/{file}`" in text


@pytest.mark.parametrize("packing", ["padding_free", "false"])
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize("stage", CONFIGS)
def test_a_file_trains_a_tiny_model(
    stage: str,
    finetuning_type: str,
    packing: str,
    small_run: Any,
    train_as: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    args = [
        str(ROOT / "configs" / (FULL if finetuning_type == "full" else CONFIGS)[stage]),
        *("--model_name_or_path", str(small_run.model)),
        *("--output_dir", str(small_run.folder / "out")),
        *("--prepared_dir", str(small_run.folder / "prepared")),
        *("--finetuning_type", finetuning_type, "--packing", packing),
        *("--max_samples", "12", "--val_size", "4", "--max_steps", "3", "--bf16", "false"),
        *BRIEF.get(stage, ()),
    ]
    run = train_as(resolve_command(read_flags(args)).config)
    assert run.result.finished
    assert run.result.progress.step == 3
    first, last = run.result.first_eval, run.result.last_eval
    assert last["eval_loss"] != first["eval_loss"]
    saved = {path.name for path in run.folder.iterdir()}
    assert saved & {"model.safetensors", "adapter_model.safetensors"}

"""`stage: rm` from a settings file to a model that transformers and peft open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from luthier.core.errors import ModelError
from luthier.recipes.answering import load_answering_model
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.inspection import inspect_run
from luthier.recipes.stages import STAGES

GOOD = ("Red, green and blue.", "Blue and red.", "Green, of course.")
BAD = ("No.", "I will not say.", "Ask somebody else.")
WAYS = [(tuning, packing) for tuning in ("lora", "full") for packing in ("true", "false")]


def pairs(numbers: range) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Name {number} colours.",
            "chosen": GOOD[number % 3],
            "rejected": BAD[number % 2],
        }
        for number in numbers
    ]


@pytest.fixture
def rm_run(small_run: Any, write_file: Any) -> Any:
    """A run on 15 pairs, in which one kind of answer is always the better one."""
    small_run.values |= {
        "stage": "rm",
        "train_file": str(write_file("pairs.json", json.dumps(pairs(range(15))))),
        "val_file": str(write_file("val.json", json.dumps(pairs(range(20, 27))))),
        "num_train_epochs": 4,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 1,
    }
    return small_run


def open_scorer(run: Any, base: Path) -> Any:
    """Open the run's folder without luthier."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    auto: Any = AutoModelForSequenceClassification
    if not (run.folder / "adapter_config.json").is_file():
        return auto.from_pretrained(str(run.folder)).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(str(run.folder))
    model = auto.from_pretrained(str(base), num_labels=1, pad_token_id=tokenizer.pad_token_id)
    return PeftModel.from_pretrained(model, str(run.folder)).eval()


@torch.no_grad()
def rewards(run: Any, base: Path, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return the rewards of both sides as a user of transformers computes them, in one batch."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(run.folder))
    model, found = open_scorer(run, base), {}
    for side in ("chosen", "rejected"):
        chats = [
            [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row[side]},
            ]
            for row in rows
        ]
        inputs = tokenizer.apply_chat_template(
            chats, padding=True, return_tensors="pt", return_dict=True
        )
        found[side] = model(**inputs).logits[:, 0]
    return found


@pytest.mark.parametrize(("finetuning_type", "packing"), WAYS)
def test_from_a_settings_file_to_transformers(rm_run: Any, finetuning_type: str, packing: str):
    # Of packed rows a step takes several pairs.
    epochs = 12 if packing == "true" else 6
    run = rm_run.train(
        "--packing", packing, finetuning_type=finetuning_type, num_train_epochs=epochs
    )
    assert run.result.finished
    assert not run.result.can_chat
    last = run.result.last_eval
    assert last["eval_rewards/accuracies"] == 1.0
    assert last["eval_rewards/margins"] > 1.0
    assert 0 <= last["eval_rewards/calibration_error"] < 0.3
    assert last["eval_loss"] < 0.4
    assert "eval_perplexity" not in last
    assert [m["rewards/accuracies"] for m in run.metrics() if m["kind"] == "train"]
    # What transformers says of the saved model is what the run measured.
    found = rewards(run, rm_run.model, pairs(range(20, 27)))
    for side, values in found.items():
        assert float(values.mean()) == pytest.approx(last[f"eval_rewards/{side}"], rel=1e-4)
    margins = found["chosen"] - found["rejected"]
    assert float(margins.mean()) == pytest.approx(last["eval_rewards/margins"], rel=1e-4)
    with pytest.raises(ModelError, match="gives answers a number and writes none"):
        load_answering_model(str(run.folder))


def test_shared_prompts_and_separate_rows_take_the_same_steps(rm_run: Any):
    runs = [
        rm_run.train("--packing", packing, output_dir=str(rm_run.folder / packing))
        for packing in ("false", "padding_free")
    ]
    separate, shared = (run.losses() for run in runs)
    assert len(separate) == 20
    assert shared == pytest.approx(separate, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("finetuning_type", "bf16"),
    [("lora", False), ("lora", True), ("full", False), ("full", True), ("freeze", False)],
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    rm_run: Any, finetuning_type: str, bf16: bool
):
    settings = {"finetuning_type": finetuning_type, "bf16": bf16}
    whole = rm_run.train(**settings, output_dir=str(rm_run.folder / "whole"))
    rm_run.train(**settings, stop_after=7)
    run = rm_run.train("--resume_from_checkpoint", **settings)
    assert run.screen.started_at == 7
    names = {path.name for path in whole.folder.glob("*.safetensors")}
    assert names
    for name in names:
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert run.result.last_eval["eval_loss"] == whole.result.last_eval["eval_loss"]


def test_activations_are_recomputed_to_the_same_numbers(rm_run: Any):
    runs = [
        rm_run.train(gradient_checkpointing=asked, output_dir=str(rm_run.folder / str(asked)))
        for asked in (True, False)
    ]
    recomputed, kept = (run.losses() for run in runs)
    assert recomputed == pytest.approx(kept, rel=1e-4)


def test_training_goes_on_from_a_reward_model(rm_run: Any):
    first = rm_run.train(finetuning_type="full", output_dir=str(rm_run.folder / "first"))
    again = rm_run.train(
        finetuning_type="full",
        model_name_or_path=str(first.folder),
        output_dir=str(rm_run.folder / "again"),
        max_steps=1,
    )
    assert again.result.first_eval["eval_loss"] == pytest.approx(
        first.result.last_eval["eval_loss"]
    )
    with pytest.raises(ModelError, match="this is a reward model"):
        rm_run.train(
            stage="dpo", model_name_or_path=str(first.folder), output_dir=str(rm_run.folder / "dpo")
        )


def test_margins_and_weights_of_rows_count(rm_run: Any, write_file: Any):
    rows = pairs(range(15))
    losses: list[float] = []
    for name, fields in {"a": {}, "b": {"margin": 2.0}, "c": {"weight": 3.0}}.items():
        file = write_file(f"{name}.json", json.dumps([row | fields for row in rows]))
        folder = str(rm_run.folder / name)
        run = rm_run.train(train_file=str(file), max_steps=1, output_dir=folder)
        losses += run.losses()[:1]
    plain, with_margin, weighed = losses
    assert plain == pytest.approx(0.69, abs=0.1)
    assert with_margin == pytest.approx(2.13, abs=0.2), "-log sigmoid(-2)"
    assert weighed == pytest.approx(plain)


def test_a_pad_token_that_ends_answers_is_replaced(rm_run: Any, tiny_llama: Any, load_tiny: Any):
    tokenizer = load_tiny("chatml")
    tokenizer.pad_token = tokenizer.eos_token
    # Without the line break that chatml writes behind it, answers end with this very token.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "'<|im_end|>' + '\\n'", "'<|im_end|>'"
    )
    rm_run.model = tiny_llama("odd", tokenizer=tokenizer)
    run = rm_run.train(model_name_or_path=str(rm_run.model), finetuning_type="full")
    assert any(notice.setting == "pad_token" for notice in run.screen.notices)
    last = run.result.last_eval
    for side, values in rewards(run, rm_run.model, pairs(range(20, 27))).items():
        assert float(values.mean()) == pytest.approx(last[f"eval_rewards/{side}"], rel=1e-4)


def test_a_base_without_a_class_for_it(rm_run: Any, tmp_path: Path, load_tiny: Any, recorder: Any):
    from transformers import GraniteConfig, GraniteForCausalLM

    tokenizer = load_tiny("chatml")
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = GraniteConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, num_key_value_heads=2, **sizes
    )
    GraniteForCausalLM(config).save_pretrained(str(tmp_path / "granite"))
    tokenizer.save_pretrained(str(tmp_path / "granite"))
    name = str(tmp_path / "granite")
    with pytest.raises(ModelError, match="no sequence classification for models of type granite"):
        rm_run.train(model_name_or_path=name)
    with pytest.raises(ModelError, match="no sequence classification for models of type granite"):
        inspect_run(rm_run.config(model_name_or_path=name), recorder, 1)


def test_it_can_be_looked_at_beforehand(rm_run: Any, recorder: Any):
    inspection = inspect_run(rm_run.config(), recorder, 2)
    trained = rm_run.train(max_steps=1).screen.parameters
    assert inspection.shape.parameters == trained


def test_the_head_is_drawn_by_the_seed(rm_run: Any):
    heads = []
    for number, seed in enumerate((1, 1, 2)):
        folder = str(rm_run.folder / str(number))
        run = rm_run.train(
            seed=seed, finetuning_type="full", max_steps=1, learning_rate=1e-12, output_dir=folder
        )
        heads.append(load_file(run.folder / "model.safetensors")["score.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.allclose(heads[0], heads[2], atol=1e-3)


@pytest.mark.parametrize("name", ["rm_lora", "rm_full"])
def test_the_settings_files_that_are_shipped(name: str):
    config = resolve_file(Path(__file__).parents[2] / "configs" / f"{name}.yaml").config
    assert config.run.stage == "rm"
    assert STAGES[config.run.stage].model_kind == "reward"

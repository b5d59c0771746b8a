"""What is saved opens in transformers and in peft, as it is and from anywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.models.adapters import apply_tuning
from luthier.models.load import load_model
from luthier.models.save import save_model, take_model
from luthier.models.settings import (
    FreezeTuning,
    FullTuning,
    LoraTuning,
    ModelSettings,
    QuantizationSettings,
)

Make = Callable[..., Any]
IDS = torch.tensor([[1, 5, 6, 7]])


def load(folder: Path | str) -> Any:
    return load_model(
        ModelSettings(model_name_or_path=str(folder)),
        QuantizationSettings(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    ).model


def shaken(model: Any) -> Any:
    """Change everything that is trained, so that a save that forgets it is noticed."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@torch.no_grad()
def logits_of(model: Any) -> torch.Tensor:
    return model.eval()(IDS).logits


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_full_model_opens_in_transformers(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_folder("base", kind)
    model = shaken(apply_tuning(load(base), FullTuning()))
    out = tmp_path / "new" / "run"
    save_model(model, word_tokenizer, out, [3, 2])
    opened: Any = AutoModelForCausalLM.from_pretrained(str(out))
    assert torch.equal(logits_of(opened), logits_of(model))
    assert opened.generation_config.eos_token_id == [3, 2]
    assert opened.generation_config.pad_token_id == 0
    tokenizer: Any = AutoTokenizer.from_pretrained(str(out))
    assert tokenizer.chat_template == word_tokenizer.chat_template
    assert tokenizer("w1 w2").input_ids == word_tokenizer("w1 w2").input_ids
    before, after = (json.loads((f / "config.json").read_text()) for f in (base, out))
    assert after == before, "training changes weights and nothing else of the model"


def test_an_adapter_opens_in_peft_from_anywhere(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = make_folder("base")
    monkeypatch.chdir(tmp_path)
    model = shaken(apply_tuning(load("./base"), LoraTuning(lora_rank=4)))
    save_model(model, word_tokenizer, Path("out"), [3])
    config = json.loads(Path("out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder.resolve())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = str(tmp_path / "out")
    opened: Any = AutoPeftModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits_of(opened), logits_of(model))
    through_transformers: Any = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(logits_of(through_transformers), logits_of(model))
    assert GenerationConfig.from_pretrained(out).eos_token_id == [3]
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == word_tokenizer.chat_template
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_adapter_of_a_hub_model_keeps_its_name(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    model = apply_tuning(make_model(), LoraTuning())
    model.peft_config["default"].base_model_name_or_path = "owner/name"
    save_model(model, word_tokenizer, tmp_path / "out", [3])
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/name"


def test_a_base_that_is_gone_does_not_lose_the_adapter(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    folder = make_folder("base")
    model = apply_tuning(load(folder), LoraTuning())
    shutil.rmtree(folder)
    save_model(model, word_tokenizer, tmp_path / "out", [3])
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("lora", [False, True])
def test_sampling_settings_that_contradict_do_not_stop_the_save(
    make_model: Make, word_tokenizer: Any, tmp_path: Path, lora: bool
) -> None:
    base = make_model()
    base.generation_config.do_sample = False
    contradictions = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1}
    contradictions |= {"typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01, "top_h": 0.5}
    for name, value in contradictions.items():
        setattr(base.generation_config, name, value)
    model = apply_tuning(base, LoraTuning() if lora else FullTuning())
    save_model(model, word_tokenizer, tmp_path / "out", [3])
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert not contradictions.keys() & {name for name, value in saved.items() if value is not None}


def test_sampling_settings_that_are_used_are_kept(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    model = make_model()
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9)
    save_model(model, word_tokenizer, tmp_path / "out", [3])
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (saved["do_sample"], saved["temperature"], saved["top_p"]) == (True, 0.6, 0.9)


def test_saving_again_replaces(make_model: Make, word_tokenizer: Any, tmp_path: Path) -> None:
    model = make_model()
    save_model(model, word_tokenizer, tmp_path, [3])
    shaken(model)
    save_model(model, word_tokenizer, tmp_path, [3])
    assert torch.equal(logits_of(load(tmp_path)), logits_of(model))


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


TUNINGS = {
    "full": FullTuning(),
    "freeze": FreezeTuning(freeze_trainable_layers=1),
    "lora": LoraTuning(lora_rank=4),
    "dora": LoraTuning(lora_rank=4, use_dora=True),
    "whole module": LoraTuning(lora_rank=4, additional_target=["lm_head"]),
}


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_copy_is_the_model_of_that_moment(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, tuning: str, kind: str
) -> None:
    """What is written later has the very bytes of what is written at once."""
    model = shaken(apply_tuning(load(make_folder("base", kind)), TUNINGS[tuning]))
    save_model(model, word_tokenizer, tmp_path / "at once", [3])
    copy = take_model(model, word_tokenizer, [3], as_copy=True)
    plain = take_model(model, word_tokenizer, [3])
    before = logits_of(model)
    assert not torch.equal(logits_of(shaken(model)), before)
    copy.write(tmp_path / "later")
    plain.write(tmp_path / "changed")
    assert hashes(tmp_path / "later") == hashes(tmp_path / "at once")
    weights = "model" if tuning in ("full", "freeze") else "adapter_model"
    name = f"{weights}.safetensors"
    assert hashes(tmp_path / "changed")[name] != hashes(tmp_path / "at once")[name]
    size = (tmp_path / "later" / name).stat().st_size
    assert 0 < size - copy.num_bytes < 10_000, "all but the header"
    assert plain.num_bytes == copy.num_bytes


def test_only_what_is_trained_is_copied(make_model: Make, word_tokenizer: Any) -> None:
    """A frozen base takes no memory twice."""
    model = apply_tuning(make_model(), LoraTuning(lora_rank=1))
    adapter = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    assert take_model(model, word_tokenizer, [3], as_copy=True).num_bytes == adapter


@pytest.mark.parametrize("extra", [[], ["lm_head"]], ids=["layers", "head"])
def test_an_adapter_is_what_peft_itself_would_write(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, extra: list[str]
) -> None:
    tuning = LoraTuning(lora_rank=4, additional_target=extra)
    model = shaken(apply_tuning(load(make_folder("base")), tuning))
    model.save_pretrained(str(tmp_path / "peft"))
    save_model(model, word_tokenizer, tmp_path / "ours", [3])
    ours, theirs = hashes(tmp_path / "ours"), hashes(tmp_path / "peft")
    name = "adapter_model.safetensors"
    assert ours[name] == theirs[name]

    def config(folder: str) -> dict[str, Any]:
        values = json.loads((tmp_path / folder / "adapter_config.json").read_text())
        return values | {"target_modules": sorted(values["target_modules"])}

    assert config("ours") == config("peft")
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(written["target_modules"])
    assert model.peft_config["default"].inference_mode is False, "the live one is left alone"


def test_an_adapter_of_a_stranger_says_what_it_is_for(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    model = apply_tuning(make_model(), LoraTuning())
    model.peft_config["default"].task_type = None
    save_model(model, word_tokenizer, tmp_path / "out", [3])
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"

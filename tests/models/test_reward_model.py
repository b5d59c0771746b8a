"""A reward model is loaded, tuned, saved and opened again: by luthier, by transformers, by peft."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import ModelError
from luthier.models.adapters import apply_tuning
from luthier.models.load import load_model
from luthier.models.reward_model import (
    ModelKind,
    auto_class,
    check_kind,
    is_scorer,
    kind_of,
    settle_padding,
    settle_scorer,
)
from luthier.models.save import save_model, take_model
from luthier.models.settings import (
    FreezeTuning,
    FullTuning,
    LoraTuning,
    ModelSettings,
    QuantizationSettings,
)

Make = Callable[..., Any]
ROWS = [[4, 9, 11, 5], [7, 8]]
PADDED = torch.tensor([[4, 9, 11, 5], [7, 8, 0, 0]])


def load(
    folder: Path | str,
    kind: ModelKind = "reward",
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
    weights_from: str | None = None,
) -> Any:
    torch.manual_seed(seed)
    return load_model(
        ModelSettings(model_name_or_path=str(folder)),
        QuantizationSettings(),
        device=torch.device("cpu"),
        dtype=dtype,
        weights_from=weights_from,
        kind=kind,
    ).model


@torch.no_grad()
def rewards(model: Any) -> torch.Tensor:
    """Return transformers' own rewards of rows without any padding."""
    model.eval()
    return torch.cat([model(torch.tensor([row])).logits[:, 0] for row in ROWS])


def shaken(model: Any) -> Any:
    """Change everything that is trained, so that a save that forgets it is noticed."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def trained(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_of_a_language_model_with_a_head_by_the_seed(make_folder: Make, make_model: Make) -> None:
    folder = make_folder()
    model, again, other = load(folder), load(folder), load(folder, seed=2)
    assert model.score.weight.shape == (1, 16)
    assert torch.equal(model.score.weight, again.score.weight)
    assert not torch.equal(model.score.weight, other.score.weight)
    body = make_model().model.state_dict()
    assert all(torch.equal(weight, body[n]) for n, weight in model.model.state_dict().items())
    assert (kind_of(model), kind_of(load(folder, "causal_lm"))) == ("reward", "causal_lm")
    assert kind_of(apply_tuning(model, LoraTuning())) == "reward"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma", "gemma3", "gpt2"])
def test_a_full_model_opens_in_transformers_and_here(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = shaken(apply_tuning(load(make_folder("base", kind)), FullTuning()))
    assert "score.weight" in trained(model)
    out = tmp_path / "out"
    save_model(model, word_tokenizer, out, [3])
    assert not (out / "generation_config.json").exists()
    opened: Any = AutoModelForSequenceClassification.from_pretrained(str(out))
    assert opened.config.num_labels == 1
    torch.testing.assert_close(rewards(opened), rewards(model), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        padded = opened(PADDED, attention_mask=(PADDED != 0).long()).logits[:, 0]
    torch.testing.assert_close(padded, rewards(model), rtol=1e-5, atol=1e-6)
    again = load(out, seed=5)
    other = load(make_folder("b", kind), weights_from=str(out))
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), "its head is kept"
        assert torch.equal(other.state_dict()[name], weight)


@pytest.mark.parametrize("tuning", [LoraTuning(), LoraTuning(lora_target="q_proj,v_proj")])
def test_an_adapter_opens_in_peft_and_here(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, tuning: LoraTuning
) -> None:
    from peft import AutoPeftModelForSequenceClassification, PeftModel

    base = make_folder("base")
    model = shaken(apply_tuning(load(base), tuning))
    whole = {name for name in trained(model) if "lora_" not in name}
    assert whole == {"base_model.model.score.modules_to_save.default.weight"}
    assert not any("score" in name and "lora_" in name for name, _ in model.named_parameters())
    out = tmp_path / "out"
    save_model(model, word_tokenizer, out, [3])
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score", "classifier"])
    # The head of the base that it is opened on is another: the adapter brings its own.
    torch.manual_seed(99)
    opened: Any = AutoPeftModelForSequenceClassification.from_pretrained(str(out), num_labels=1)
    assert torch.equal(rewards(opened), rewards(model))
    on_base = auto_class("reward").from_pretrained(str(base), num_labels=1, pad_token_id=0)
    opened = PeftModel.from_pretrained(on_base, str(out)).eval()
    with torch.no_grad():
        padded = opened(input_ids=PADDED, attention_mask=(PADDED != 0).long()).logits[:, 0]
    torch.testing.assert_close(padded, rewards(model), rtol=1e-5, atol=1e-6)
    again = apply_tuning(load(base, seed=5), LoraTuning(), str(out))
    assert torch.equal(rewards(again), rewards(model))
    assert trained(again) == trained(model)
    files = [out, tmp_path / "again"]
    save_model(again, word_tokenizer, files[1], [3])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert files[0].joinpath(name).read_bytes() == files[1].joinpath(name).read_bytes()


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_that_begin_with_a_part_of_the_base(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path, init: str
) -> None:
    from peft import AutoPeftModelForSequenceClassification

    base, out = make_folder("base"), tmp_path / "out"
    model = shaken(apply_tuning(load(base), LoraTuning(lora_init=init, lora_rank=2)))
    save_model(model, word_tokenizer, out, [3])
    opened: Any = AutoPeftModelForSequenceClassification.from_pretrained(str(out), num_labels=1)
    torch.testing.assert_close(rewards(opened), rewards(model), rtol=1e-4, atol=1e-5)
    tuning = LoraTuning(lora_rank=2)
    again = apply_tuning(load(base, seed=5), tuning, str(out), is_checkpoint=True)
    assert torch.equal(rewards(again), rewards(model))


def test_the_head_of_a_narrow_base_is_trained_in_float32(make_folder: Make) -> None:
    model = apply_tuning(load(make_folder(), dtype=torch.bfloat16), LoraTuning())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_freeze_trains_its_layers_and_the_head(make_folder: Make) -> None:
    model = apply_tuning(load(make_folder()), FreezeTuning(freeze_trainable_layers=1))
    assert {n for n in trained(model) if not n.startswith("model.layers.2.")} == {"score.weight"}
    assert any(n.startswith("model.layers.2.") for n in trained(model))


def test_a_copy_is_taken_of_what_is_trained(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    model = shaken(apply_tuning(load(make_folder()), LoraTuning()))
    expected = rewards(model)
    taken = take_model(model, word_tokenizer, [3], as_copy=True)
    shaken(model)
    taken.write(tmp_path / "out")
    again = apply_tuning(load(make_folder()), LoraTuning(), str(tmp_path / "out"))
    assert torch.equal(rewards(again), expected)
    assert not torch.equal(rewards(model), expected)


def test_a_language_models_adapter_is_merged_and_not_trained_on(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    base = make_folder("base")
    writer = shaken(apply_tuning(load(base, "causal_lm"), LoraTuning()))
    sft = tmp_path / "sft"
    save_model(writer, word_tokenizer, sft, [3])
    with pytest.raises(ModelError, match="a language model's, and brings no head") as caught:
        apply_tuning(load(base), LoraTuning(), str(sft))
    assert "create_new_adapter: true" in str(caught.value)
    model = apply_tuning(load(base), LoraTuning(), merged=[str(sft)]).eval()
    ids = torch.tensor([ROWS[0]])
    with torch.no_grad():
        found = model.get_base_model().base_model(ids).last_hidden_state
        expected = writer.get_base_model().base_model(ids).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    scorer = tmp_path / "rm"
    save_model(shaken(model), word_tokenizer, scorer, [3])
    from peft import AutoPeftModelForSequenceClassification

    opened: Any = AutoPeftModelForSequenceClassification.from_pretrained(str(scorer), num_labels=1)
    torch.testing.assert_close(rewards(opened), rewards(model), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="a reward model's: it gives answers a number"):
        apply_tuning(load(base, "causal_lm"), LoraTuning(), str(scorer))


def test_a_reward_model_writes_no_text(
    make_folder: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    save_model(load(make_folder(tie_word_embeddings=True)), word_tokenizer, out, [3])
    with pytest.raises(ModelError, match="this is a reward model: it gives answers a number"):
        load(out, "causal_lm")


def test_other_classifiers_are_refused(make_folder: Make, tmp_path: Path) -> None:
    sorter = auto_class("reward").from_pretrained(str(make_folder()), num_labels=3)
    sorter.save_pretrained(str(tmp_path / "sorter"))
    with pytest.raises(ModelError, match="sorts texts into 3 classes, a reward model gives one"):
        load(tmp_path / "sorter")


def test_a_reward_model_without_its_head_is_incomplete(make_folder: Make) -> None:
    folder = make_folder(architectures=["LlamaForSequenceClassification"], num_labels=1)
    with pytest.raises(ModelError, match=r"weights of 1 parameters are missing, such as score"):
        load(folder)


def test_families_that_transformers_has_no_classifier_for() -> None:
    from transformers import GraniteConfig, T5Config

    with pytest.raises(ModelError, match="no sequence classification for models of type granite"):
        check_kind(GraniteConfig(), "reward", "here")
    with pytest.raises(ModelError, match="it has an encoder and a decoder") as caught:
        check_kind(T5Config(), "reward", "here")
    assert "Choose a base of another family, such as Llama" in str(caught.value)
    assert caught.value.where == "here"


def test_heads_of_another_make_are_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertLMHeadModel

    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=32, **sizes))
    with pytest.raises(ModelError, match="BertForSequenceClassification has no linear head named"):
        settle_scorer(model, "here")
    BertLMHeadModel(BertConfig(vocab_size=32, **sizes)).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="has no linear head named score"):
        load(tmp_path)


def test_every_tokens_embedding_is_trained(make_folder: Make) -> None:
    """So that a run that goes on from a checkpoint, whose config has a pad token, is the same."""
    model = load(make_folder())
    assert model.config.pad_token_id == 0
    model(torch.tensor([[0, 5, 6]])).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_what_is_saved_knows_the_pad_token(make_folder: Make, word_tokenizer: Any) -> None:
    model = load(make_folder())
    word_tokenizer.pad_token = "w13"
    settle_padding(model, word_tokenizer)
    assert model.config.pad_token_id == word_tokenizer.convert_tokens_to_ids("w13") != 0
    assert is_scorer(model.config) is False, "not before it is saved as one"

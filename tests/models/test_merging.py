"""A merged model says what base and adapter said, quantised or not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from luthier.core.errors import ModelError
from luthier.models.adapters import apply_tuning
from luthier.models.load import load_model
from luthier.models.merging import merge_adapter
from luthier.models.save import save_model
from luthier.models.settings import LoraTuning, ModelSettings, QuantizationSettings
from luthier.models.vocabulary import add_token_rows

Make = Callable[..., Any]
IDS = torch.arange(24).reshape(2, 12) + 3

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'luthier[bnb]'",
)


def log_probs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float().log_softmax(-1)


def divergence(model: Any, other: torch.Tensor) -> float:
    return float(F.kl_div(log_probs(model), other, log_target=True, reduction="sum") / IDS.numel())


def with_adapter(model: Any, tuning: LoraTuning, tokens: tuple[int, ...] = ()) -> Any:
    """Return a model with an adapter that says something else than its base."""
    add_token_rows(model, tokens)
    tuned = apply_tuning(model, tuning, new_token_ids=tokens)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return tuned


@pytest.mark.parametrize(
    "tuning",
    [
        LoraTuning(),
        LoraTuning(use_dora=True),
        LoraTuning(use_rslora=True, lora_init="pissa"),
        LoraTuning(additional_target="lm_head"),
    ],
    ids=["lora", "dora", "pissa", "head"],
)
def test_the_sum_is_what_its_parts_were(
    make_model: Make, word_tokenizer: Any, tmp_path: Path, tuning: LoraTuning
) -> None:
    tuned = with_adapter(make_model(initializer_range=0.3), tuning)
    save_model(tuned, word_tokenizer, tmp_path, [2])
    expected = log_probs(tuned)
    base = make_model(initializer_range=0.3)
    assert divergence(base, expected) > 1e-2
    merged = merge_adapter(base, str(tmp_path))
    assert divergence(merged, expected) < 1e-6
    assert not hasattr(merged, "peft_config")
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def test_rows_of_new_tokens_are_merged_too(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    tuned = with_adapter(make_model("gemma"), LoraTuning(), tokens=(32, 33))
    save_model(tuned, word_tokenizer, tmp_path, [2])
    base = make_model("gemma")
    add_token_rows(base, (32, 33))
    merged = merge_adapter(base, str(tmp_path))
    assert divergence(merged, log_probs(tuned)) < 1e-6
    assert merged.lm_head.weight is merged.get_input_embeddings().weight


def test_a_reward_model_is_merged_too(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import LlamaForSequenceClassification

    def reward_model() -> Any:
        config = make_model(num_labels=1).config
        torch.manual_seed(0)
        return LlamaForSequenceClassification(config).eval()

    tuned = with_adapter(reward_model(), LoraTuning())
    save_model(tuned, word_tokenizer, tmp_path, [2])
    merged = merge_adapter(reward_model(), str(tmp_path))
    with torch.no_grad():
        expected, found = tuned.eval()(IDS).logits, merged(IDS).logits
    assert found.shape == (2, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_narrow_base_is_widened_first(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    tuned = with_adapter(make_model().bfloat16(), LoraTuning())
    save_model(tuned, word_tokenizer, tmp_path, [2])
    merged = merge_adapter(make_model().bfloat16(), str(tmp_path))
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    widened = apply_tuning(make_model().bfloat16().float(), LoraTuning(), str(tmp_path))
    assert divergence(merged, log_probs(widened)) < 1e-6


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_half_of_a_tie_can_not_be_merged(make_model: Make, tmp_path: Path, target: str) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM")
    get_peft_model(make_model("gemma"), config).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="which are one matrix in its base"):
        merge_adapter(make_model("gemma"), str(tmp_path))


@needs_bitsandbytes
@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"quantization_bit": 4}, 1e-4),
        ({"quantization_bit": 4, "bnb_4bit_quant_type": "fp4"}, 1e-4),
        ({"quantization_bit": 4, "bnb_4bit_use_double_quant": False}, 1e-4),
        # LLM.int8 rounds the inputs of each product, too: no plain model computes the same.
        ({"quantization_bit": 8}, 1e-3),
    ],
    ids=["nf4", "fp4", "nf4 once quantised", "int8"],
)
def test_a_quantised_base_is_expanded_before_it_is_merged(
    make_model: Make, word_tokenizer: Any, tmp_path: Path, settings: dict[str, Any], limit: float
) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    make_model(**sizes).save_pretrained(str(tmp_path / "base"))
    quantization = QuantizationSettings.model_validate(settings)

    def load(quantised: bool = True) -> Any:
        return load_model(
            ModelSettings(model_name_or_path=str(tmp_path / "base")),
            quantization if quantised else QuantizationSettings(),
            device=torch.device("cpu"),
            dtype=torch.float32,
        ).model

    tuned = with_adapter(load(), LoraTuning())
    save_model(tuned, word_tokenizer, tmp_path / "run", [2])
    expected = log_probs(tuned)
    merged = merge_adapter(load(), str(tmp_path / "run"))
    assert divergence(merged, expected) < limit
    # Without the adapter, and on the base as it was, it is something else; 8 bits come close.
    assert divergence(load(), expected) > 3 * limit
    if quantization.bits == 4:
        assert divergence(merge_adapter(load(False), str(tmp_path / "run")), expected) > 3 * limit
        assert divergence(tuned.merge_and_unload(), expected) > 3 * limit, "peft by itself"
    merged.save_pretrained(str(tmp_path / "merged"))
    from transformers import AutoModelForCausalLM

    opened: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    assert type(opened.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert torch.equal(log_probs(opened), log_probs(merged))

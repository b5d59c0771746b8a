"""Which models can be packed, told from their configs; and the trial on a loaded model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from luthier.models.packing_support import causal_class, check_packed, packing_support
from luthier.models.segments import SEGMENTS, register_segments

TINY: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize(
    "config",
    [
        hf.LlamaConfig(),
        hf.Qwen2Config(),
        hf.Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=2),
        hf.Qwen3Config(),
        hf.Qwen3MoeConfig(),
        hf.GemmaConfig(),
        hf.Gemma2Config(),
        hf.Gemma3TextConfig(),
        hf.GptOssConfig(),
        hf.MistralConfig(),
        hf.MixtralConfig(),
        hf.Phi3Config(),
        hf.Llama4TextConfig(),
        hf.GPT2Config(),
        hf.OlmoConfig(),
    ],
    ids=lambda config: config.model_type,
)
def test_segments(config: Any) -> None:
    support = packing_support(config)
    assert (support.kind, support.reason) == ("segments", "each segment by itself")
    assert support.notice("auto") is None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (hf.MambaConfig(), "takes no position ids"),
        (hf.Mamba2Config(), "takes no position ids"),
        (hf.RwkvConfig(), "takes no position ids"),
        (hf.JambaConfig(), "layers of type linear_attention"),
        (hf.BambaConfig(), "layers of type linear_attention"),
        (hf.Qwen3NextConfig(), "layers of type linear_attention"),
        (hf.GraniteMoeHybridConfig(), "layers of type linear_attention"),
        (
            hf.Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]),
            "layers of type conv",
        ),
        (hf.FalconH1Config(), "layers of type hybrid"),
        (hf.RecurrentGemmaConfig(), "layers of type linear_attention"),
        (hf.DeepseekV32Config(), "layers of type indexed_attention"),
        (hf.BartConfig(), "an encoder and a decoder"),
        (hf.T5Config(), "an encoder and a decoder"),
        (hf.BertConfig(), "attention is not causal"),
        (hf.BloomConfig(), "takes no position ids"),
        (hf.MptConfig(), "takes no position ids"),
        (hf.FalconConfig(alibi=True), "computes attention by itself"),
        (hf.BioGptConfig(), "computes attention by itself"),
        (hf.ViTConfig(), "no causal language model of type vit"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_refused(config: Any, reason: str) -> None:
    support = packing_support(config)
    assert support.kind == "none"
    assert reason in support.reason
    notice = support.notice("auto")
    assert notice is not None
    assert (notice.setting, notice.asked, notice.used) == ("packing", "auto", "false")


def test_a_stateful_class_is_refused_whatever_its_config_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert causal_class(hf.LlamaConfig()) is hf.LlamaForCausalLM
    monkeypatch.setattr(hf.LlamaForCausalLM, "_is_stateful", True)
    support = packing_support(hf.LlamaConfig())
    assert (support.kind, support.reason[:32]) == ("none", "the model has recurrent layers, ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", [SEGMENTS, "sdpa", "eager"])
def test_the_trial_passes_where_segments_are_kept_apart(attention: str, dtype: torch.dtype) -> None:
    register_segments()
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(
        hf.LlamaConfig(**TINY, attention_dropout=0.5), attn_implementation=attention
    )
    model.to(dtype).train()
    state = torch.get_rng_state()
    assert check_packed(model) is None
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_the_trial_finds_documents_that_see_each_other() -> None:
    # BioGPT's mask doesn't look at the position ids.
    torch.manual_seed(0)
    tiny = {name: value for name, value in TINY.items() if name != "num_key_value_heads"}
    model = hf.BioGptForCausalLM(hf.BioGptConfig(**tiny))
    found = check_packed(model)
    assert found is not None
    assert found.startswith("packed documents see each other in this model (logits differ by ")


def test_the_trial_tells_an_error_of_the_model() -> None:
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, **inputs: Any) -> Any:
            raise ValueError("no such argument\nmore")

    found = check_packed(Broken())
    assert found == "a packed row fails in this model: no such argument"

"""A decoder in two parts: they give what the whole gives, and what can't be cut is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf

from luthier.models.compiled_layers import compile_layers, missing_compiler
from luthier.models.layer_split import LayerSplit, frozen_depth, split_decoder
from luthier.models.segments import SEGMENTS, packed_inputs, register_segments

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, {}),
    "qwen2": (
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    ),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, {"head_dim": 8}),
    "gemma": (hf.GemmaForCausalLM, hf.GemmaConfig, {"head_dim": 8}),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, {"head_dim": 8, "sliding_window": 6}),
    "gemma3": (
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig,
        {
            "head_dim": 8,
            "sliding_window": 6,
            # Below and above the cut, the kinds of layers come in different orders.
            "layer_types": [
                *("sliding_attention", "full_attention", "full_attention"),
                *("sliding_attention", "full_attention"),
            ],
        },
    ),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, {"sliding_window": 6}),
    "phi": (hf.PhiForCausalLM, hf.PhiConfig, {}),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig, {"embedding_multiplier": 12.0}),
}
IDS = torch.arange(1, 25).reshape(2, 12)


@pytest.fixture
def frozen_model() -> Callable[..., Any]:
    """Make a tiny model whose last two layers are trained."""

    def make(family: str = "llama", attention: str = "eager", trained: int = 2, **more: Any) -> Any:
        register_segments()
        kind, config, own = FAMILIES[family]
        torch.manual_seed(0)
        settings = config(**{**SIZES, **own, **more}, attn_implementation=attention)
        model = kind(settings).requires_grad_(False)
        model.model.layers[-trained:].requires_grad_(True)
        return model

    return make


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"granite"}))
def test_the_parts_give_what_the_whole_gives(family: str, frozen_model: Callable[..., Any]):
    model = frozen_model(family)
    split = split_decoder(model.model)
    assert isinstance(split, LayerSplit)
    assert (split.depth, split.token_bytes) == (3, 32 * 4)
    # Longer than the windows, so that a layer under the wrong mask would differ.
    mask = torch.ones_like(IDS)
    mask[1, 9:] = 0
    inputs = {"input_ids": IDS, "attention_mask": mask}
    expected = model.model(**inputs).last_hidden_state
    found = split.run_upper(split.run_lower(inputs), inputs).last_hidden_state
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3", "mistral"])
def test_the_parts_give_what_the_whole_gives_of_a_packed_row(
    family: str, frozen_model: Callable[..., Any]
):
    model = frozen_model(family, SEGMENTS)
    split = split_decoder(model.model, packed=True)
    assert isinstance(split, LayerSplit)
    positions = torch.cat([torch.arange(15), torch.arange(9)])[None]
    ends = torch.tensor([0, 15, 24])
    inputs = packed_inputs(
        {"input_ids": IDS.reshape(1, 24), "position_ids": positions, "cu_seqlens": ends}
    )
    expected = model.model(**inputs, use_cache=False).last_hidden_state
    found = split.run_upper(split.run_lower(inputs), inputs).last_hidden_state
    assert torch.equal(found, expected)


def test_the_model_stays_as_it_was(frozen_model: Callable[..., Any]):
    model = frozen_model()
    model.train()
    model.model.layers[1].eval()
    names, config = list(model.state_dict()), model.config.to_dict()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    split = split_decoder(model.model)
    assert isinstance(split, LayerSplit)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert list(model.state_dict()) == names
    assert model.config.to_dict() == config
    assert len(model.model.layers) == 5
    # No weight exists twice.
    assert {id(p) for p in split.upper.parameters()} <= {id(p) for p in model.parameters()}


def test_gradients_reach_the_upper_layers_alone(frozen_model: Callable[..., Any]):
    model = frozen_model()
    model.train()
    split = split_decoder(model.model)
    assert isinstance(split, LayerSplit)
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    split.run_upper(split.run_lower(inputs), inputs).last_hidden_state.sum().backward()
    assert split.upper.training
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    assert got == {n for n, p in model.named_parameters() if p.requires_grad}


def test_depth(frozen_model: Callable[..., Any]):
    model = frozen_model(trained=1)
    assert frozen_depth(model.model) == 4
    model.model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    assert frozen_depth(model.model) == 1
    model.requires_grad_(False)
    assert frozen_depth(model.model) == 5
    assert frozen_depth(torch.nn.Linear(1, 1)) == 0


def test_no_frozen_layer_below(frozen_model: Callable[..., Any]):
    reason = "no layer is frozen below a trained one"
    assert split_decoder(frozen_model(trained=5).model) == reason
    nothing_trained = frozen_model()
    nothing_trained.requires_grad_(False)
    assert split_decoder(nothing_trained.model) == reason


def test_no_list_of_layers(make_model: Callable[..., Any]):
    reason = split_decoder(make_model("gpt2").transformer)
    assert reason == "GPT2Model has no list of layers that could be cut"


def test_a_trained_embedding(frozen_model: Callable[..., Any]):
    model = frozen_model()
    model.model.embed_tokens.weight.requires_grad_(True)
    assert split_decoder(model.model) == "something below layer 3 is trained too"


def test_a_trained_norm_above_is_no_obstacle(frozen_model: Callable[..., Any]):
    model = frozen_model()
    model.model.norm.weight.requires_grad_(True)
    assert isinstance(split_decoder(model.model), LayerSplit)


@pytest.mark.parametrize(
    ("family", "setting"), [("llama", "attention_dropout"), ("phi", "resid_pdrop")]
)
def test_dropout_in_the_config(family: str, setting: str, frozen_model: Callable[..., Any]):
    reason = split_decoder(frozen_model(family, **{setting: 0.25}).model)
    assert isinstance(reason, str)
    assert reason.startswith("its frozen layers have dropout (")
    assert reason.endswith("dropout 0.25), new at each pass")


def test_dropout_that_only_shows(frozen_model: Callable[..., Any]):
    model = frozen_model()

    def noisy(module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + torch.rand(output.shape) if module.training else output

    model.model.layers[1].register_forward_hook(noisy)
    assert split_decoder(model.model) == "its frozen layers have dropout or noise, new at each pass"


def test_rows_that_see_each_other(frozen_model: Callable[..., Any]):
    model = frozen_model()

    def mixing(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + output.mean(0, keepdim=True)

    model.model.layers[1].register_forward_hook(mixing)
    reason = split_decoder(model.model)
    assert reason == "a row's hidden states depend on the rows beside it"


def test_a_class_that_scales_what_it_is_given(frozen_model: Callable[..., Any]):
    # Granite multiplies its embeddings after `inputs_embeds` came in: hidden states would be, too.
    reason = split_decoder(frozen_model("granite").model)
    assert reason == "its upper layers alone give other hidden states"


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_longest_row(kind: str, frozen_model: Callable[..., Any]):
    model = frozen_model()
    model.config.rope_parameters = {"full_attention": {"rope_type": kind}}
    reason = split_decoder(model.model)
    assert reason == f"its positions ({kind}) depend on the longest row of the batch"


def test_layers_that_count_from_the_start_of_a_packed_row(frozen_model: Callable[..., Any]):
    model = frozen_model("gemma3")
    model.config.layer_types[1] = "chunked_attention"
    reason = split_decoder(model.model)
    assert reason == "layers of type chunked_attention may depend on a row's place in its batch"


class SharesLayers(hf.LlamaModel):
    """A class with a tensor of its own that depends on the number of layers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.extra = torch.nn.ParameterDict(
            {str(n): torch.nn.Parameter(torch.ones(1)) for n in range(config.num_hidden_layers)}
        )
        self.register_buffer(f"of_{config.num_hidden_layers}", torch.ones(1))


class ChangesKinds(hf.LlamaModel):
    """A class whose last layer has to be of one kind, as Gemma 4's."""

    def __init__(self, config: Any) -> None:
        config.layer_types = [*config.layer_types[:-1], "full_attention"]
        super().__init__(config)


class NeedsIds(hf.LlamaModel):
    """A class that reads the token ids above the embedding, too."""

    def forward(self, *arguments: Any, **inputs: Any) -> Any:
        if "input_ids" not in inputs:
            raise ValueError("token ids are needed\nas Gemma 3n needs them")
        return super().forward(*arguments, **inputs)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SharesLayers, "a part of it is made from the number of layers"),
        (ChangesKinds, "its class changes the kinds of layers with their number"),
        (NeedsIds, "token ids are needed"),
    ],
)
def test_a_class_that_is_more_than_its_layers(kind: Any, reason: str):
    kinds = ["sliding_attention"] * 4 + ["full_attention"]
    settings: dict[str, Any] = {**SIZES, "layer_types": kinds}
    config = hf.LlamaConfig(**settings)
    decoder = kind(config).requires_grad_(False)
    decoder.layers[-2:].requires_grad_(True)
    assert split_decoder(decoder) == f"{kind.__name__} can't be cut: {reason}"


def test_recomputed_activations_are_no_obstacle(frozen_model: Callable[..., Any]):
    # transformers then lets the embedding's output ask for a gradient, though nothing there learns.
    model = frozen_model()
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert isinstance(split_decoder(model.model), LayerSplit)
    model.model.embed_tokens.weight.requires_grad_(True)
    assert split_decoder(model.model) == "something below layer 3 is trained too"


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler("cpu") is not None, reason="no compiler")
def test_compiled_layers_are_compiled_once(frozen_model: Callable[..., Any]):
    model = frozen_model()
    split = split_decoder(model.model)
    assert isinstance(split, LayerSplit)
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    expected = model.model(**inputs).last_hidden_state
    compile_layers(model, torch.device("cpu"))

    def run() -> torch.Tensor:
        with torch.no_grad():
            hidden = split.run_lower(inputs)
        return split.run_upper(hidden, inputs).last_hidden_state

    run()
    with torch.compiler.set_stance("fail_on_recompile"):
        found = run()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

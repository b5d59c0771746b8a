"""Answers that share a prompt are what they are apart: in values and gradients, on every layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luthier.models import shared_prefixes
from luthier.models.segments import (
    SEGMENTS,
    packed_inputs,
    register_segments,
    segments_attention,
)
from luthier.models.shared_prefixes import (
    check_shared_prefixes,
    hidden_states,
    shared_prefix_inputs,
    shared_prefix_support,
)

register_segments()

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
WINDOW = 4
MIXED = ["sliding_attention", "full_attention"]
KINDS: dict[str, Any] = {
    "llama": lambda: hf.LlamaConfig(**SIZES),
    "qwen2": lambda: hf.Qwen2Config(**SIZES),
    "qwen3": lambda: hf.Qwen3Config(**SIZES),
    "gemma": lambda: hf.GemmaConfig(**SIZES),
    "gemma2": lambda: hf.Gemma2Config(
        **SIZES, sliding_window=WINDOW, layer_types=MIXED, attn_logit_softcapping=2.0
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(**SIZES, sliding_window=WINDOW, layer_types=MIXED),
    "mistral": lambda: hf.MistralConfig(**SIZES, sliding_window=WINDOW),
    "gpt-oss": lambda: hf.GptOssConfig(
        **SIZES,
        sliding_window=WINDOW,
        layer_types=MIXED,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
}
LLAMA4 = hf.Llama4TextConfig(
    **SIZES,
    attention_chunk_size=WINDOW,
    layer_types=["chunked_attention", "full_attention"],
    intermediate_size_mlp=24,
    num_local_experts=2,
    moe_layers=[],
)
PAIRS = ((5, 3, 7), (0, 2, 4), (1, 1, 1), (9, 12, 2))
"""Tokens of prompt, chosen and rejected answer; one pair shares nothing."""

pairs_lists = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4
)


def build(kind: str, attention: str) -> Any:
    torch.manual_seed(0)
    config = KINDS[kind]()
    return hf.AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().eval()


cached = cache(build)


def make_batch(pairs: Sequence[tuple[int, int, int]]) -> dict[str, torch.Tensor]:
    table, positions, end = [], [], 0
    for prompt, chosen, rejected in pairs:
        start, end = end, end + prompt + chosen + rejected
        table.append([start, start + prompt, start + prompt + chosen, end])
        positions += [*range(prompt + chosen), *range(prompt, prompt + rejected)]
    generator = torch.Generator().manual_seed(0)
    return {
        "input_ids": torch.randint(3, 32, (1, end), generator=generator),
        "position_ids": torch.tensor([positions]),
        "pairs": torch.tensor(table, dtype=torch.int32),
    }


def shared_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**shared_prefix_inputs(batch), use_cache=False).logits[0]


def logits_apart(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a pass for each answer, those of the prompt averaged over both."""
    ids, parts = batch["input_ids"], []
    for start, prompt, chosen, end in batch["pairs"].tolist():
        first = model(input_ids=ids[:, start:chosen], use_cache=False).logits[0]
        both = torch.cat([ids[:, start:prompt], ids[:, chosen:end]], dim=1)
        second = model(input_ids=both, use_cache=False).logits[0]
        num_shared = prompt - start
        parts += [(first[:num_shared] + second[:num_shared]) / 2]
        parts += [first[num_shared:], second[num_shared:]]
    return torch.cat(parts)


def gradients(model: Any, logits_TV: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    upstream = torch.randn(logits_TV.shape, generator=torch.Generator().manual_seed(1))
    (logits_TV * upstream).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert len(found) > 2
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=10, deadline=None)
@given(pairs=pairs_lists)
@example(pairs=list(PAIRS))
def test_one_pass_gives_what_two_give(kind: str, pairs: list[tuple[int, int, int]]) -> None:
    # The reference is transformers' own eager attention, one answer at a time.
    shared, apart, batch = cached(kind, SEGMENTS), cached(kind, "eager"), make_batch(pairs)
    found, expected = shared_logits(shared, batch), logits_apart(apart, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert_same_gradients(gradients(shared, found), gradients(apart, expected))


def test_a_lora_model_and_checkpointing_pass_the_pairs_on() -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    models: list[Any] = []
    for attention in (SEGMENTS, "eager"):
        base = build("llama", attention)
        torch.manual_seed(1)
        models.append(get_peft_model(base, lora))
    models[0].train()
    models[0].gradient_checkpointing_enable({"use_reentrant": False})
    batch = make_batch(PAIRS)
    found, expected = shared_logits(models[0], batch), logits_apart(models[1], batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert_same_gradients(gradients(models[0], found), gradients(models[1], expected))


def test_the_answers_do_not_see_each_other() -> None:
    model, batch = cached("llama", SEGMENTS), make_batch(PAIRS)
    with torch.no_grad():
        before = shared_logits(model, batch)
        for start, prompt, chosen, end in batch["pairs"].tolist():
            changed = batch["input_ids"].clone()
            changed[0, prompt:chosen] = (changed[0, prompt:chosen] + 5) % 29 + 3
            after = shared_logits(model, batch | {"input_ids": changed})
            assert torch.equal(after[:prompt], before[:prompt])
            assert torch.equal(after[chosen:], before[chosen:])
            assert not torch.equal(after[prompt:chosen], before[prompt:chosen])
            if prompt > start:
                changed[0, start] = (changed[0, start] + 5) % 29 + 3
                again = shared_logits(model, batch | {"input_ids": changed})
                assert not torch.equal(again[chosen:end], before[chosen:end])


def test_the_keys_of_each_answer() -> None:
    inputs = shared_prefix_inputs(make_batch([(2, 1, 3), (0, 2, 1)]))
    assert inputs["cu_seq_lens_q"].tolist() == [0, 3, 6, 8, 9]
    assert inputs["cu_seq_lens_k"].tolist() == [0, 3, 8, 10, 11]
    assert inputs["key_tokens"].tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8]
    assert (inputs["max_length_q"], inputs["max_length_k"]) == (3, 5)


@pytest.mark.parametrize(
    "pairs",
    [[[1, 2, 4, 9]], [[0, 4, 4, 9]], [[0, 2, 9, 9]], [[0, 2, 4, 5], [6, 7, 8, 9]], [[3, 0, 4, 9]]],
)
def test_pairs_that_do_not_lie_end_to_end_are_refused(pairs: list[list[int]]) -> None:
    batch = make_batch([(2, 2, 5)]) | {"pairs": torch.tensor(pairs)}
    with pytest.raises(ValueError, match="pairs must lie end to end from 0, each as start <= end"):
        shared_prefix_inputs(batch)


def test_pairs_that_end_before_the_row_are_refused() -> None:
    batch = make_batch([(2, 2, 5)]) | {"pairs": torch.tensor([[0, 2, 4, 8]])}
    with pytest.raises(ValueError, match="cu_seqlens must go from 0 to 9"):
        shared_prefix_inputs(batch)


def test_which_models_can() -> None:
    for make in KINDS.values():
        assert shared_prefix_support(make()).kind == "segments"
    support = shared_prefix_support(LLAMA4)
    assert (support.kind, support.reason[:19]) == ("none", "chunks of attention")
    assert "takes no position ids" in shared_prefix_support(hf.MambaConfig()).reason


def test_chunks_are_refused_by_the_layer_too() -> None:
    x = torch.randn(1, 2, 4, 8)
    inputs = shared_prefix_inputs(make_batch([(1, 2, 1)]))
    chunks = torch.tensor([0, 0, 2, 3, 4], dtype=torch.int32)[None, None, None]
    with pytest.raises(ValueError, match="can't be served with attention in chunks"):
        segments_attention(torch.nn.Module(), x, x, x, chunks, **inputs)
    model = hf.AutoModelForCausalLM.from_config(LLAMA4, attn_implementation=SEGMENTS)
    found = check_shared_prefixes(model)
    assert found is not None
    assert found.startswith("shared prompts fail in this model: a shared prompt can't be served")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_trial_passes_where_answers_are_exact(kind: str, dtype: torch.dtype) -> None:
    model = build(kind, SEGMENTS).to(dtype).train()
    state = torch.get_rng_state()
    assert check_shared_prefixes(model) is None
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_trial_finds_an_attention_that_knows_no_pairs(attention: str) -> None:
    # transformers takes a position that starts again for a document of its own.
    found = check_shared_prefixes(build("llama", attention))
    assert found == "an answer does not see the prompt that it shares"


def test_the_trial_finds_answers_that_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_one(batch: Any) -> dict[str, Any]:
        ends = batch["pairs"][:, [0, 3]].unique()
        positions = torch.cat([torch.arange(int(length)) for length in ends.diff()])
        return packed_inputs({**batch, "cu_seqlens": ends, "position_ids": positions[None]})

    monkeypatch.setattr(shared_prefixes, "shared_prefix_inputs", in_one)
    found = check_shared_prefixes(build("llama", SEGMENTS))
    assert found is not None
    assert found.startswith("answers that share a prompt see each other (logits differ by")


def test_the_trial_finds_an_answer_that_does_not_see_its_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_prompts(batch: Any) -> dict[str, Any]:
        ends = [0, *batch["pairs"][:, 2:].flatten().tolist()]
        return packed_inputs({**batch, "cu_seqlens": torch.tensor(ends)})

    monkeypatch.setattr(shared_prefixes, "shared_prefix_inputs", without_prompts)
    found = check_shared_prefixes(build("llama", SEGMENTS))
    assert found == "an answer does not see the prompt that it shares"


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_trial_of_a_reward_model_compares_what_its_head_reads(kind: str) -> None:
    def build_scorer(attention: str) -> Any:
        torch.manual_seed(0)
        made = hf.AutoModelForSequenceClassification.from_config(
            KINDS[kind](), attn_implementation=attention
        )
        return made

    assert check_shared_prefixes(build_scorer(SEGMENTS), hidden_states) is None
    found = check_shared_prefixes(build_scorer("sdpa"), hidden_states)
    assert found == "an answer does not see the prompt that it shares"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["llama", "gemma3", "mistral"])
def test_the_variable_length_kernel_of_a_gpu_gives_the_same(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    batch = make_batch(PAIRS)
    exact = logits_apart(cached(kind, "eager"), batch)
    on_gpu = {name: tensor.cuda() for name, tensor in batch.items()}
    found = shared_logits(build(kind, SEGMENTS).to("cuda", torch.bfloat16), on_gpu)
    plain = logits_apart(build(kind, "sdpa").to("cuda", torch.bfloat16), on_gpu)
    error, usual = ((x.float().cpu() - exact).abs().mean() for x in (found, plain))
    assert float(error) < 1.5 * float(usual)
    found.float().sum().backward()

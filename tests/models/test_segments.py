"""Packed rows give what separate rows give, whatever stands beside them, with no T x T mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from luthier.models.segments import SEGMENTS, packed_inputs, register_segments, segments_mask

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
    # Many initial weights are near 0 by default, and so would be what the tests look for.
    "initializer_range": 0.3,
}
WINDOW = 4
MIXED = ["sliding_attention", "full_attention"]
KINDS: dict[str, Any] = {
    "llama": lambda: hf.LlamaConfig(**SIZES),
    "qwen2": lambda: hf.Qwen2Config(**SIZES),
    "qwen2-window": lambda: hf.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=WINDOW, layer_types=MIXED
    ),
    "qwen3": lambda: hf.Qwen3Config(**SIZES),
    "gemma": lambda: hf.GemmaConfig(**SIZES),
    "gemma2": lambda: hf.Gemma2Config(
        **SIZES, sliding_window=WINDOW, layer_types=MIXED, attn_logit_softcapping=2.0
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(**SIZES, sliding_window=WINDOW, layer_types=MIXED),
    "mistral": lambda: hf.MistralConfig(**SIZES, sliding_window=WINDOW),
    "llama4": lambda: hf.Llama4TextConfig(
        **SIZES,
        attention_chunk_size=WINDOW,
        layer_types=["chunked_attention", "full_attention"],
        intermediate_size_mlp=24,
        num_local_experts=2,
        moe_layers=[],
    ),
    "gpt-oss": lambda: hf.GptOssConfig(
        **SIZES,
        sliding_window=WINDOW,
        layer_types=MIXED,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
    # Tells the window to the mask alone, not to the attention.
    "phimoe": lambda: hf.PhimoeConfig(**SIZES, sliding_window=WINDOW, num_local_experts=2),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=32, n_embd=16, n_head=4, n_layer=2, initializer_range=0.3
    ),
}
EAGER = ["gemma2", "gpt-oss"]
EXPERTS = ["gpt-oss", "phimoe"]
PLAIN = [name for name in KINDS if name not in EAGER]
# The longest is more than four windows and chunks long; several tokens are alone.
LENGTHS = (5, 1, 19, 4, 1, 1, 10)

lengths_lists = st.lists(st.integers(1, 14), min_size=1, max_size=6)
kinds = pytest.mark.parametrize("kind", list(KINDS))


def build(kind: str, attention: str = SEGMENTS, **changes: Any) -> Any:
    config = KINDS[kind]()
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.float().eval()


cached = cache(build)


def pack(rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    lengths = torch.tensor([0, *map(len, rows)])
    return {
        "input_ids": torch.cat(list(rows))[None],
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
        "cu_seqlens": lengths.cumsum(0).to(torch.int32),
    }


def make_rows(lengths: Sequence[int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 32, (length,), generator=generator) for length in lengths]


def packed_logits(model: Any, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return model(**packed_inputs(pack(rows)), use_cache=False).logits[0]


def separate_logits(model: Any, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    logits = [model(input_ids=row[None], use_cache=False).logits[0] for row in rows]
    return torch.cat(logits)


def sum_of_losses(logits_TV: torch.Tensor, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = logits_TV.split([len(row) for row in rows])
    losses = [
        F.cross_entropy(part[:-1], row[1:], reduction="sum")
        for part, row in zip(parts, rows, strict=True)
    ]
    return torch.stack(losses).sum()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert len(found) > 2
    # One rounding of the largest gradient reaches all that are computed from it.
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5 * scale)


@kinds
@settings(max_examples=12, deadline=None)
@given(lengths=lengths_lists)
@example(lengths=list(LENGTHS))
@example(lengths=[1])
@example(lengths=[1, 1, 1])
@example(lengths=[30])
def test_a_packed_row_gives_what_separate_rows_give(kind: str, lengths: list[int]) -> None:
    # The reference is transformers' own eager attention, one row at a time.
    packed, separate, rows = cached(kind), cached(kind, "eager"), make_rows(lengths)
    found, expected = packed_logits(packed, rows), separate_logits(separate, rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    loss, expected_loss = sum_of_losses(found, rows), sum_of_losses(expected, rows)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    if max(lengths) > 1:
        assert_same_gradients(gradients(packed, loss), gradients(separate, expected_loss))


@kinds
@settings(max_examples=8, deadline=None)
@given(lengths=lengths_lists, data=st.data())
def test_no_segment_sees_another(kind: str, lengths: list[int], data: st.DataObject) -> None:
    model, rows = cached(kind), make_rows(lengths)
    changed = data.draw(st.integers(0, len(rows) - 1))
    others = [*rows]
    others[changed] = (rows[changed] - 3 + 7) % 29 + 3
    with torch.no_grad():
        before = packed_logits(model, rows).split(lengths)
        after = packed_logits(model, others).split(lengths)
    for number in range(len(rows)):
        difference = float((before[number] - after[number]).abs().max())
        if number == changed:
            assert difference > 1e-3, "the test must notice a change where there is one"
        else:
            # Bit for bit, but for experts: which tokens share a product changes its rounding.
            assert difference <= (1e-5 if kind in EXPERTS else 0.0)


@kinds
def test_a_padded_batch_gives_what_the_model_gave_before(kind: str) -> None:
    rows = make_rows((9, 3, 6))
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
    name = "eager" if kind in EAGER else "sdpa"
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    found = cached(kind)(**inputs).logits[mask.bool()]
    expected = cached(kind, name)(**inputs).logits[mask.bool()]
    if name == "sdpa":
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PLAIN)
def test_padded_rows_of_several_documents_get_sdpas_mask(kind: str) -> None:
    rows = [make_rows((4, 3, 2)), make_rows((5, 4), seed=1)]
    ids = torch.stack([torch.cat(row) for row in rows])
    positions = torch.stack([torch.cat([torch.arange(len(p)) for p in row]) for row in rows])
    inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    assert torch.equal(cached(kind)(**inputs).logits, cached(kind, "sdpa")(**inputs).logits)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
def test_generation_gives_what_sdpa_gives(kind: str, cache_kind: str) -> None:
    ids = torch.stack(make_rows((6, 6)))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    arguments = {
        "input_ids": ids,
        "attention_mask": mask,
        "max_new_tokens": 6,
        "do_sample": False,
        "cache_implementation": cache_kind,
        "disable_compile": True,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    found, expected = (cached(kind, name).generate(**arguments) for name in (SEGMENTS, "sdpa"))
    assert torch.equal(found.sequences, expected.sequences)
    assert all(map(torch.equal, found.logits, expected.logits))


@pytest.mark.parametrize("kind", EAGER)
@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
def test_capped_scores_and_sinks_generate_what_eager_generates(kind: str, cache_kind: str) -> None:
    ids = torch.stack(make_rows((9, 9)))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    arguments = {
        "max_new_tokens": 6,
        "do_sample": False,
        "cache_implementation": cache_kind,
        "disable_compile": True,
    }
    for inputs in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids}):
        found, expected = (
            cached(kind, name).generate(**inputs, **arguments) for name in (SEGMENTS, "eager")
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(kind: str, reentrant: bool) -> None:
    rows = make_rows(LENGTHS)
    model = build(kind).train()
    expected = gradients(model, sum_of_losses(packed_logits(model, rows), rows))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    found = gradients(model, sum_of_losses(packed_logits(model, rows), rows))
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_lora_model_passes_the_segments_on(kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    rows = make_rows(LENGTHS)
    lora = LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    models: list[Any] = []
    for name in (SEGMENTS, "eager"):
        base = build(kind, name)
        torch.manual_seed(1)
        models.append(get_peft_model(base, lora))
    found = packed_logits(models[0], rows)
    expected = separate_logits(models[1], rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert_same_gradients(
        gradients(models[0], sum_of_losses(found, rows)),
        gradients(models[1], sum_of_losses(expected, rows)),
    )


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mistral"])
def test_dropout_of_attention_stays_within_the_segment_and_is_right_on_average(kind: str) -> None:
    model, rows = build(kind, attention_dropout=0.5, num_hidden_layers=1).train(), make_rows((5, 7))
    # A layer's output is linear in the weights that are dropped, so means can be compared.
    attention = model.model.layers[0].self_attn
    assert attention.attention_dropout == 0.5
    inputs = packed_inputs(pack(rows))
    torch.manual_seed(0)
    first = model(**inputs, use_cache=False).logits
    assert not torch.equal(first, model(**inputs, use_cache=False).logits)
    changed = packed_inputs(pack([rows[0], rows[1].flip(0)]))
    torch.manual_seed(0)
    again = model(**changed, use_cache=False).logits
    assert torch.equal(first[0, :5], again[0, :5])
    hidden = torch.randn(1, 12, 16)
    cos_sin = model.model.rotary_emb(hidden, inputs["position_ids"])
    ends = F.pad(inputs["cu_seq_lens_q"], (1, 0))[None, None, None]

    def attend() -> torch.Tensor:
        with torch.no_grad():
            return attention(hidden, position_embeddings=cos_sin, attention_mask=ends)[0]

    mean = torch.stack([attend() for _ in range(3000)]).mean(0)
    attention.eval()
    expected = attend()
    assert float((mean - expected).abs().max()) < 0.1 * float(expected.abs().max())


class _LargestTensor(TorchDispatchMode):
    """Remembers the largest storage that any operation returned, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.num_bytes = max(self.num_bytes, tensor.untyped_storage().nbytes())
        return found


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gemma2"])
def test_no_tensor_is_as_large_as_row_times_row(kind: str) -> None:
    num_tokens = 16384
    rows = make_rows([256] * 64)

    def largest(attention: str, rows: list[torch.Tensor]) -> int:
        with _LargestTensor() as seen:
            packed_logits(cached(kind, attention), rows).sum().backward()
        return seen.num_bytes

    # The T x T mask alone takes T x T bytes. Allowed: 8 numbers a token and hidden unit, the
    # logits, and 4 heads of 256 x 256 scores.
    assert largest(SEGMENTS, rows) <= 8 * num_tokens * 32 * 4 < num_tokens**2 / 10
    few = rows[:8]
    assert largest("eager", few) >= 2048**2, "the measure must see a mask where there is one"


def test_the_window_is_computed_in_blocks() -> None:
    # 4096 tokens in one segment, window 4: its L x L mask would take 16 MiB.
    rows = make_rows([4096, 3])
    with _LargestTensor() as seen, torch.no_grad():
        packed_logits(cached("mistral"), rows)
    assert seen.num_bytes < 4096**2 / 8


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("way", ["weights", "autocast"])
def test_16_bits_are_as_near_to_float32_as_sdpa(kind: str, way: str) -> None:
    rows = make_rows((40, 1, 600))
    exact = separate_logits(cached(kind, "eager"), rows)
    sdpa, packed = build(kind, "sdpa"), build(kind)
    if way == "weights":
        sdpa, packed = sdpa.bfloat16(), packed.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        found, expected = packed_logits(packed, rows), separate_logits(sdpa, rows)
    assert found.dtype == expected.dtype == torch.bfloat16
    error, usual = ((x.float() - exact).abs().mean() for x in (found, expected))
    assert float(error) < 1.2 * float(usual)
    found.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in packed.parameters())


def test_eager_and_sdpa_serve_the_same_inputs_by_their_own_mask() -> None:
    rows = make_rows(LENGTHS)
    expected = packed_logits(cached("gemma3"), rows)
    for name in ("eager", "sdpa"):
        found = packed_logits(cached("gemma3", name), rows)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_position_ids_alone_tell_the_segments_of_one_row() -> None:
    rows, model = make_rows(LENGTHS), cached("llama")
    batch = pack(rows)
    found = model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).logits[0]
    assert torch.equal(found, packed_logits(model, rows))


def test_a_model_that_makes_a_cache_still_sees_the_segments() -> None:
    # With a cache transformers makes no mask of the positions; the keyword arguments remain.
    rows, model = make_rows(LENGTHS), cached("llama")
    with torch.no_grad():
        found = model(**packed_inputs(pack(rows)), use_cache=True).logits[0]
        assert torch.equal(found, packed_logits(model, rows))


def test_both_masks_at_once_are_refused() -> None:
    inputs = packed_inputs(pack(make_rows((3, 4))))
    mask = torch.ones(1, 7, dtype=torch.int64)
    mask[0, -1] = 0
    with pytest.raises(ValueError, match="was given an attention mask too: pass packed_inputs"):
        cached("llama")(**inputs, attention_mask=mask, use_cache=False)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"is_causal": False}, "attention that is not causal"),
        ({"position_bias": torch.zeros(1)}, "a bias of positions"),
    ],
)
def test_what_a_segment_can_not_do_is_refused(change: dict[str, Any], what: str) -> None:
    from luthier.models.segments import segments_attention

    x = torch.randn(1, 2, 4, 8)
    ends = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(ValueError, match=f"can't be served with {what}: turn packing off"):
        segments_attention(torch.nn.Module(), x, x, x, None, cu_seq_lens_q=ends, **change)


@pytest.mark.parametrize(("rows", "keys", "what"), [(2, 4, "2 rows"), (1, 6, "a cache")])
def test_rows_and_caches_are_refused(rows: int, keys: int, what: str) -> None:
    from luthier.models.segments import segments_attention

    query, key = torch.randn(rows, 2, 4, 8), torch.randn(rows, 2, keys, 8)
    ends = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(ValueError, match=f"can't be served with {what}: turn packing off"):
        segments_attention(torch.nn.Module(), query, key, key, None, cu_seq_lens_q=ends)


def test_ends_that_do_not_fit_the_row_are_refused() -> None:
    from luthier.models.segments import segments_attention

    x = torch.randn(1, 2, 4, 8)
    ends = torch.tensor([0, 3], dtype=torch.int32)
    with pytest.raises(ValueError, match="segments of 3 tokens in a row of 4"):
        segments_attention(torch.nn.Module(), x, x, x, None, cu_seq_lens_q=ends)


def test_packed_inputs_are_flash_attentions_arguments() -> None:
    inputs = packed_inputs(pack(make_rows((3, 1, 5))))
    assert set(inputs) == {
        "input_ids",
        "position_ids",
        "cu_seq_lens_q",
        "cu_seq_lens_k",
        "max_length_q",
        "max_length_k",
    }
    assert inputs["cu_seq_lens_q"].tolist() == inputs["cu_seq_lens_k"].tolist() == [0, 3, 4, 9]
    assert inputs["cu_seq_lens_q"].dtype == torch.int32
    assert inputs["max_length_q"] == inputs["max_length_k"] == 5


@pytest.mark.parametrize("pattern", ["an image", "no restart", "a padded row"])
def test_any_other_mask_is_sdpas(pattern: str) -> None:
    from transformers.masking_utils import sdpa_mask

    def seen(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        if pattern == "an image":  # The tokens 4 to 7 see each other, as in Gemma 3.
            return (key <= query) & (query // 4 == key // 4) | (query // 4 == 1) & (key // 4 == 1)
        return key <= query

    shape: dict[str, Any] = {"batch_size": 1, "q_length": 12, "kv_length": 12, "device": "cpu"}
    padding = torch.ones(1, 12, dtype=torch.bool) if pattern == "a padded row" else None
    shape |= {"mask_function": seen, "attention_mask": padding, "allow_is_causal_skip": False}
    found, expected = segments_mask(**shape), sdpa_mask(**shape)
    assert found is not None
    assert expected is not None
    assert found.dtype == torch.bool
    assert torch.equal(found, expected)


@pytest.mark.parametrize("ends", [[0, 3, 3, 7], [1, 7], [0, 3], [0, 8], [0, 5, 4, 7]])
def test_wrong_segment_ends_are_refused(ends: list[int]) -> None:
    batch = pack(make_rows((7,))) | {"cu_seqlens": torch.tensor(ends)}
    with pytest.raises(ValueError, match="cu_seqlens must go from 0 to 7 in steps of at least 1"):
        packed_inputs(batch)


def test_a_padded_batch_is_not_packed() -> None:
    batch = pack(make_rows((7,)))
    batch["attention_mask"] = torch.ones(1, 7)
    with pytest.raises(ValueError, match="one row without an attention mask, not 1 rows with"):
        packed_inputs(batch)
    batch = pack(make_rows((7,))) | {"input_ids": torch.ones(2, 7, dtype=torch.int64)}
    with pytest.raises(ValueError, match="one row without an attention mask, not 2 rows with"):
        packed_inputs(batch)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["llama", "gemma3", "mistral"])
def test_the_variable_length_kernel_of_a_gpu_gives_the_same(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    rows = make_rows(LENGTHS)
    exact = separate_logits(cached(kind, "eager"), rows)
    model = build(kind).to("cuda", torch.bfloat16)
    found = packed_logits(model, [row.cuda() for row in rows])
    plain = separate_logits(
        build(kind, "sdpa").to("cuda", torch.bfloat16), [r.cuda() for r in rows]
    )
    error, usual = ((x.float().cpu() - exact).abs().mean() for x in (found, plain))
    assert float(error) < 1.5 * float(usual)
    found.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())

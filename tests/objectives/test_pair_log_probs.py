"""Log-probabilities of pairs: one pass over a prompt gives what two give, and what hands give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.batches.cutting import split_batch
from luthier.batches.pairs import separate_pair_collate, shared_pair_collate
from luthier.contracts.preference import PairLogProbs
from luthier.models.segments import SEGMENTS, register_segments
from luthier.objectives.find_head import find_head
from luthier.objectives.pair_log_probs import pair_log_probs

register_segments()

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen3": {"tie_word_embeddings": True},
    "Gemma2": {
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 2.0,
    },
}
PAIRS = ((5, 3, 7), (0, 2, 4), (1, 1, 1), (9, 12, 2), (3, 6, 6))
families = pytest.mark.parametrize("family", list(FAMILIES))


def make_model(family: str, way: str = "full") -> Any:
    config = getattr(hf, f"{family}Config")(**SIZES, **FAMILIES[family])
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation=SEGMENTS)
    if way == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        return get_peft_model(model, lora)
    return model


def make_pairs(lengths: Any = PAIRS) -> list[dict[str, Any]]:
    """Make pairs of random tokens; some tokens within an answer carry no label."""
    random = torch.Generator().manual_seed(0)
    pairs: list[dict[str, Any]] = []
    for prompt, chosen, rejected in lengths:
        ids_T = torch.randint(3, 61, (prompt + chosen + rejected,), generator=random)
        labels_T = ids_T.clone()
        if chosen > 4:
            labels_T[prompt + 2] = -100
        labels_T[:prompt] = -100
        if prompt == 0:
            labels_T[0] = labels_T[chosen] = -100
        pairs.append(
            {
                "input_ids": ids_T.tolist(),
                "labels": labels_T.tolist(),
                "prompt_length": prompt,
                "chosen_length": chosen,
            }
        )
    return pairs


def by_hand(model: Any, pairs: list[dict[str, Any]]) -> PairLogProbs:
    """One forward pass for each answer, its tokens scored one after another."""
    sums: list[torch.Tensor] = []
    counts: list[int] = []
    for pair in pairs:
        prompt = pair["prompt_length"]
        chosen = prompt + pair["chosen_length"]
        for start, end in ((prompt, chosen), (chosen, len(pair["input_ids"]))):
            ids, labels = (
                pair[name][:prompt] + pair[name][start:end] for name in ("input_ids", "labels")
            )
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            taught = [place for place, label in enumerate(labels) if label != -100]
            scored = [logits[t - 1].float().log_softmax(-1)[labels[t]] for t in taught]
            sums.append(torch.stack([torch.zeros(()), *scored]).sum())
            counts.append(len(taught))
    return PairLogProbs(
        torch.stack(sums[0::2]),
        torch.stack(sums[1::2]),
        torch.tensor(counts[0::2]),
        torch.tensor(counts[1::2]),
    )


def gradients(model: Any, found: PairLogProbs) -> list[torch.Tensor]:
    """Gradients of a loss in which no two answers weigh the same."""
    model.zero_grad()
    factors = torch.linspace(0.5, 1.5, len(found.chosen))
    (factors * (found.chosen - 0.7 * found.rejected)).sum().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert len(grads) > 2
    return grads


def assert_same(found: PairLogProbs, expected: PairLogProbs) -> None:
    assert torch.equal(found.chosen_tokens, expected.chosen_tokens)
    assert torch.equal(found.rejected_tokens, expected.rejected_tokens)
    torch.testing.assert_close(found.chosen, expected.chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.rejected, expected.rejected, rtol=1e-5, atol=1e-5)


def assert_same_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    # One rounding of the largest gradient reaches all that are computed from it.
    scale = max(1.0, *(float(grad.abs().max()) for grad in expected))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


@families
@pytest.mark.parametrize("way", ["full", "lora"])
@pytest.mark.parametrize("with_head", [True, False])
def test_both_layouts_give_what_is_computed_by_hand(family: str, way: str, with_head: bool) -> None:
    model, pairs = make_model(family, way), make_pairs()
    head = find_head(model)[0] if with_head else None
    assert (head is not None) == with_head
    expected = by_hand(model, pairs)
    expected_grads = gradients(model, expected)
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0)):
        found = pair_log_probs(head, model, batch)
        assert_same(found, expected)
        assert_same_gradients(gradients(model, found), expected_grads)


@families
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 8), st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=4
    )
)
def test_any_pairs_give_the_same_in_both_layouts(
    family: str, lengths: list[tuple[int, int, int]]
) -> None:
    model, pairs = make_model(family), make_pairs(lengths)
    head, _ = find_head(model)
    shared, separate = (
        pair_log_probs(head, model, batch)
        for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0))
    )
    assert_same(shared, separate)
    for name in ("chosen_shared", "rejected_shared"):
        one, other = getattr(shared, name), getattr(separate, name)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, shared), gradients(model, separate))


def test_the_first_rejected_token_follows_the_prompt_not_the_chosen_answer() -> None:
    model, pairs = make_model("Llama"), make_pairs([(4, 3, 1)])
    other = [{**pairs[0], "input_ids": [*pairs[0]["input_ids"]]}]
    for place in (4, 5, 6):
        other[0]["input_ids"][place] = (pairs[0]["input_ids"][place] + 7) % 58 + 3
    head, _ = find_head(model)
    one, two = (pair_log_probs(head, model, shared_pair_collate(p)) for p in (pairs, other))
    assert torch.equal(one.rejected, two.rejected)
    assert not torch.equal(one.chosen, two.chosen)


def test_sums_over_the_length_of_the_shorter_answer() -> None:
    model, pairs = make_model("Llama"), make_pairs([(4, 3, 6), (2, 4, 2)])
    head, _ = find_head(model)
    cut = [
        {**pairs[0], "labels": pairs[0]["labels"][:10] + [-100] * 3},
        {**pairs[1], "labels": pairs[1]["labels"][:4] + [-100] * 2 + pairs[1]["labels"][6:]},
    ]
    front = pair_log_probs(head, model, separate_pair_collate(cut, 0))
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, 0)):
        found: Any = pair_log_probs(head, model, batch)
        torch.testing.assert_close(found.chosen_shared, front.chosen, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.rejected_shared, front.rejected, rtol=1e-5, atol=1e-5)
        assert found.chosen_tokens.tolist() == [3, 4], "the counts are of all tokens"
        assert found.rejected_tokens.tolist() == [6, 2]
        assert torch.equal(found.chosen_shared == found.chosen, torch.tensor([True, False]))
        assert torch.equal(found.rejected_shared == found.rejected, torch.tensor([False, True]))


def test_parts_of_a_batch_give_what_the_batch_gives() -> None:
    model, pairs = make_model("Llama"), make_pairs()
    head, _ = find_head(model)
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, 0)):
        whole = pair_log_probs(head, model, batch)
        parts = split_batch(batch, 30)
        assert len(parts) > 1
        found = [pair_log_probs(head, model, part) for part in parts]
        torch.testing.assert_close(torch.cat([part.chosen for part in found]), whole.chosen)
        torch.testing.assert_close(torch.cat([part.rejected for part in found]), whole.rejected)


def test_another_model_than_the_heads_is_refused(family_model: Callable[[str], Any]) -> None:
    head, _ = find_head(make_model("Llama"))
    batch = shared_pair_collate(make_pairs())
    with pytest.raises(ValueError, match="the head was found in another model"):
        pair_log_probs(head, family_model("Llama"), batch)

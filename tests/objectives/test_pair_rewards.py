"""Rewards of pairs: one pass over a prompt gives what two give, and what transformers gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.batches.cutting import split_batch
from luthier.batches.pairs import separate_pair_collate, shared_pair_collate
from luthier.models.segments import SEGMENTS, register_segments
from luthier.objectives.pair_rewards import RewardScorer, pair_rewards, reward_head
from luthier.objectives.pair_scores import count_pairs
from luthier.objectives.reward import PairRewards, RewardModelling
from luthier.objectives.settings import RewardSettings

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
    "num_labels": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen3": {"tie_word_embeddings": True},
    "Gemma2": {
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "attn_logit_softcapping": 2.0,
    },
}
PAIRS = ((5, 3, 7), (0, 2, 4), (1, 1, 1), (9, 12, 2), (3, 6, 6))
families = pytest.mark.parametrize("family", list(FAMILIES))


def make_model(family: str = "Llama", way: str = "full", attention: str = SEGMENTS) -> Any:
    config = getattr(hf, f"{family}Config")(**SIZES, **FAMILIES[family])
    torch.manual_seed(0)
    model = hf.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    if way == "lora":
        from peft import LoraConfig, TaskType, get_peft_model

        lora = LoraConfig(
            r=4,
            target_modules="all-linear",
            init_lora_weights=False,
            task_type=TaskType.SEQ_CLS,
            modules_to_save=["score"],
        )
        tuned: Any = get_peft_model(model, lora)
        with torch.no_grad():
            tuned.get_base_model().score.modules_to_save["default"].weight.mul_(-2.0)
        return tuned
    return model


def make_pairs(lengths: Any = PAIRS) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    pairs: list[dict[str, Any]] = []
    for prompt, chosen, rejected in lengths:
        ids_T = torch.randint(3, 61, (prompt + chosen + rejected,), generator=random)
        labels_T = ids_T.clone()
        labels_T[:prompt] = -100
        # As in rows of a template that writes a newline behind its turns: the last token carries no
        # label, and the reward is read there nevertheless.
        labels_T[-1] = labels_T[prompt + chosen - 1] = -100
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


def by_transformers(model: Any, pairs: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' own forward pass over one answer after another."""
    found: list[torch.Tensor] = []
    for pair in pairs:
        ids, prompt = pair["input_ids"], pair["prompt_length"]
        chosen = prompt + pair["chosen_length"]
        for row in (ids[:chosen], ids[:prompt] + ids[chosen:]):
            found.append(model(input_ids=torch.tensor([row]), use_cache=False).logits[0, 0])
    return torch.stack(found[0::2]), torch.stack(found[1::2])


def gradients(model: Any, chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a loss in which no two answers weigh the same."""
    model.zero_grad()
    factors = torch.linspace(0.5, 1.5, len(chosen))
    (factors * (chosen - 0.7 * rejected)).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found: PairRewards, chosen: torch.Tensor, rejected: torch.Tensor) -> None:
    torch.testing.assert_close(found.chosen, chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.rejected, rejected, rtol=1e-5, atol=1e-5)


@families
@pytest.mark.parametrize("way", ["full", "lora"])
def test_both_layouts_give_what_transformers_gives(family: str, way: str) -> None:
    model, pairs = make_model(family, way), make_pairs()
    head = reward_head(model)
    expected = by_transformers(model, pairs)
    grads = gradients(model, *expected)
    assert any("score" in name for name in grads)
    scale = max(1.0, *(float(grad.abs().max()) for grad in grads.values()))
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0)):
        found = RewardScorer(head)(model, batch)
        assert_same(found, *expected)
        assert found.num_tokens.item() == sum(
            label != -100 for pair in pairs for label in pair["labels"]
        )
        assert found.margins is None
        ours = gradients(model, found.chosen, found.rejected)
        assert ours.keys() == grads.keys()
        for name, grad in ours.items():
            torch.testing.assert_close(grad, grads[name], rtol=0, atol=1e-5 * scale)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 8), st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=4
    )
)
def test_any_pairs_give_the_same_in_both_layouts(lengths: list[tuple[int, int, int]]) -> None:
    model, pairs = make_model(), make_pairs(lengths)
    head = reward_head(model)
    shared, separate = (
        pair_rewards(head, model, batch)
        for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0))
    )
    assert_same(shared, separate.chosen, separate.rejected)


def test_a_padded_batch_in_transformers_gives_the_same() -> None:
    model, pairs = make_model(attention="sdpa"), make_pairs()
    batch = separate_pair_collate(pairs, pad_id=0)
    found = pair_rewards(reward_head(model), model, batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    own = model(**inputs, use_cache=False).logits[:, 0]
    assert_same(found, own[0::2], own[1::2])


def test_answers_that_end_with_the_pad_token_are_read_to_their_end() -> None:
    """transformers would stop before it; see `dataset/padding.py`."""
    model, pairs = make_model(), make_pairs([(4, 3, 2)])
    pairs[0]["input_ids"][-1] = pairs[0]["input_ids"][6] = 0
    expected = [
        model.model(torch.tensor([row])).last_hidden_state[0, -1] @ model.score.weight[0]
        for row in (
            pairs[0]["input_ids"][:7],
            [*pairs[0]["input_ids"][:4], *pairs[0]["input_ids"][7:]],
        )
    ]
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0)):
        found = pair_rewards(reward_head(model), model, batch)
        assert_same(found, expected[0][None], expected[1][None])


@pytest.mark.parametrize("way", ["full", "lora"])
def test_rewards_are_float32_under_autocast(way: str) -> None:
    model, pairs = make_model(way=way), make_pairs()
    batch = shared_pair_collate(pairs)
    head = reward_head(model)
    exact = pair_rewards(head, model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = pair_rewards(head, model, batch)
    assert found.chosen.dtype == found.rejected.dtype == torch.float32
    assert not torch.equal(found.chosen.bfloat16().float(), found.chosen), "not rounded to 16 bits"
    torch.testing.assert_close(found.chosen, exact.chosen, rtol=0.1, atol=0.1)
    found.chosen.sum().backward()


def test_parts_of_a_batch_and_margins() -> None:
    model = make_model()
    pairs = [{**pair, "margin": n / 4} for n, pair in enumerate(make_pairs())]
    head = reward_head(model)
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, 0)):
        whole = pair_rewards(head, model, batch)
        parts = split_batch(batch, 30)
        assert len(parts) > 1
        found = [pair_rewards(head, model, part) for part in parts]
        torch.testing.assert_close(torch.cat([part.chosen for part in found]), whole.chosen)
        torch.testing.assert_close(torch.cat([part.rejected for part in found]), whole.rejected)
        margins = [part.margins for part in found if part.margins is not None]
        assert torch.cat(margins).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_as_an_objective() -> None:
    model = make_model()
    objective = RewardModelling(RewardSettings(), RewardScorer(reward_head(model)), count_pairs)
    batch = shared_pair_collate(make_pairs())
    loss = objective(model, batch)
    found = pair_rewards(reward_head(model), model, batch)
    expected = -torch.nn.functional.logsigmoid(found.chosen - found.rejected).sum()
    torch.testing.assert_close(loss.total, expected)
    assert loss.weight.item() == objective.weight(batch).item() == 5


def test_another_model_than_the_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="the head was found in another model"):
        pair_rewards(reward_head(make_model()), make_model(), shared_pair_collate(make_pairs()))

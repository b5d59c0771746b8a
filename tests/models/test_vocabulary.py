"""Rows for new tokens: what they begin as, who trains them, and how they open again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import ModelError, SettingsError
from luthier.models.adapters import apply_tuning
from luthier.models.save import save_model
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning
from luthier.models.vocabulary import add_token_rows

Make = Callable[..., Any]
NEW = (32, 33)
IDS = torch.tensor([[1, 32, 6, 33]])


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def tuned_with(model: Any, tuning: Any, tokens: Sequence[int] = NEW) -> Any:
    """Add the rows, choose what is trained, and change all of that."""
    add_token_rows(model, tokens)
    tuned = apply_tuning(model, tuning, new_token_ids=tokens)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return tuned


def trained(model: Any) -> dict[str, torch.Size]:
    return {n: p.shape for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_row_is_the_mean_of_the_old_ones(
    make_model: Make, is_tied: bool, dtype: torch.dtype
) -> None:
    model = make_model(tie_word_embeddings=is_tied).to(dtype)
    before = [model.get_input_embeddings().weight.clone(), model.lm_head.weight.clone()]
    add_token_rows(model, NEW)
    assert model.config.vocab_size == 34
    assert model.lm_head.out_features == 34
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is is_tied
    for old, new in zip(
        before, (model.get_input_embeddings().weight, model.lm_head.weight), strict=True
    ):
        assert torch.equal(new[:32], old)
        assert torch.equal(new[32], old.float().mean(0).to(dtype))
        assert torch.equal(new[33], new[32])
    assert logits_of(model).shape[-1] == 34


def test_a_bias_gets_its_numbers_too(make_model: Make) -> None:
    import transformers as hf

    model = hf.PhiForCausalLM(
        hf.PhiConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2,
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.lm_head.bias)
    expected = model.lm_head.bias.detach().mean()
    add_token_rows(model, NEW)
    assert torch.allclose(model.lm_head.bias[32:], expected)


def test_spare_rows_are_taken_before_others_are_made(make_model: Make) -> None:
    model = make_model()
    before = model.get_input_embeddings().weight.clone()
    add_token_rows(model, (29, 30))
    after = model.get_input_embeddings().weight
    assert after.shape == before.shape
    assert torch.equal(after[29], before[:29].mean(0))
    assert torch.equal(after[[*range(29), 31]], before[[*range(29), 31]])


def test_without_new_tokens_nothing_changes(make_model: Make) -> None:
    model = make_model()
    before = model.get_input_embeddings().weight
    add_token_rows(model, ())
    assert model.get_input_embeddings().weight is before
    assert not any("token" in name for name in trained(apply_tuning(model, LoraTuning()))
                   if "lora_" not in name)  # fmt: skip


@pytest.mark.parametrize("is_tied", [True, False])
def test_lora_trains_the_new_rows_alone(make_model: Make, is_tied: bool) -> None:
    tuned = tuned_with(make_model(tie_word_embeddings=is_tied), LoraTuning())
    others = {n: shape for n, shape in trained(tuned).items() if "lora_" not in n}
    assert list(others.values()) == [(2, 16)] * (1 if is_tied else 2)
    old = make_model(tie_word_embeddings=is_tied)
    base = tuned.get_base_model()
    for now, then in (
        (base.get_input_embeddings().weight, old.get_input_embeddings().weight),
        (base.get_output_embeddings().weight, old.lm_head.weight),
    ):
        assert torch.equal(now[:32], then)
        assert not torch.equal(now[32], then.mean(0))
    expected = logits_of(tuned)
    assert torch.allclose(logits_of(tuned.merge_and_unload()), expected, atol=1e-5)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_an_adapter_opens_on_the_base_once_that_has_its_rows(
    make_model: Make, word_tokenizer: Any, tmp_path: Path, is_tied: bool, init: str
) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    base = make_model(tie_word_embeddings=is_tied)
    base.save_pretrained(str(tmp_path / "base"))
    base.name_or_path = str(tmp_path / "base")
    tuned = tuned_with(base, LoraTuning(lora_init=init))
    save_model(tuned, word_tokenizer, tmp_path / "run", [2])
    state = load_file(tmp_path / "run" / "adapter_model.safetensors")
    rows = {name: t.shape for name, t in state.items() if "lora_" not in name}
    # The trained rows, and neither embeddings nor head in whole.
    assert list(rows.values()) == [(2, 16)] * (1 if is_tied else 2)
    plain = make_model(tie_word_embeddings=is_tied)
    plain.resize_token_embeddings(34)  # at random: the adapter brings the rows
    opened = PeftModel.from_pretrained(plain, str(tmp_path / "run"))
    assert torch.allclose(logits_of(opened), logits_of(tuned), atol=1e-5)
    ours = make_model(tie_word_embeddings=is_tied)
    add_token_rows(ours, NEW)
    again = apply_tuning(
        ours, LoraTuning(), str(tmp_path / "run"), is_checkpoint=True, new_token_ids=NEW
    )
    assert torch.equal(logits_of(again), logits_of(tuned))
    assert trained(again) == trained(tuned)


def test_a_whole_model_opens_in_transformers(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    tuned = tuned_with(make_model(), FullTuning())
    save_model(tuned, word_tokenizer, tmp_path, [2])
    opened: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path))
    assert torch.equal(logits_of(opened), logits_of(tuned))


def test_a_head_with_a_bias_is_trained_whole(make_model: Make) -> None:
    import transformers as hf

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    model = hf.PhiForCausalLM(hf.PhiConfig(vocab_size=32, num_hidden_layers=1, **sizes))
    tuned = tuned_with(model, LoraTuning())
    others = {n: shape for n, shape in trained(tuned).items() if "lora_" not in n}
    assert sorted(map(tuple, others.values())) == [(2, 16), (34,), (34, 16)]


def test_a_module_that_is_trained_whole_is_left_to_it(make_model: Make) -> None:
    tuning = LoraTuning(additional_target="lm_head")
    tuned = tuned_with(make_model(), tuning)
    others = {n: shape for n, shape in trained(tuned).items() if "lora_" not in n}
    assert sorted(map(tuple, others.values())) == [(2, 16), (34, 16)]


def test_one_of_two_tied_matrices_can_not_be_trained_whole(make_model: Make) -> None:
    tuning = LoraTuning(additional_target="embed_tokens")
    with pytest.raises(SettingsError, match="embeddings and head in one"):
        tuned_with(make_model("gemma"), tuning)


def test_frozen_rows_are_refused(make_model: Make) -> None:
    with pytest.raises(SettingsError, match=r"model\.embed_tokens and lm_head would not") as caught:
        tuned_with(make_model(), FreezeTuning())
    assert "Add embed_tokens,lm_head to freeze_extra_modules" in str(caught.value)
    tuned = tuned_with(make_model(), FreezeTuning(freeze_extra_modules="embed_tokens,lm_head"))
    assert tuned.get_input_embeddings().weight.requires_grad
    apply_tuning(make_model(), FreezeTuning(), new_token_ids=())


def test_an_adapter_with_other_rows_is_refused(
    make_model: Make, word_tokenizer: Any, tmp_path: Path
) -> None:
    save_model(tuned_with(make_model(), LoraTuning()), word_tokenizer, tmp_path / "new", [2])
    save_model(apply_tuning(make_model(), LoraTuning()), word_tokenizer, tmp_path / "plain", [2])
    model = make_model()
    add_token_rows(model, (32, 33, 34))
    with pytest.raises(ModelError, match="rows for the tokens 32, 33, and the new tokens of this"):
        apply_tuning(model, LoraTuning(), str(tmp_path / "new"), new_token_ids=(32, 33, 34))
    with pytest.raises(ModelError, match="this run are none"):
        apply_tuning(make_model(), LoraTuning(), str(tmp_path / "new"), new_token_ids=())
    with pytest.raises(ModelError, match="this adapter has no rows for them"):
        apply_tuning(model, LoraTuning(), str(tmp_path / "plain"), new_token_ids=NEW)

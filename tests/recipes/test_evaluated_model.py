from __future__ import annotations

import pytest
import torch

from luthier.core.errors import ModelError, SettingsError
from luthier.recipes.answering import find_model
from luthier.recipes.evaluated_model import OWN_BASE, choose_base, load_evaluated


def logits(model, ids=(5, 6, 7)):
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits.float()


@pytest.fixture
def lora_run(small_run):
    return small_run.train(learning_rate=0.2).folder


def own_base(folder):
    place = find_model(str(folder))
    return place, choose_base(place, OWN_BASE)


def test_base_and_tuned_come_from_one_load(lora_run, small_run, monkeypatch):
    from transformers import AutoModelForCausalLM

    from luthier.recipes import evaluated_model as module

    loads = []
    real = module.load_its_model

    def counting(*arguments, **settings):
        loads.append(arguments[0])
        return real(*arguments, **settings)

    monkeypatch.setattr(module, "load_its_model", counting)
    place, base = own_base(lora_run)
    found = {}
    for model in load_evaluated(place, "mine", base):
        found[model.role] = logits(model.model)
        assert model.renderer is not None
        assert model.is_packed
        assert not model.model.training
    assert len(loads) == 1
    plain = logits(AutoModelForCausalLM.from_pretrained(small_run.model, dtype=torch.float32))
    torch.testing.assert_close(found["base"], plain)
    (alone,) = load_evaluated(place, "mine", None)
    torch.testing.assert_close(found["tuned"], logits(alone.model))
    assert (found["tuned"] - found["base"]).abs().max() > 0.01


def test_each_model_is_known_by_its_weights(lora_run, tiny_llama):
    place, base = own_base(lora_run)
    of_base, tuned = [model.identity for model in load_evaluated(place, "mine", base)]
    assert "adapter" not in of_base
    assert tuned["adapter"]["weights_sha256"]
    assert tuned["model"] == of_base["model"]
    assert "path" not in tuned["model"]
    (other,) = load_evaluated(find_model(str(tiny_llama("other", hidden_size=16))), "o", None)
    assert other.identity["model"] != of_base["model"]
    assert other.context == 512


def test_the_base_of_a_whole_model_is_the_one_it_was_trained_from(small_run):
    folder = small_run.train(finetuning_type="full", template="alpaca").folder
    place, base = own_base(folder)
    assert base is not None
    assert base.place.weights == str(small_run.model)
    models = list(load_evaluated(place, "mine", base))
    assert [model.role for model in models] == ["base", "tuned"]
    # Both are asked as the run taught it: by its template, not by the base's own.
    first, second = (model.tokenizer.chat_template for model in models)
    assert first == second != small_run_template(small_run)


def small_run_template(small_run):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(small_run.model).chat_template


def test_tokens_that_a_run_added_have_rows_in_its_base(small_run):
    folder = small_run.train(finetuning_type="full", add_tokens=["琴弦", "琴弓"]).folder
    place, base = own_base(folder)
    models = list(load_evaluated(place, "mine", base))
    assert {len(model.tokenizer) for model in models} == {
        model.model.get_input_embeddings().weight.shape[0] for model in models
    }


def test_another_model_is_asked_in_its_own_way(lora_run, tiny_llama, load_tiny):
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = None
    other = tiny_llama("other", tokenizer=tokenizer)
    place = find_model(str(lora_run))
    base = choose_base(place, str(other))
    first, second = load_evaluated(place, "mine", base)
    assert (first.name, first.renderer) == (str(other), None)
    assert first.stop_token_ids == (tokenizer.eos_token_id,)
    assert (second.name, second.role) == ("mine", "tuned")


def test_a_model_of_no_run_has_no_base(tiny_llama):
    place = find_model(str(tiny_llama()))
    assert choose_base(place, None) is None
    with pytest.raises(SettingsError, match=r"which model this one was made from(.|\n)*--base M"):
        choose_base(place, OWN_BASE)


def test_a_base_that_is_not_there_is_told(tiny_llama, tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        choose_base(find_model(str(tiny_llama())), str(tmp_path / "none"))

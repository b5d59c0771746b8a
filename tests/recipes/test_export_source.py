"""The folder that targets start from says what base and adapter say."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.core.errors import ModelError
from luthier.recipes.answering import find_model
from luthier.recipes.export_source import make_source, num_parameters, open_exported

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'luthier[bnb]'",
)
IDS = torch.arange(40).reshape(2, 20) + 5


def log_probs(model):
    with torch.no_grad():
        return model(IDS).logits.float().log_softmax(-1)


def divergence(model, other):
    one, two = log_probs(model), log_probs(other)
    return float((two.exp() * (two - one)).sum(-1).mean())


def source_of(path, folder, *, with_weights=True):
    model = open_exported(find_model(str(path)))
    trained = model.load_trained()
    folder.mkdir()
    stops = model.stop_token_ids(trained)
    return make_source(model, stops, folder, with_weights=with_weights), trained


def opened(source):
    return AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32)


def num_rows(model: Any) -> int:
    return model.get_input_embeddings().weight.shape[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "lora_init": "pissa"},
        {"additional_target": "lm_head"},
        pytest.param({"quantization_bit": 4}, marks=needs_bitsandbytes),
        pytest.param({"quantization_bit": 8}, marks=needs_bitsandbytes),
    ],
    ids=["lora", "dora", "pissa", "head", "nf4", "int8"],
)
def test_the_merged_folder_says_what_was_trained(small_run, tmp_path, settings):
    run = small_run.train(max_steps=2, learning_rate=0.03, **settings).folder
    source, trained = source_of(run, tmp_path / "source")
    assert source.dtype == "float32"
    assert source.adapter == run
    merged = opened(source)
    assert abs(divergence(merged, trained)) < 1e-5
    base = AutoModelForCausalLM.from_pretrained(small_run.model)
    base.resize_token_embeddings(num_rows(merged))
    assert divergence(base, trained) > 1e-4
    is_quantised = "quantization_bit" in settings
    assert (source.quantization is not None) is is_quantised
    assert "quantization_config" not in source.config


def test_rows_of_new_tokens_are_in_the_merged_folder(small_run, tmp_path):
    run = small_run.train(new_special_tokens=["<think>", "</think>"], max_steps=2).folder
    source, trained = source_of(run, tmp_path / "source")
    merged = opened(source)
    base = AutoModelForCausalLM.from_pretrained(small_run.model)
    num_old = num_rows(base)
    assert num_rows(merged) == num_old + 2
    assert source.config["vocab_size"] == num_old + 2
    ids = torch.arange(num_old + 2)[None, -20:]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, trained(ids).logits, rtol=1e-4, atol=1e-4)


def test_stops_template_and_licence_come_along(small_run, tmp_path):
    (small_run.model / "LICENSE").write_text("free")
    settings = {"temperature": 0.7, "do_sample": True, "eos_token_id": 99}
    (small_run.model / "generation_config.json").write_text(json.dumps(settings))
    run = small_run.train(max_steps=1).folder
    source, _ = source_of(run, tmp_path / "source")
    written = json.loads((source.folder / "generation_config.json").read_text())
    assert written["eos_token_id"] == list(source.stop_token_ids)
    assert written["temperature"] == 0.7
    assert written["pad_token_id"] is not None
    template = (run / "chat_template.jinja").read_text()
    assert (source.folder / "chat_template.jinja").read_text() == template
    assert (source.folder / "LICENSE").read_text() == "free"


def test_a_whole_model_is_linked_and_keeps_its_type(tiny_llama, tmp_path):
    folder = tiny_llama()
    AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    (folder / "metrics.jsonl").write_text("{}")
    source, trained = source_of(folder, tmp_path / "source")
    assert (source.dtype, source.kept_dtype) == ("bfloat16", "bfloat16")
    assert (source.folder / "model.safetensors").is_symlink()
    assert not (source.folder / "metrics.jsonl").exists()
    assert divergence(opened(source), trained) == pytest.approx(0, abs=1e-7)


def test_without_weights_nothing_is_merged(small_run, tmp_path):
    run = small_run.train(max_steps=1).folder
    source, _ = source_of(run, tmp_path / "source", with_weights=False)
    assert not list(source.folder.glob("*.safetensors"))
    assert (source.folder / "tokenizer.json").is_file()


def test_a_model_without_a_template_stops_at_its_end_of_text(tiny_llama, load_tiny, tmp_path):
    source, _ = source_of(tiny_llama(tokenizer=load_tiny("llama2")), tmp_path / "source")
    assert source.stop_token_ids == (2,)


def test_half_of_a_tie_is_refused(tiny_llama, tiny_tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = tiny_llama("base", tie_word_embeddings=True)
    config = LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="which are one matrix in its base"):
        source_of(tmp_path / "adapter", tmp_path / "source")


def test_a_reward_model_is_refused(small_run, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(small_run.model, num_labels=1)
    model.save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match="this is a reward model"):
        open_exported(find_model(str(tmp_path / "reward")))


def test_weights_are_counted_from_the_headers(tiny_llama):
    folder = tiny_llama()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert num_parameters(find_model(str(folder))) == sum(p.numel() for p in model.parameters())
    assert num_parameters(find_model("owner/name")) == 0

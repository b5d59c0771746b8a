from __future__ import annotations

import json

import pytest
import torch

from luthier.checkpoints.manifest import seal
from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.core.errors import ModelError
from luthier.models.adapters import apply_tuning
from luthier.models.load import load_model
from luthier.models.save import save_model
from luthier.models.settings import (
    FullTuning,
    LoraTuning,
    ModelSettings,
    QuantizationSettings,
)
from luthier.recipes.answering import load_answering_model

CPU = torch.device("cpu")
QUESTION = (Message("user", "Name three colours."),)


def make_adapter(base, tokenizer):
    """Return a LoRA model on `base` that says something else than its base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return wrapped.eval()


@pytest.fixture
def run_folder(tmp_path, tiny_llama, tiny_tokenizer):
    """A finished LoRA run with one checkpoint, and the model that it holds."""
    model = make_adapter(tiny_llama("base"), tiny_tokenizer)
    folder = tmp_path / "run"
    stops = [tiny_tokenizer.eos_token_id, 77]
    save_model(model, tiny_tokenizer, folder, stops)
    checkpoint = folder / "checkpoints" / "step-000002"
    save_model(model, tiny_tokenizer, checkpoint / "model", stops)
    (checkpoint / "state.json").write_text("{}")
    seal(checkpoint, {"step": 2, "metrics": {}})
    (folder / "run.yaml").write_text(
        "model:\n  model_name_or_path: base\ntokens:\n  default_system: Be brief.\n"
    )
    return folder, model


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits.float()


@pytest.mark.parametrize("place", ["", "checkpoints/step-000002", "checkpoints/step-000002/model"])
def test_a_run_answers_with_its_adapter(run_folder, place):
    folder, model = run_folder
    answering = load_answering_model(str(folder / place), CPU, "float32")
    ids = answering.prompt_ids(QUESTION)
    torch.testing.assert_close(logits(answering.model, ids), logits(model, ids))
    with model.disable_adapter():
        assert (logits(answering.model, ids) - logits(model, ids)).abs().max() > 0.1
    assert not hasattr(answering.model, "peft_config")
    assert not answering.model.training
    assert answering.description.startswith("LoRA on ")
    assert answering.description.endswith(" parameters, float32, cpu")


def test_beside_short_weights_the_adapter_stays_apart(run_folder):
    folder, model = run_folder
    answering = load_answering_model(str(folder), CPU, "bfloat16")
    assert hasattr(answering.model, "peft_config")
    ids = answering.prompt_ids(QUESTION)
    difference = (logits(answering.model, ids) - logits(model, ids)).abs().max()
    assert difference < 0.1


def test_modules_trained_whole_answer_beside_short_weights(tmp_path, tiny_llama, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    base = tiny_llama("base", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = apply_tuning(model, LoraTuning(additional_target="lm_head"))
    save_model(tuned, tiny_tokenizer, tmp_path / "run", [tiny_tokenizer.eos_token_id])
    answering = load_answering_model(str(tmp_path / "run"), CPU, "bfloat16")
    ids = answering.prompt_ids(QUESTION)
    assert (logits(answering.model, ids) - logits(tuned, ids)).abs().max() < 0.1


def test_auto_merges_an_adapter_on_a_cpu(run_folder):
    folder, _ = run_folder
    answering = load_answering_model(str(folder), CPU)
    assert answering.model.dtype == torch.float32
    assert not hasattr(answering.model, "peft_config")


def test_auto_takes_the_type_that_the_device_has(monkeypatch, tiny_llama):
    folder = str(tiny_llama())
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("luthier.recipes.answering.has_native_bf16", lambda _, n=native: n)
        assert load_answering_model(folder, CPU).model.dtype == expected


def test_prompts_are_the_ids_that_training_showed(run_folder):
    folder, _ = run_folder
    answering = load_answering_model(str(folder), CPU, "float32")
    turns = (*QUESTION, Message("assistant", "Red."), Message("user", "琴？"))
    taught = Conversation((*turns, Message("assistant", "木。")), Origin("x", 0))
    (row,) = answering.renderer.render(taught)
    assert answering.prompt_ids(turns) == row.input_ids[: row.answer_starts[-1]]


@pytest.mark.parametrize("place", ["", "checkpoints/step-000002"])
def test_the_default_system_prompt_of_the_training_is_kept(run_folder, place):
    folder, _ = run_folder
    answering = load_answering_model(str(folder / place), CPU, "float32")
    assert "Be brief." in answering.tokenizer.decode(answering.prompt_ids(QUESTION))


def test_a_model_folder_answers_as_it_is(tiny_llama):
    answering = load_answering_model(str(tiny_llama()), CPU, "float32")
    assert answering.description.startswith("whole model, ")
    assert "Be brief." not in answering.tokenizer.decode(answering.prompt_ids(QUESTION))


def test_stop_tokens_come_from_template_tokenizer_and_generation_config(run_folder, tiny_llama):
    folder, _ = run_folder
    adapter = load_answering_model(str(folder), CPU, "float32")
    assert adapter.stop_token_ids == (adapter.tokenizer.eos_token_id, 77)
    base = tiny_llama("other")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 99}))
    whole = load_answering_model(str(base), CPU, "float32")
    assert whole.stop_token_ids == (whole.tokenizer.eos_token_id, 99)


def test_a_bare_adapter_takes_the_tokenizer_of_its_base(tmp_path, tiny_llama, tiny_tokenizer):
    folder = tmp_path / "bare"
    make_adapter(tiny_llama("base"), tiny_tokenizer).save_pretrained(folder)
    answering = load_answering_model(str(folder), CPU, "float32")
    assert answering.tokenizer.chat_template == tiny_tokenizer.chat_template


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_base_model_that_moved_is_named(run_folder):
    folder, _ = run_folder
    edit(folder / "adapter_config.json", base_model_name_or_path="/moved/away/base")
    with pytest.raises(
        ModelError, match="the adapter's base model /moved/away/base is not there"
    ) as e:
        load_answering_model(str(folder), CPU)
    assert e.value.where == str(folder / "adapter_config.json")
    assert "Set base_model_name_or_path in it" in str(e.value.mend)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"base_model_name_or_path": null}', "[" * 100_000]
)
def test_an_adapter_without_a_base_model_is_refused(run_folder, content):
    folder, _ = run_folder
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match="does not say which base model it is for"):
        load_answering_model(str(folder), CPU)


def test_an_unfinished_run_names_its_newest_checkpoint(run_folder):
    folder, _ = run_folder
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="this run is not finished") as caught:
        load_answering_model(str(folder), CPU)
    assert str(caught.value.mend).endswith(str(folder / "checkpoints" / "step-000002"))


def test_an_unfinished_run_without_checkpoint_says_so(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    with pytest.raises(ModelError, match="this run is not finished") as caught:
        load_answering_model(str(tmp_path), CPU)
    assert "no checkpoint either" in str(caught.value.mend)


def test_the_folder_of_checkpoints_is_none_itself(run_folder):
    folder, _ = run_folder
    with pytest.raises(ModelError, match="holds checkpoints, and is none itself") as caught:
        load_answering_model(str(folder / "checkpoints"), CPU)
    assert "step-000002" in str(caught.value.mend)


def test_a_model_without_chat_template_is_refused(tiny_llama):
    folder = tiny_llama()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="the model has no chat template") as caught:
        load_answering_model(str(folder), CPU)
    assert "template: chatml" in str(caught.value.mend)


def test_a_path_that_leads_nowhere_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        load_answering_model(str(tmp_path / "nowhere"), CPU)


def test_a_reward_model_does_not_answer(tmp_path, tiny_llama, tiny_tokenizer):
    base = tiny_llama("base")
    stops = [tiny_tokenizer.eos_token_id]
    for name, tuning in (("lora", LoraTuning()), ("full", FullTuning())):
        settings = ModelSettings(model_name_or_path=str(base))
        loaded = load_model(
            settings, QuantizationSettings(), device=CPU, dtype=torch.float32, kind="reward"
        )
        save_model(apply_tuning(loaded.model, tuning), tiny_tokenizer, tmp_path / name, stops)
        with pytest.raises(ModelError, match="gives answers a number and writes none") as caught:
            load_answering_model(str(tmp_path / name), CPU)
        assert caught.value.where == str(tmp_path / name)

"""Every way in which a model can't be loaded has one message with the mend."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import MissingExtraError, ModelError
from luthier.models.load import LoadedModel, check_model_path, load_model, local_folder
from luthier.models.settings import ModelSettings, QuantizationSettings

Make = Callable[..., Any]
CPU = torch.device("cpu")


def settings(name: str | Path, **values: Any) -> ModelSettings:
    return ModelSettings(model_name_or_path=str(name), **values)


def load(name: str | Path, dtype: torch.dtype = torch.float32, **values: Any) -> LoadedModel:
    return load_model(settings(name, **values), QuantizationSettings(), device=CPU, dtype=dtype)


def refused(name: str | Path, **values: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(name, **values)
    return caught.value


def test_loads_what_was_saved(make_folder: Make, make_model: Make) -> None:
    loaded = load(make_folder())
    assert loaded.notices == ()
    assert loaded.model.config._attn_implementation == "sdpa"
    expected = make_model().state_dict()
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, expected[name])
    assert loaded.model.config.use_cache is True, "it would be saved with the trained model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_have_the_asked_type(make_folder: Make, dtype: torch.dtype) -> None:
    model = load(make_folder(), dtype).model
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_weights_from_a_checkpoint(make_folder: Make, make_model: Make, tmp_path: Path) -> None:
    changed = make_model()
    with torch.no_grad():
        changed.lm_head.weight.fill_(3.0)
    changed.save_pretrained(str(tmp_path / "checkpoint"))
    model: Any = load_model(
        settings(make_folder()),
        QuantizationSettings(),
        device=CPU,
        dtype=torch.float32,
        weights_from=str(tmp_path / "checkpoint"),
    ).model
    assert model.lm_head.weight.max().item() == 3.0


def test_attention_that_is_replaced_is_said(make_folder: Make) -> None:
    loaded = load(make_folder(), flash_attn="fa2")
    (notice,) = loaded.notices
    assert (notice.setting, notice.used) == ("flash_attn", "sdpa")
    assert load(make_folder("b"), flash_attn="eager").model.config._attn_implementation == "eager"


def test_implied_quantisation_is_replaced_and_said(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bitsandbytes(monkeypatch)
    loaded = load_model(
        settings(make_folder(), flash_attn="fa2"),
        QuantizationSettings(bnb_4bit_quant_type="nf4"),
        device=CPU,
        dtype=torch.float32,
    )
    assert [notice.setting for notice in loaded.notices] == ["flash_attn", "bnb_4bit_quant_type"]


def test_asked_quantisation_is_an_order(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    without_bitsandbytes(monkeypatch)
    with pytest.raises(MissingExtraError, match="quantization_bit: 4 needs the package bitsandb"):
        load_model(
            settings(make_folder()),
            QuantizationSettings(quantization_bit=4),
            device=CPU,
            dtype=torch.float32,
        )


def without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest),
    )


def test_a_tied_head_is_not_missing(make_folder: Make) -> None:
    model: Any = load(make_folder(kind="gemma3")).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_missing_folder_names_the_nearest(make_folder: Make) -> None:
    folder = make_folder("SmolLM2-135M")
    error = refused(folder.with_name("SmolLM-135M"))
    assert error.problem == "no such model folder"
    assert error.mend == f"Did you mean {folder}?"
    error = refused(folder / "deeper" / "still")
    assert error.mend == "Check the path; a hub name has the form owner/name."


@pytest.mark.parametrize("path", ["./nothing", "~/nothing/here", "a/b/c", "/nothing/here"])
def test_what_looks_like_a_path_is_not_sought_on_the_hub(path: str) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        check_model_path(settings(path))


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B"])
def test_what_looks_like_a_hub_name_is_one(name: str) -> None:
    assert local_folder(name) is None
    check_model_path(settings(name))


def test_a_wrong_name_in_a_folder_of_models(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("llama-tiny")
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(ModelError, match="no such model folder") as caught:
        local_folder(f"{folder.parent.name}/lama-tiny")
    assert caught.value.mend == f"Did you mean {folder.parent.name}/llama-tiny?"


def test_home_is_expanded(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("tiny")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert local_folder("~/tiny") == folder
    assert load("~/tiny").model.config.vocab_size == 32


def test_a_file_is_no_model(make_folder: Make) -> None:
    error = refused(make_folder() / "model.safetensors")
    assert error.problem == "model_name_or_path is a file"


def test_a_hub_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants
    import transformers.utils.hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(transformers.utils.hub, "is_offline_mode", lambda: True)
    error = refused("someone/no-such-model")
    assert error.problem.startswith("the model can't be fetched from the hub: ")
    assert error.where == "someone/no-such-model"


def test_a_folder_without_weights(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "model.safetensors").unlink()
    assert refused(folder).problem == "the folder holds no weights (*.safetensors)"


@pytest.mark.parametrize("size", [3, 5000])
def test_weights_that_are_cut_off(make_folder: Make, size: int) -> None:
    path = make_folder() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    error = refused(path.parent)
    assert error.problem.startswith("the weights can't be used: ")
    assert error.where == str(path)
    assert "The download may be incomplete" in str(error.mend)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 32},
        {"hidden_size": "wide"},
        {"model_type": "no-such-architecture"},
        {"model_type": "vit"},
        {"num_attention_heads": 0},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit(make_folder: Make, config: dict[str, Any]) -> None:
    error = refused(make_folder(**config))
    assert error.problem.startswith("transformers can't load this model: ")
    assert "\n" not in error.problem


def test_pickled_weights_are_refused_before_anything_slow(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for attempt in (lambda: check_model_path(settings(folder)), lambda: load(folder)):
        with pytest.raises(ModelError, match=r"the weights are pickled \(pytorch_model\.bin\)"):
            attempt()


def test_missing_weights_are_not_made_up(make_folder: Make) -> None:
    """transformers fills them with random numbers and goes on."""
    error = refused(make_folder(num_hidden_layers=4))
    assert error.problem == (
        "the weights of 9 parameters are missing, such as model.layers.3.input_layernorm.weight"
    )


def test_code_in_the_config_is_refused(make_folder: Make) -> None:
    folder = make_folder(auto_map={"AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text("raise SystemExit('the code was run')")
    with pytest.raises(ModelError, match="wants to run its own Python code"):
        load(folder)
    with pytest.raises(ModelError, match="wants to run its own Python code"):
        check_model_path(settings(folder))
    check_model_path(settings(folder, trust_remote_code=True))


def test_a_checkpoint_is_checked_like_a_model(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    other = tmp_path / "checkpoint"
    shutil.copytree(folder, other)
    path = other / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {}}))
    with pytest.raises(ModelError, match="wants to run its own Python code"):
        load_model(
            settings(folder),
            QuantizationSettings(),
            device=CPU,
            dtype=torch.float32,
            weights_from=str(other),
        )

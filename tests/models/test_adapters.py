"""What is trained is what was asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import ModelError, SettingsError
from luthier.models.adapters import apply_tuning, count_parameters, linear_names
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning

Make = Callable[..., Any]
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


PARTS = [("self_attn", name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
PARTS += [("mlp", name) for name in ("gate_proj", "up_proj", "down_proj")]


def trained(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def adapted(model: Any) -> set[str]:
    """Return the paths of the modules that have a trained adapter, within the base model."""
    names = {name for name in trained(model) if ".lora_A." in name}
    return {name.split(".lora_A.")[0].removeprefix("base_model.model.") for name in names}


def test_full_trains_everything(make_model: Make) -> None:
    model = make_model()
    model.requires_grad_(False)
    assert apply_tuning(model, FullTuning()) is model
    assert trained(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("tuning", [FullTuning(), FreezeTuning()])
def test_whole_weights_lie_as_torch_lays_them(make_folder: Make, tuning: Any) -> None:
    """In a file they lie where its header ends, and rounding differs from file to file."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(make_folder()), dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    places = {p.data_ptr() % 64 for p in model.parameters()}
    assert places != {0}, "else this test says nothing"
    tuned = apply_tuning(model, tuning)
    assert {p.data_ptr() % 64 for p in tuned.parameters()} == {0}
    for name, weight in tuned.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gpt2"])
def test_lora_on_all_linear_layers_but_the_head(make_model: Make, kind: str) -> None:
    base = make_model(kind)
    expected = linear_names(base)
    model = apply_tuning(base, LoraTuning())
    assert all("lora_" in name for name in trained(model))
    assert {name.split(".")[-1] for name in adapted(model)} == expected
    assert expected == ({"c_attn", "c_proj", "c_fc"} if kind == "gpt2" else LINEAR)


def test_lora_settings_reach_peft(make_model: Make) -> None:
    tuning = LoraTuning(
        lora_target="q_proj,v_proj", lora_rank=4, lora_dropout=0.1, use_rslora=True, use_dora=True
    )
    model = apply_tuning(make_model(), tuning)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.1)
    assert (config.use_rslora, config.use_dora, config.task_type) == (True, True, "CAUSAL_LM")
    assert {name.split(".")[-1] for name in adapted(model)} == {"q_proj", "v_proj"}
    assert (
        apply_tuning(make_model(), LoraTuning(lora_alpha=5)).peft_config["default"].lora_alpha == 5
    )


@pytest.mark.parametrize("target", ["model.layers.1.self_attn.q_proj", "layers.1.self_attn.q_proj"])
def test_lora_on_one_layer_by_its_path(make_model: Make, target: str) -> None:
    model = apply_tuning(make_model(), LoraTuning(lora_target=target))
    assert adapted(model) == {"model.layers.1.self_attn.q_proj"}


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        (r"model\.layers\.[01]\.self_attn\.q_proj", {"0.self_attn.q_proj", "1.self_attn.q_proj"}),
        (
            r".*\.(0|2)\.mlp\.(up|down)_proj",
            {f"{n}.mlp.{m}_proj" for n in "02" for m in ("up", "down")},
        ),
        (r".*\.1\..*_proj", {f"1.{p}.{m}" for p, m in PARTS}),
    ],
)
def test_lora_by_a_regular_expression(make_model: Make, pattern: str, paths: set[str]) -> None:
    model = apply_tuning(make_model(), LoraTuning(lora_target=pattern))
    assert adapted(model) == {f"model.layers.{path}" for path in paths}


@pytest.mark.parametrize("pattern", [r".*lm_hea[d]", r"q_proj.*", r"(self_attn)"])
def test_a_regular_expression_matches_whole_paths(make_model: Make, pattern: str) -> None:
    with pytest.raises(SettingsError, match="lora_target matches no linear layer") as error:
        apply_tuning(make_model(), LoraTuning(lora_target=pattern))
    assert "such as model.layers.0.mlp.down_proj" in str(error.value.mend)


@pytest.mark.parametrize(("init", "peft_name"), [("default", True), ("gaussian", "gaussian")])
def test_the_beginning_of_an_adapter_is_pefts(make_model: Make, init: str, peft_name: Any) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    ours = apply_tuning(make_model(), LoraTuning(lora_init=init))
    base = make_model()
    torch.manual_seed(0)
    config: Any = LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=peft_name
    )
    theirs = get_peft_model(base, config)
    kinds = [
        torch.cat(
            [p.detach().flatten() for n, p in model.named_parameters() if "lora_A" in n]
        ).std()
        for model in (ours, theirs)
    ]
    assert float(kinds[0]) == pytest.approx(float(kinds[1]), rel=0.1)
    assert all(not p.any() for n, p in ours.named_parameters() if "lora_B" in n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_trained_is_float32(make_model: Make, dtype: torch.dtype) -> None:
    base = make_model().to(dtype)
    model = apply_tuning(base, LoraTuning(additional_target="lm_head"))
    kinds = {p.dtype for p in model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    assert model.get_base_model().model.embed_tokens.weight.dtype == dtype


def test_additional_target_is_trained_whole(make_model: Make) -> None:
    model = apply_tuning(make_model(), LoraTuning(additional_target="lm_head"))
    whole = {name for name in trained(model) if "lora_" not in name}
    assert whole == {"base_model.model.lm_head.modules_to_save.default.weight"}


@pytest.mark.parametrize(
    ("target", "mend"),
    [
        ("q_porj", "Did you mean q_proj? It has: down_proj, gate_proj, k_proj, o_proj, "),
        ("attention", "It has: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."),
        ("model.layers.9.self_attn.q_proj", "Did you mean q_proj? "),
        ("lm_head", "It has: down_proj, "),
        ("embed_tokens", "It has: down_proj, "),
    ],
)
def test_an_unknown_lora_target_lists_the_known(make_model: Make, target: str, mend: str) -> None:
    with pytest.raises(SettingsError, match=f"lora_target names {target}, and this model") as error:
        apply_tuning(make_model(), LoraTuning(lora_target=f"v_proj,{target}"))
    assert str(error.value.mend).startswith(mend)
    assert "no such linear layer below its head" in error.value.problem


def test_an_unknown_additional_target_lists_the_known(make_model: Make) -> None:
    with pytest.raises(SettingsError, match="additional_target names lm_heads, and") as error:
        apply_tuning(make_model(), LoraTuning(additional_target="lm_heads"))
    assert str(error.value.mend).startswith("Did you mean lm_head? It has: act_fn, ")
    assert " 0," not in str(error.value.mend)


def test_training_on_from_an_adapter(make_model: Make, tmp_path: Path) -> None:
    first = apply_tuning(make_model(), LoraTuning(lora_rank=4, lora_target="q_proj"))
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    first.save_pretrained(str(tmp_path / "adapter"))
    second = apply_tuning(make_model(), LoraTuning(lora_rank=99), str(tmp_path / "adapter"))
    assert trained(second) == trained(first)
    expected = dict(first.named_parameters())
    for name, parameter in second.named_parameters():
        assert torch.equal(parameter, expected[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_is_exact_beside_a_narrow_base(
    make_model: Make, tmp_path: Path, dtype: torch.dtype
) -> None:
    tuning = LoraTuning(lora_target="q_proj", additional_target="lm_head")
    first = apply_tuning(make_model().to(dtype), tuning)
    with torch.no_grad():
        for parameter in first.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 3)
    first.save_pretrained(str(tmp_path / "adapter"))
    second = apply_tuning(make_model().to(dtype), tuning, str(tmp_path / "adapter"))
    expected = dict(first.named_parameters())
    assert trained(second) == trained(first)
    for name, parameter in second.named_parameters():
        assert parameter.dtype == expected[name].dtype
        assert torch.equal(parameter, expected[name]), name
        assert parameter.requires_grad == expected[name].requires_grad


def test_an_adapter_of_another_model(make_model: Make, tmp_path: Path) -> None:
    other = apply_tuning(make_model(hidden_size=32), LoraTuning())
    other.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="the adapter does not load onto this model") as error:
        apply_tuning(make_model(), LoraTuning(), str(tmp_path / "adapter"))
    assert error.value.where == str(tmp_path / "adapter")
    assert "\n" not in error.value.problem


@pytest.mark.parametrize("harm", ["missing", "empty", "no config", "broken config", "cut off"])
def test_a_folder_that_is_no_adapter(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "adapter"
    if harm != "missing":
        folder.mkdir()
    if harm not in ("missing", "empty"):
        apply_tuning(make_model(), LoraTuning()).save_pretrained(str(folder))
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if harm == "no config":
        config.unlink()
    if harm == "broken config":
        config.write_text("{")
    if harm == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    said = {"broken config": "not valid JSON", "cut off": "the weights can't be used"}
    with pytest.raises(ModelError, match=said.get(harm, "the adapter does not load onto this")):
        apply_tuning(make_model(), LoraTuning(), str(folder))


def test_counting_parameters(make_model: Make) -> None:
    base = make_model()
    total = sum(p.numel() for p in base.parameters())
    assert (count_parameters(base).trained, count_parameters(base).total) == (total, total)
    model = apply_tuning(base, LoraTuning(lora_rank=2, lora_target="q_proj"))
    found = count_parameters(model)
    assert found.trained == 3 * (2 * 16 + 16 * 2)
    assert found.total == total + found.trained


def test_a_packed_weight_counts_as_what_it_stands_for() -> None:
    params4bit = type("Params4bit", (torch.nn.Parameter,), {})
    model = torch.nn.Module()
    model.register_parameter("packed", params4bit(torch.zeros(8, 1)))
    assert count_parameters(model).total == 16

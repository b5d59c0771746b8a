"""What is saved opens on the original base in plain peft; what goes on is what was, bit by bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import ModelError
from luthier.models.adapters import apply_tuning
from luthier.models.fixed_terms import TRAINED_PART, join_terms, joined_adapter, trained_part
from luthier.models.save import take_model
from luthier.models.settings import LoraTuning

Make = Callable[..., Any]
IDS = torch.arange(1, 13)[None]
TAKING = ["pissa", "pissa_niter_8", "olora"]


class Tokenizer:
    """Writes nothing: what is saved beside the adapter is not looked at here."""

    pad_token_id = 0

    def save_pretrained(self, folder: Path) -> None: ...


def save(tuned: Any, folder: Path, *, as_copy: bool = False) -> Path:
    tokenizer: Any = Tokenizer()
    take_model(tuned, tokenizer, [2], as_copy=as_copy).write(folder)
    return folder


def train(tuned: Any, steps: int = 3) -> None:
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for _ in range(steps):
        tuned(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def on_original_base(base: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base), str(folder))


def make_adapter(base: Any, folder: Path, seed: int, **values: Any) -> Path:
    """Save a LoRA of plain peft's whose B is not zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    values = {"target_modules": ["q_proj", "v_proj"], "r": 2, "lora_alpha": 3, **values}
    tuned: Any = get_peft_model(
        copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **values)
    )
    tuned.save_pretrained(str(folder))
    return folder


def tune(base: Any, tuning: LoraTuning, *args: Any, **options: Any) -> Any:
    return apply_tuning(copy.deepcopy(base), tuning, *args, **options)


def assert_bit_equal(one: Any, other: Any) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("values", [{}, {"use_rslora": True, "lora_alpha": 5}], ids=["plain", "rs"])
@pytest.mark.parametrize("init", TAKING)
def test_what_was_taken_from_the_base_is_given_back(
    make_model: Make, tmp_path: Path, init: str, values: dict[str, Any]
) -> None:
    base = make_model(initializer_range=0.3)
    tuned = tune(base, LoraTuning(lora_init=init, lora_rank=4, **values))
    # It begins as the base, from other weights.
    torch.testing.assert_close(logits(tuned), logits(base), rtol=0, atol=1e-5)
    layer = tuned.get_base_model().model.layers[0].self_attn.q_proj
    original = base.model.layers[0].self_attn.q_proj.weight
    assert not torch.allclose(layer.base_layer.weight, original, atol=1e-3)
    train(tuned.train())
    assert not torch.allclose(logits(tuned), logits(base), atol=1e-2)
    loaded = on_original_base(base, save(tuned, tmp_path / "out"))
    torch.testing.assert_close(logits(loaded), logits(tuned), rtol=0, atol=1e-4)
    assert loaded.peft_config["default"].r == 8


@pytest.mark.parametrize("init", TAKING)
def test_in_float32_it_begins_as_in_peft(make_model: Make, init: str) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_model(initializer_range=0.3)
    torch.manual_seed(1)
    ours = tune(base, LoraTuning(lora_init=init, lora_rank=4, lora_target="q_proj"))
    torch.manual_seed(1)
    values: dict[str, Any] = {"init_lora_weights": init, "target_modules": ["q_proj"]}
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **values)
    theirs = get_peft_model(copy.deepcopy(base), config)
    for name, tensor in ours.state_dict().items():
        if "niter" not in init:  # there the directions are drawn
            torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("init", TAKING)
def test_a_checkpoint_goes_on_as_it_was(
    make_model: Make, tmp_path: Path, init: str, dtype: torch.dtype
) -> None:
    base = make_model(initializer_range=0.3).to(dtype)
    tuning = LoraTuning(lora_init=init, lora_rank=4, use_rslora=True, lora_dropout=0.1)
    tuned = tune(base, tuning)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    folder = save(tuned, tmp_path / "checkpoint")
    again = tune(base, tuning, str(folder), is_checkpoint=True)
    assert_bit_equal(tuned, again)
    assert again.peft_config["default"].lora_dropout == 0.1
    trained = {n for n, p in again.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in tuned.named_parameters() if p.requires_grad}
    second = save(again, tmp_path / "second")
    for name in ("adapter_model.safetensors", "adapter_config.json", TRAINED_PART):
        assert (second / name).read_bytes() == (folder / name).read_bytes()


def test_a_finished_run_is_trained_on_as_one_adapter(make_model: Make, tmp_path: Path) -> None:
    base = make_model()
    folder = save(tune(base, LoraTuning(lora_init="pissa", lora_rank=4)), tmp_path / "out")
    on = tune(base, LoraTuning(), str(folder))
    assert on.peft_config["default"].r == 8
    assert "fixed_A" not in dict(on.named_buffers())
    assert trained_part(save(on, tmp_path / "next")) is None


def merged_by_peft(base: Any, folders: Sequence[Path]) -> Any:
    for folder in folders:
        base = on_original_base(base, folder).merge_and_unload()
    return base


@pytest.mark.parametrize("create_new", [False, True])
def test_a_stack_of_adapters_is_saved_as_one(
    make_model: Make, tmp_path: Path, create_new: bool
) -> None:
    base = make_model(initializer_range=0.3)
    first = make_adapter(base, tmp_path / "a", 1)
    second = make_adapter(
        base, tmp_path / "b", 2, target_modules=["v_proj", "up_proj"], r=3, use_rslora=True
    )
    if create_new:
        tuning = LoraTuning(lora_target="o_proj,v_proj", lora_rank=4)
        tuned = tune(base, tuning, merged=[str(first), str(second)])
        most = 5
    else:
        tuned = tune(base, LoraTuning(), str(second), merged=[str(first)])
        most = 2
    expected = merged_by_peft(base, [first, second])
    torch.testing.assert_close(logits(tuned), logits(expected), rtol=0, atol=1e-5)
    train(tuned.train())
    assert not torch.allclose(logits(tuned), logits(expected), atol=1e-3)
    folder = save(tuned, tmp_path / "out", as_copy=True)
    loaded = on_original_base(base, folder)
    torch.testing.assert_close(logits(loaded), logits(tuned), rtol=0, atol=1e-4)
    assert loaded.peft_config["default"].r == (4 if create_new else 3) + most
    again = tune(base, LoraTuning(), str(folder), is_checkpoint=True)
    assert_bit_equal(tuned, again)


def test_gpt2_holds_its_matrices_the_other_way_round(make_model: Make, tmp_path: Path) -> None:
    base = make_model("gpt2")
    values: dict[str, Any] = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    adapter = make_adapter(base, tmp_path / "a", 1, **values)
    tuned = tune(base, LoraTuning(lora_target="c_attn", lora_rank=2), merged=[str(adapter)])
    expected = on_original_base(base, adapter)
    torch.testing.assert_close(logits(tuned), logits(expected), rtol=0, atol=1e-5)
    loaded = on_original_base(base, save(tuned, tmp_path / "out"))
    torch.testing.assert_close(logits(loaded), logits(tuned), rtol=0, atol=1e-5)


def test_terms_on_a_layer_add_up() -> None:
    one = {"q": (torch.ones(1, 2), torch.ones(3, 1))}
    other = {"q": (torch.ones(2, 2), torch.ones(3, 2)), "v": (torch.ones(1, 2), torch.ones(3, 1))}
    joined = join_terms(one, other)
    a, b = joined["q"]
    assert torch.equal(b @ a, torch.full((3, 2), 3.0))
    assert joined["v"] == other["v"]
    assert one["q"][0].shape == (1, 2)


def test_a_plain_adapter_is_saved_as_it_is(make_model: Make, tmp_path: Path) -> None:
    tuned = tune(make_model(), LoraTuning(lora_rank=4))
    assert joined_adapter(tuned, {}, tuned.peft_config["default"]) is None
    folder = save(tuned, tmp_path)
    assert not (folder / TRAINED_PART).exists()


def test_the_files_say_what_is_trained(make_model: Make, tmp_path: Path) -> None:
    tuned = tune(make_model(), LoraTuning(lora_init="pissa", lora_rank=4, lora_target="q_proj"))
    folder = save(tuned, tmp_path)
    trained = json.loads((folder / TRAINED_PART).read_text())
    paths = [f"model.layers.{number}.self_attn.q_proj" for number in range(3)]
    wanted = {"r": 4, "lora_alpha": 8, "use_rslora": False, "target_modules": paths}
    assert trained == wanted == trained_part(folder)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules that are trained whole"),
        ({"bias": "lora_only"}, "biases"),
        ({"target_modules": ["embed_tokens"]}, "an adapter on embeddings"),
        ({"trainable_token_indices": [1, 2]}, "trained tokens"),
    ],
)
def test_more_than_products_is_not_merged(
    make_model: Make, tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    base = make_model("qwen2")
    adapter = make_adapter(base, tmp_path / "a", 1, **values)
    with pytest.raises(ModelError, match=f"{adapter}: this adapter has {reason}"):
        tune(base, LoraTuning(), merged=[str(adapter)])


def test_layers_of_several_scales_take_no_term(make_model: Make, tmp_path: Path) -> None:
    base = make_model()
    below = make_adapter(base, tmp_path / "a", 1)
    above = make_adapter(base, tmp_path / "b", 2, rank_pattern={"v_proj": 1})
    with pytest.raises(ModelError, match="have scales of their own"):
        tune(base, LoraTuning(), str(above), merged=[str(below)])
    dora = make_adapter(base, tmp_path / "c", 3, use_dora=True)
    with pytest.raises(ModelError, match="is a DoRA, whose magnitudes"):
        tune(base, LoraTuning(), str(dora), merged=[str(below)])
    with pytest.raises(ModelError, match=r"missing: .*adapter"):
        tune(base, LoraTuning(), merged=[str(tmp_path / "missing")])

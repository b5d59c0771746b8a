"""EVA's directions against the singular vectors of all inputs at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import ModelError
from luthier.models import eva
from luthier.models.adapters import apply_tuning
from luthier.models.eva import input_directions
from luthier.models.save import save_model
from luthier.models.settings import LoraTuning

Make = Callable[..., Any]
PATH = "model.layers.0.self_attn.q_proj"


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 32, (4, 24), generator=random)
    labels = ids.clone()
    labels[:, :4] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def inputs_of(model: Any, path: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(path).register_forward_hook(lambda _m, x, _y: seen.append(x[0]))
    with torch.no_grad():
        model(input_ids=inputs["input_ids"])
    hook.remove()
    return seen[0][inputs["labels"] != -100]


def test_they_are_the_singular_vectors_of_the_supervised_inputs(make_model: Make) -> None:
    model, inputs = make_model().eval(), batch()
    generator = torch.get_rng_state()
    paths = [PATH, "model.layers.1.mlp.down_proj"]
    found = input_directions(model, paths, 3, [inputs])
    assert found.keys() == set(paths)
    assert torch.equal(torch.get_rng_state(), generator)
    for path in paths:
        rows_RK = found[path]
        states = inputs_of(model, path, inputs)
        expected_RK = torch.linalg.svd(states - states.mean(0)).Vh[:3]
        assert rows_RK.dtype == torch.float32
        assert torch.allclose(rows_RK @ rows_RK.t(), torch.eye(3), atol=1e-5)
        # peft's decomposition is a randomised one: as much of the variance, but for half a percent.
        centred = states - states.mean(0)
        kept, most = (float((centred @ rows.t()).norm() ** 2) for rows in (rows_RK, expected_RK))
        assert 0.995 * most < kept <= 1.0001 * most


@pytest.mark.parametrize("target", ["all", ["q_proj", "up_proj"], r"model\.layers\.0\..*_proj"])
def test_adapters_begin_there_and_open_on_the_base(
    make_model: Make, word_tokenizer: Any, tmp_path: Path, target: Any
) -> None:
    from peft import PeftModel

    tuning = LoraTuning(lora_rank=4, lora_init="eva", lora_target=target)
    tuned = apply_tuning(make_model(), tuning, first_batches=[batch(), batch(1)])
    layers = [m for m in tuned.modules() if hasattr(m, "lora_A") and len(m.lora_A)]
    assert len(layers) == {"all": 21, str: 7}.get(target, 7) if isinstance(target, str) else 6
    for layer in layers:
        a_RK, b_MR = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert torch.allclose(a_RK @ a_RK.t(), torch.eye(4), atol=1e-5)
        assert a_RK.requires_grad
        assert not b_MR.any()
        torch.nn.init.normal_(b_MR)
    save_model(tuned, word_tokenizer, tmp_path, [2])
    opened = PeftModel.from_pretrained(make_model(), str(tmp_path))
    ids = batch()["input_ids"]
    with torch.no_grad():
        assert torch.equal(opened.eval()(ids).logits, tuned.eval()(ids).logits)


def test_a_narrow_layer_has_not_as_many(make_model: Make) -> None:
    with pytest.raises(ModelError, match=r"wants 20 directions, and model\S+ has only 16"):
        input_directions(make_model(), [PATH], 20, [batch()])


def test_directions_that_never_stay_are_given_up(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eva, "MAX_PASSES", 2)
    with pytest.raises(ModelError, match="found no directions that stay in 2 passes"):
        input_directions(make_model(), [PATH], 8, [batch(seed) for seed in range(6)])

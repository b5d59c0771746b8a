"""Names stand for whole parts of paths, from the end."""

from __future__ import annotations

import pytest

from luthier.core.errors import SettingsError
from luthier.models.module_names import check_modules, is_named, layer_number

PATHS = {"model.layers.0.q_proj", "model.layers.1.q_proj", "lm_head", "model.norm"}


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.0.q_proj", "q_proj", True),
        ("model.layers.0.q_proj", "0.q_proj", True),
        ("model.layers.0.q_proj", "proj", False),
        ("model.layers.0.q_proj", "layers.0", False),
    ],
)
def test_is_named(path: str, name: str, expected: bool) -> None:
    assert is_named(path, name) is expected


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    check_modules("setting", ["q_proj", "1.q_proj", "lm_head"], PATHS, "module")
    with pytest.raises(SettingsError, match="setting names nrm, and this model has no such") as bad:
        check_modules("setting", ["q_proj", "nrm"], PATHS, "module")
    assert bad.value.mend == "Did you mean norm? It has: lm_head, norm, q_proj."


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("model.layers.12.mlp.up_proj.weight", 12),
        ("transformer.h.3.ln_1.weight", 3),
        ("model.blocks.0.x", 0),
        ("base_model.model.model.layers.1.mlp.up_proj.lora_A.default.weight", 1),
        ("model.embed_tokens.weight", None),
        ("model.layers.weight", None),
    ],
)
def test_layer_number(name: str, number: int | None) -> None:
    assert layer_number(name) == number

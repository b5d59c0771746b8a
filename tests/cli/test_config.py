"""`luthier config`: each setting, its value, and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.cli import config
from luthier.core.errors import SettingsError
from luthier.recipes.config_layout import leaves, sections


def cells(text: str) -> dict[str, str]:
    """Return what stands beside each setting, by its name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        found.setdefault(name, " ".join(rest.split()))
    return found


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(
        "model_name_or_path: models/[bold]x\nlora_target: q_proj,v_proj\nbf16: true\n", "utf-8"
    )
    return str(path)


def test_the_list_of_all_settings(capture: Any):
    out = capture(config)
    config.run([])
    found = cells(out.getvalue())
    for name in [*leaves(), *sections()]:
        assert name in found, name
    assert found["learning_rate"].startswith("2e-05 Highest learning rate.")
    assert found["model_name_or_path"].startswith("required A local model folder")
    assert found["max_steps"].startswith("- Optimiser steps")
    assert found["gradient_checkpointing"].startswith("auto ")
    text = " ".join(out.getvalue().split())
    assert text.count("(only with finetuning_type: freeze)") == 7
    optims = "adamw_torch or muon or schedule_free_adamw or adamw_8bit or paged_adamw_8bit"
    assert f"(only with optim: {optims})" in text


def test_values_and_where_they_came_from(capture: Any, file: str):
    out = capture(config)
    config.run([file, "--seed", "7", "--fp16", "false"])
    found = cells(out.getvalue())
    assert found["lora_target"] == "q_proj, v_proj a.yaml:2"
    assert found["model_name_or_path"] == "models/[bold]x a.yaml:1"
    assert found["seed"] == "7 --seed"
    assert found["bf16"] == "true a.yaml:3"
    assert found["fp16"] == "false --fp16"
    assert found["learning_rate"] == "2e-05 default"
    assert found["max_steps"] == "- default"
    assert "freeze_trainable_layers" not in found
    assert "meaning" not in found["setting"]


def test_a_wide_terminal_shows_the_meaning_too(
    capture: Any, file: str, monkeypatch: pytest.MonkeyPatch
):
    out = capture(config)
    monkeypatch.setattr(config.console, "_width", 200)
    config.run([file])
    assert cells(out.getvalue())["learning_rate"].startswith("2e-05 default Highest learning rate.")


def test_a_mistake_is_an_error(capture: Any, file: str):
    out = capture(config)
    with pytest.raises(SettingsError, match="Did you mean learning_rate"):
        config.run([file, "--learing_rate", "1"])
    with pytest.raises(SettingsError, match="model_name_or_path is not set"):
        config.run(["--seed", "1"])
    assert out.getvalue() == ""

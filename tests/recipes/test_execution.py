"""How a run's model is made to run: recomputed where memory asks for it, compiled where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.models.compiled_layers import decoder_layers
from luthier.recipes import execution
from luthier.recipes.job import build_job


@pytest.fixture
def build(small_run: Any, recorder: Any):
    def build(*flags: str, **settings: Any) -> Any:
        return build_job(small_run.config(*flags, **settings), Path("out"), None, recorder)

    return build


def recomputes(job: Any) -> bool:
    return all(layer.gradient_checkpointing for layer in decoder_layers(job.model))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_auto_recomputes_where_memory_is_short_and_says_so(
    build: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch, tuning: str
):
    assert not recomputes(build("--finetuning_type", tuning))
    assert recorder.notices == []
    monkeypatch.setattr(execution, "available_memory", lambda device: 1_000)
    job = build("--finetuning_type", tuning)
    assert recomputes(job)
    (notice,) = recorder.notices
    assert (notice.setting, notice.asked, notice.used) == ("gradient_checkpointing", "auto", "true")
    assert notice in job.notices


@pytest.mark.parametrize("asked", ["true", "false"])
def test_what_is_asked_for_is_done_and_not_said(
    build: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch, asked: str
):
    monkeypatch.setattr(execution, "available_memory", lambda device: 1_000)
    assert recomputes(build("--gradient_checkpointing", asked)) == (asked == "true")
    assert recorder.notices == []


def test_remembered_activations_will_take_their_share(build: Any, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    real = execution.choose_recomputation

    def choose(config: Any, shape: Any, lengths: Any, computing: Any, **named: Any) -> Any:
        seen.append(computing)
        return real(config, shape, lengths, computing, **named)

    monkeypatch.setattr(execution, "choose_recomputation", choose)
    monkeypatch.setattr(execution, "available_memory", lambda device: 10_000_000)
    monkeypatch.setattr(execution, "memory_to_come", lambda head: 4_000_000)
    build()
    assert seen[-1].available_bytes == 6_000_000
    assert not seen[-1].full_logits
    assert seen[-1].value_bytes == 4


def test_layers_are_compiled_where_asked(
    build: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
):
    def is_compiled(layer: Any) -> bool:
        return layer._compiled_call_impl is not None

    assert not any(map(is_compiled, decoder_layers(build().model)))
    monkeypatch.setattr("luthier.models.compiled_layers.missing_compiler", lambda kind: None)
    assert all(map(is_compiled, decoder_layers(build("--torch_compile").model)))
    assert recorder.notices == []
    monkeypatch.setattr("luthier.models.compiled_layers.missing_compiler", lambda kind: "no g++")
    job = build("--torch_compile")
    assert not any(map(is_compiled, decoder_layers(job.model)))
    assert str(recorder.notices[0]) == "torch_compile: true -> false (no g++)"


def test_on_a_cpu_liger_is_not_used(build: Any, recorder: Any):
    build("--use_liger_kernel")
    assert [notice.setting for notice in recorder.notices] == ["use_liger_kernel"]

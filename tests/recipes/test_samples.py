"""Samples of a real small run: what is written, what a stop leaves, what they do not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.training import Progress, Sample, SampleRecord
from luthier.core.errors import DataError
from luthier.core.hashing import hash_file
from luthier.recipes.samples import SAMPLES, SamplesFile, read_samples

ASKED: dict[str, Any] = {
    "sample_prompts": ["How are you?", "你好"],
    "sample_steps": 3,
    "sample_max_new_tokens": 6,
}


def record(step: int, *answers: str) -> SampleRecord:
    samples = tuple(Sample("?", answer, "stop") for answer in answers)
    return SampleRecord(step, step / 4, samples, 0.5)


def test_a_run_shows_what_its_model_says(small_run: Any):
    trained = small_run.train(**ASKED)
    lines = read_samples(trained.folder / SAMPLES)
    assert [(line["step"], line["prompt"]) for line in lines] == [
        (step, prompt) for step in (0, 3, 6, 8) for prompt in ASKED["sample_prompts"]
    ]
    assert all(line["finish_reason"] in ("stop", "length") for line in lines)
    assert [record.step for record in trained.screen.samples] == [0, 3, 6, 8]
    timed = [m for m in trained.metrics() if m["kind"] == "sample"]
    assert [m["step"] for m in timed] == [0, 3, 6, 8]
    assert all(m["seconds"] > 0 for m in timed)


def test_looking_at_the_model_changes_no_weight(small_run: Any):
    settings = {"lora_dropout": 0.1, "save_strategy": "no"}
    plain = small_run.train(**settings, output_dir=str(small_run.folder / "plain"))
    looked = small_run.train(**settings, **ASKED)
    name = "adapter_model.safetensors"
    assert hash_file(plain.folder / name) == hash_file(looked.folder / name)


def test_a_run_that_goes_on_says_nothing_twice(small_run: Any):
    small_run.train(**ASKED, output_dir=str(small_run.folder / "whole"))
    small_run.train(**ASKED, stop_after=4)
    small_run.train("--resume_from_checkpoint", **ASKED)
    whole, resumed = (small_run.folder / name / SAMPLES for name in ("whole", "out"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_documents_are_gone_on_with(small_run: Any, write_file: Any):
    text = write_file("text.txt", "The cat sat on the mat.\n" * 6)
    trained = small_run.train(
        **ASKED, stage="pt", train_file=str(text), val_file=None, packing=False, num_train_epochs=1
    )
    assert len(read_samples(trained.folder / SAMPLES)) >= 4


def test_a_prompt_that_fills_the_context_is_named_before_the_first_step(small_run: Any):
    with pytest.raises(DataError, match="no room for an answer") as error:
        small_run.train(**(ASKED | {"sample_prompts": ["Hi", "word " * 4000]}))
    assert error.value.where == "sample_prompts, number 2"


def test_a_prompt_that_the_template_refuses_is_named(small_run: Any):
    path = small_run.model / "chat_template.jinja"
    refusal = (
        """{% if messages[-1].content == 'No' %}{{ raise_exception('not that') }}{% endif %}"""
    )
    path.write_text(refusal + path.read_text())
    with pytest.raises(DataError, match="not that") as error:
        small_run.train(**(ASKED | {"sample_prompts": ["Hi", "No"]}))
    assert error.value.where == "sample_prompts"


def test_lines_that_will_be_made_again_are_dropped(tmp_path: Path):
    path = tmp_path / SAMPLES
    file = SamplesFile(path)
    file.on_start(Progress())
    assert not path.exists()
    for step in (0, 2, 4):
        file.on_samples(record(step, "a", "b"))
    with path.open("a") as torn:
        torn.write('{"step": 6, "prom')
    file.on_start(Progress(step=3))
    assert [line["step"] for line in read_samples(path)] == [0, 0, 2, 2]
    file.on_start(Progress(step=2, samples_are_due=True))
    assert [line["step"] for line in read_samples(path)] == [0, 0]
    assert json.loads(path.read_text().splitlines()[0])["answer"] == "a"

"""Weights are told apart by their content and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from luthier.contracts.training import Progress
from luthier.recipes.outcome import (
    describe_outcome,
    last_loss,
    read_tensor,
    tensor_bytes,
    tensor_files,
    weights_sha256,
)

TENSORS = {
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "a": torch.tensor(1.5),
    "c": torch.zeros(0, 4),
}


def saved(folder: Path, **files: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors", metadata={"folder": folder.name})
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return saved(tmp_path / "whole", model=TENSORS)


def test_the_hash_does_not_depend_on_the_files(whole: Path, tmp_path: Path):
    first = {"a": TENSORS["a"]}
    rest = {"b": TENSORS["b"], "c": TENSORS["c"]}
    parts = saved(tmp_path / "parts", two=first, one=rest)
    assert list(tensor_files(parts)) == ["a", "b", "c"]
    assert weights_sha256(parts) == weights_sha256(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.tensor(1.5).nextafter(torch.tensor(2.0))},
        {"a": torch.tensor([1.5])},
        {"b": TENSORS["b"].reshape(3, 2)},
        {"b": TENSORS["b"].view(torch.int16)},
        {"d": torch.tensor(1.0)},
    ],
    ids=["a bit", "a shape", "another shape", "a type", "a tensor more"],
)
def test_every_change_of_the_content_shows(
    whole: Path, tmp_path: Path, change: dict[str, torch.Tensor]
):
    other = saved(tmp_path / "other", model=TENSORS | change)
    assert weights_sha256(other) != weights_sha256(whole)


def test_where_no_model_is_there_is_no_hash(tmp_path: Path):
    assert weights_sha256(tmp_path) is None


def test_a_tensor_and_its_bytes(whole: Path):
    tensor = read_tensor(whole / "model.safetensors", "b")
    assert torch.equal(tensor, TENSORS["b"])
    assert bytes(tensor_bytes(torch.tensor([[1], [2]], dtype=torch.uint8).T)) == b"\1\2"
    assert len(tensor_bytes(tensor)) == 12


def test_the_last_loss(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert last_loss(path) is None
    records = [("train", 1, 3.0), ("train", 2, 2.5), ("eval", 2, 2.0)]
    lines = [json.dumps({"kind": kind, "step": s, "loss": loss}) for kind, s, loss in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert last_loss(path) == 2.5


def test_the_outcome_of_a_finished_run(whole: Path):
    progress = Progress(num_steps=4, step=4)
    progress.num_tokens_seen, progress.num_supervised_seen, progress.num_rows_seen = 90, 40, 8
    assert describe_outcome(whole, progress, {"step": 4, "eval_loss": 2.0}, 1.23456) == {
        "steps": 4,
        "finished": True,
        "seconds": 1.235,
        "tokens_seen": 90,
        "supervised_tokens_seen": 40,
        "rows_seen": 8,
        "loss": None,
        "eval": {"step": 4, "eval_loss": 2.0},
        "weights_sha256": weights_sha256(whole),
    }


def test_a_stopped_run_has_no_trained_weights(whole: Path):
    outcome = describe_outcome(whole, Progress(num_steps=4, step=3), None, 1.0)
    assert outcome["finished"] is False
    assert outcome["weights_sha256"] is None
    assert outcome["eval"] is None

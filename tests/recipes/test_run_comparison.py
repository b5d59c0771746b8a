"""Two run folders: equal bit for bit, or where they part and by how much."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from luthier.recipes.outcome import weights_sha256
from luthier.recipes.run_comparison import LossDifference, TensorDifference, compare_runs

TENSORS = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 2), "c": torch.ones(3)}
RECORDS = [
    {"kind": "eval", "step": 0, "eval_loss": 3.0, "eval_seconds": 1.0},
    {"kind": "train", "step": 1, "loss": 2.0, "grad_norm": 1.0, "tokens_per_second": 9.0},
    {"kind": "train", "step": 2, "loss": None, "grad_norm": 1.0, "tokens_per_second": 9.0},
    {"kind": "eval", "step": 2, "eval_loss": 2.5, "eval_seconds": 1.0},
]


def run_folder(
    folder: Path,
    tensors: dict[str, torch.Tensor] | None = None,
    records: list[dict[str, Any]] | None = None,
) -> Path:
    folder.mkdir()
    if tensors is None or tensors:
        save_file(tensors or TENSORS, folder / "adapter_model.safetensors")
    lines = [json.dumps(record) + "\n" for record in records or RECORDS]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "earlier")


def test_equal_runs_are_identical_whatever_their_times_are(earlier: Path, tmp_path: Path):
    slower = [{**r, "eval_seconds": 7.0, "tokens_per_second": 1.0} for r in RECORDS]
    later = run_folder(tmp_path / "later", records=slower)
    recorded = weights_sha256(earlier)
    found = compare_runs(earlier, later, recorded)
    assert found.identical
    assert found.then == found.now == recorded
    assert (found.num_tensors, found.num_records, found.num_alone) == (3, 4, 0)
    assert found.tensors == ()
    assert not found.changed_since
    assert compare_runs(earlier, later, None) == found


def test_each_tensor_that_differs_is_measured(earlier: Path, tmp_path: Path):
    later = run_folder(
        tmp_path / "later",
        {
            "a": torch.tensor([1.0, 2.5]),
            "b": torch.full((2, 2), 4.0),
            "c": torch.ones(3),
        },
    )
    found = compare_runs(earlier, later, weights_sha256(earlier))
    assert not found.same_weights
    assert not found.identical
    assert found.first_loss is None
    assert found.tensors == (TensorDifference("b", 4.0, 4.0), TensorDifference("a", 0.5, 0.25))


def test_tensors_that_can_not_be_subtracted_come_first_with_the_reason(
    earlier: Path, tmp_path: Path
):
    later = run_folder(
        tmp_path / "later",
        {"a": torch.tensor([1.0, 9.0]), "b": torch.zeros(4), "d": torch.ones(1)},
    )
    found = compare_runs(earlier, later, None)
    assert [(one.name, one.problem) for one in found.tensors] == [
        ("b", "torch.float32 [2, 2] -> torch.float32 [4]"),
        ("c", f"only in {earlier}"),
        ("d", f"only in {later}"),
        ("a", ""),
    ]


def test_a_value_that_is_no_number_counts_as_the_largest_difference(earlier: Path, tmp_path: Path):
    broken = {**TENSORS, "a": torch.tensor([1.0, 99.0]), "c": torch.tensor([1.0, math.nan, 1.0])}
    found = compare_runs(earlier, run_folder(tmp_path / "later", broken), None)
    first, second = found.tensors
    assert first.name == "c"
    assert first.largest is not None
    assert math.isnan(first.largest)
    assert second.largest == 97.0


@pytest.mark.parametrize(
    ("index", "name", "value", "expected"),
    [
        (1, "grad_norm", 1.5, LossDifference("train", 1, "grad_norm", 1.0, 1.5)),
        (2, "loss", 2.0, LossDifference("train", 2, "loss", None, 2.0)),
        (3, "eval_loss", 2.25, LossDifference("eval", 2, "eval_loss", 2.5, 2.25)),
    ],
)
def test_the_first_loss_that_differs_is_named(
    earlier: Path, tmp_path: Path, index: int, name: str, value: float, expected: LossDifference
):
    records = [dict(record) for record in RECORDS]
    records[index][name] = value
    if index < 3:
        records[3]["eval_loss"] = 9.0  # a later one, which is not the first
    found = compare_runs(earlier, run_folder(tmp_path / "later", records=records), None)
    assert found.first_loss == expected
    assert found.same_weights
    assert not found.identical


def test_records_of_one_run_alone_are_counted(earlier: Path, tmp_path: Path):
    extra = {"kind": "train", "step": 3, "loss": 1.0}
    later = run_folder(tmp_path / "later", records=[*RECORDS[1:], extra])
    found = compare_runs(earlier, later, None)
    assert (found.num_records, found.num_alone) == (3, 2)
    assert found.identical


def test_where_the_earlier_files_are_gone_the_recorded_hash_decides(earlier: Path, tmp_path: Path):
    recorded = weights_sha256(earlier)
    (earlier / "adapter_model.safetensors").unlink()
    assert compare_runs(earlier, run_folder(tmp_path / "same"), recorded).identical
    other = run_folder(tmp_path / "other", {"a": torch.zeros(1)})
    found = compare_runs(earlier, other, recorded)
    assert not found.identical
    assert found.tensors == ()
    assert not compare_runs(earlier, other, None).same_weights


def test_a_model_that_was_changed_since_is_told(earlier: Path, tmp_path: Path):
    recorded = weights_sha256(earlier)
    save_file({**TENSORS, "c": torch.zeros(3)}, earlier / "adapter_model.safetensors")
    found = compare_runs(earlier, run_folder(tmp_path / "later"), recorded)
    assert found.changed_since
    assert found.same_weights
    assert [one.name for one in found.tensors] == ["c"]


def test_a_reproduction_without_a_model_is_no_reproduction(earlier: Path, tmp_path: Path):
    found = compare_runs(earlier, run_folder(tmp_path / "later", {}), None)
    assert found.now is None
    assert not found.identical

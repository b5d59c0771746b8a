"""The reference's numbers are kept under all that they depend on, and never trusted unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pytest

from luthier.batches.pairs import shared_pair_collate
from luthier.batches.reading import open_rows
from luthier.core.errors import LuthierError
from luthier.evaluation.reference_file import (
    read_references,
    reference_key,
    reference_path,
    with_reference_log_probs,
    write_references,
)

VALUES = np.asarray([[-1.5, -2.5, -1.0, -2.0], [-3.0, -4.0, -0.5, -0.25]], np.float32)
KEY = "0123456789abcdef" * 4


def make_rows() -> datasets.Dataset:
    pair = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "prompt_length": 1, "chosen_length": 1}
    return datasets.Dataset.from_list([pair, pair])


def never() -> npt.NDArray[np.float32]:
    raise AssertionError("the numbers were there")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return reference_path(tmp_path / "prepared" / "abc", KEY)


def test_the_file_lies_beside_the_prepared_data(path: Path, tmp_path: Path) -> None:
    assert path.parent == tmp_path / "prepared" / "references"
    assert path.name == f"{KEY[:32]}.safetensors"


def test_numbers_are_computed_once_and_reach_the_batches(path: Path) -> None:
    rows = with_reference_log_probs(make_rows(), path, KEY, lambda: VALUES)
    again = with_reference_log_probs(make_rows(), path, KEY, never)
    for made in (rows, again):
        batch = shared_pair_collate(open_rows(made).__getitems__([1, 0]))
        assert batch["reference_chosen"].tolist() == [-3.0, -1.5]
        assert batch["reference_rejected"].tolist() == [-4.0, -2.5]
        assert batch["reference_chosen_shared"].tolist() == [-0.5, -1.0]
        assert batch["reference_rejected_shared"].tolist() == [-0.25, -2.0]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("place", [3, 40, -1])
def test_a_damaged_file_is_made_anew(path: Path, place: int) -> None:
    write_references(path, KEY, VALUES)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert read_references(path, KEY, 2) is None
    rows = with_reference_log_probs(make_rows(), path, KEY, lambda: VALUES - 1)
    assert rows["reference_chosen"][:] == [-2.5, -4.0]
    assert read_references(path, KEY, 2) is not None


def test_a_file_that_was_cut_off_is_not_read(path: Path) -> None:
    write_references(path, KEY, VALUES)
    path.write_bytes(path.read_bytes()[:-4])
    assert read_references(path, KEY, 2) is None


def test_files_of_another_key_size_or_type_are_not_read(path: Path) -> None:
    assert read_references(path, KEY, 2) is None
    write_references(path, KEY, VALUES)
    assert read_references(path, KEY[::-1], 2) is None
    assert read_references(path, KEY, 3) is None
    write_references(path, KEY, VALUES.astype(np.float64))  # pyright: ignore[reportArgumentType]
    assert read_references(path, KEY, 2) is None


@pytest.mark.parametrize(
    ("values", "what"),
    [(VALUES[:1], r"shape \(1, 4\) for 2 rows, 0"), (VALUES * np.nan, "8 of them not finite")],
)
def test_numbers_that_can_not_be_right_are_refused(path: Path, values: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        with_reference_log_probs(make_rows(), path, KEY, lambda: values)
    assert not path.exists()


def test_a_closed_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "references").write_text("")
    with pytest.raises(LuthierError, match="reference log-probabilities can't be written"):
        write_references(tmp_path / "references" / "a.safetensors", KEY, VALUES)


def test_the_key_is_all_that_the_numbers_depend_on() -> None:
    def key(**changes: Any) -> str:
        how = {"precision": "bf16", "layout": "shared"} | changes.get("computed", {})
        model = {"name": "m", "path": "/a", "weights_sha256": {"model.safetensors": "1"}}
        model |= changes.get("model", {})
        return reference_key(changes.get("data", "d"), changes.get("split", "train"), model, how)

    others = [
        {"data": "e"},
        {"split": "val"},
        {"model": {"weights_sha256": {"model.safetensors": "2"}}},
        {"computed": {"precision": "fp32"}},
        {"computed": {"layout": "separate"}},
    ]
    assert len({key(), *(key(**other) for other in others)}) == 6
    assert key(model={"path": "/b", "name": "n"}) == key(), "the same model in another place"
    assert reference_key("d", "train", {"name": "a"}, {}) != reference_key(
        "d", "train", {"name": "b"}, {}
    )

"""Errors say what, where and what to do, and cross a process border whole."""

from __future__ import annotations

import pickle

import pytest

from luthier.core.errors import (
    DataError,
    LuthierError,
    MissingExtraError,
    ModelError,
    RunError,
    SettingsError,
    did_you_mean,
    nearest,
)

KINDS = [LuthierError, SettingsError, DataError, ModelError, RunError, MissingExtraError]


def test_an_error_reads_as_place_problem_mend() -> None:
    error = DataError("the row is empty", where="a.jsonl:3", mend="Remove the row.")
    assert str(error) == "a.jsonl:3: the row is empty\n  Remove the row."
    assert str(DataError("the row is empty")) == "the row is empty"
    assert str(DataError("it", mend="Do.")) == "it\n  Do."


@pytest.mark.parametrize("kind", KINDS)
def test_pickling_keeps_everything(kind: type[LuthierError]) -> None:
    error = kind("problem", where="file:1", mend="mend")
    there = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(there) is kind
    assert (there.problem, there.where, there.mend) == ("problem", "file:1", "mend")
    assert str(there) == str(error)
    assert there.exit_code == kind.exit_code


def test_exit_codes_tell_the_kinds_apart() -> None:
    assert [kind.exit_code for kind in KINDS] == [1, 2, 3, 4, 5, 6]


def test_a_missing_extra_names_the_command() -> None:
    error = MissingExtraError.of("bitsandbytes", "bnb", "quantization_bit: 4")
    assert (
        error.problem
        == "quantization_bit: 4 needs the package bitsandbytes, which is not installed"
    )
    assert error.mend == "Install it with: pip install 'luthier[bnb]'"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("learnig_rate", "learning_rate"),
        ("Learning-Rate", "learning_rate"),
        ("lora_ranks", "lora_rank"),
        ("zzz", None),
        ("", None),
    ],
)
def test_nearest(name: str, expected: str | None) -> None:
    assert nearest(name, ["learning_rate", "lora_rank", "lora_alpha"]) == expected


def test_nearest_returns_the_name_as_it_is_known() -> None:
    assert nearest("smollm2_135m", ["SmolLM2-135M"]) == "SmolLM2-135M"
    assert nearest("anything", []) is None


def test_did_you_mean() -> None:
    assert did_you_mean("chatmll", {"chatml", "llama3"}) == "Did you mean chatml?"
    assert did_you_mean("zzz", {"llama3", "chatml"}) == "Known: chatml, llama3."

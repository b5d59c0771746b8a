"""Threads and switches are recorded as they stand; threads are set as a run had them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from luthier.recipes.determinism import computing_facts, deciding_variables, use_threads


@pytest.fixture
def threads() -> Iterator[int]:
    """Two threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def test_of_the_environment_only_listed_names_are_taken(monkeypatch: pytest.MonkeyPatch):
    given = {"OMP_NUM_THREADS": "2", "HF_TOKEN": "hf_secret", "HOME": "/home/x"}
    assert deciding_variables(given) == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert deciding_variables()["MKL_CBWR"] == "COMPATIBLE"


def test_even_there_a_secret_is_hidden():
    given = {"PYTORCH_ALLOC_CONF": "x:s3cr3t-value", "MY_TOKEN": "s3cr3t-value"}
    assert deciding_variables(given) == {"PYTORCH_ALLOC_CONF": "x:***"}


def test_what_torch_is_set_to(threads: int):
    facts = computing_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["threads"] == threads
    assert facts["interop_threads"] == torch.get_num_interop_threads()
    assert facts["deterministic_algorithms"] is False
    torch.use_deterministic_algorithms(True)
    try:
        assert computing_facts()["deterministic_algorithms"] is True
    finally:
        torch.use_deterministic_algorithms(False)


def test_threads_are_set_and_said_only_where_they_differ(threads: int):
    assert use_threads(threads) is None
    notice = use_threads(1)
    assert str(notice) == "threads: 2 -> 1 (as many as the run had)"
    assert torch.get_num_threads() == 1

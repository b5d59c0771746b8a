"""Whether TRL, where it is installed, still says what `trl.json` says."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def numbers(value: Any) -> Iterator[float]:
    """Yield all numbers in a JSON value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def stored() -> dict[str, Any]:
    return json.loads((HERE / "trl.json").read_text(encoding="utf-8"))


def test_the_file_says_which_trl_wrote_it() -> None:
    assert stored()["trl"] == "1.16.0"
    assert sum(1 for _ in numbers(stored())) > 2000


@pytest.mark.peers
def test_trl_says_so_still() -> None:
    pytest.importorskip("trl", reason="needs TRL, which luthier does not depend on")
    made = json.loads(json.dumps(runpy.run_path(str(HERE / "from_trl.py"))["make"]()))
    expected = stored()
    assert made.keys() == expected.keys()
    assert list(numbers(made)) == pytest.approx(list(numbers(expected)), rel=1e-9, abs=1e-12)

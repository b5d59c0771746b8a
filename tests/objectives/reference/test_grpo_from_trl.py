"""Whether TRL, where it is installed, still says what `grpo_trl.json` says."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def stored() -> dict[str, Any]:
    return json.loads((HERE / "grpo_trl.json").read_text(encoding="utf-8"))


def test_the_file_says_which_trl_wrote_it() -> None:
    assert stored()["trl"] == "1.16.0"
    assert len(stored()["cases"]) == 7


@pytest.mark.peers
def test_trl_says_so_still() -> None:
    pytest.importorskip("trl", reason="needs TRL, which luthier does not depend on")
    made = json.loads(json.dumps(runpy.run_path(str(HERE / "grpo_from_trl.py"))["make"]()))
    expected = stored()
    assert made.keys() == expected.keys()
    for one, other in zip(made["cases"], expected["cases"], strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-9)
        for found, known in zip(one["gradient"], other["gradient"], strict=True):
            for row, known_row in zip(found, known, strict=True):
                assert row == pytest.approx(known_row, rel=1e-9, abs=1e-12)

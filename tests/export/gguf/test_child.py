"""The child's protocol; its answers are tested in test_runtime.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="xllamacpp, which runs llama.cpp, is not installed")


def test_what_can_not_be_opened_is_told_as_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "luthier.export.gguf.child", str(tmp_path / "no.gguf")]
    ran = subprocess.run(
        [*command, "64", str(tmp_path)], input="", capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0
    # llama.cpp's own words stay out of the answers.
    assert json.loads(ran.stdout) == {"error": "llama.cpp can't open no.gguf"}
    assert ran.stderr

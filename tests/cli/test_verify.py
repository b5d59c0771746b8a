from __future__ import annotations

import sys

import pytest

from luthier.cli import export as export_command
from luthier.cli import verify as command
from luthier.cli.main import main
from luthier.recipes.export_request import ExportRequest


def test_an_artifact_is_verified_until_it_changes(tiny_llama, capture, tmp_path, monkeypatch):
    shown = capture(export_command)
    capture(command)
    export_command.run(ExportRequest(str(tiny_llama()), ["hf"], out=str(tmp_path)))
    folder = tmp_path / "tiny-hf"
    shown.truncate(0)
    command.run(str(folder))
    assert "passed" in shown.getvalue()
    (folder / "README.md").write_text("better than all others")
    monkeypatch.setattr(sys, "argv", ["luthier", "verify", str(folder)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "README.md is not the file that was exported" in shown.getvalue()

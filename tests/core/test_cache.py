"""Where luthier keeps what it can make again."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.cache import cache_folder


def test_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUTHIER_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("prepared") == tmp_path / ".cache" / "luthier" / "prepared"
    monkeypatch.setenv("LUTHIER_CACHE", "")
    assert cache_folder("prepared") == tmp_path / ".cache" / "luthier" / "prepared"
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"


def test_or_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LUTHIER_CACHE", "/somewhere/else")
    assert cache_folder("models") == Path("/somewhere/else/models")
    monkeypatch.setenv("LUTHIER_CACHE", "~/big")
    assert cache_folder("models") == tmp_path / "big" / "models"

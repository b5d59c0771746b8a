from __future__ import annotations

import pytest

from luthier.recipes import packages


def test_versions_start_with_luthier_and_leave_out_what_is_missing(monkeypatch):
    monkeypatch.setattr(packages, "REPORTED", ("torch", "luthier-no-such-package"))
    assert list(packages.package_versions()) == ["luthier", "torch"]


def test_extras_say_what_is_missing_and_how_to_install_it(monkeypatch):
    requirements = [
        "torch>=2.10",
        'luthier-no-such-package>=1; extra == "bnb"',
        "pytest ; extra == 'demo'",
        'ruff; python_version > "3" and extra == "dev"',
    ]
    monkeypatch.setattr(packages.metadata, "requires", lambda _: requirements)
    found = {extra["name"]: extra for extra in packages.extras()}
    assert list(found) == ["bnb", "demo", "flash attention"]
    assert found["bnb"] == {
        "name": "bnb",
        "packages": {"luthier-no-such-package": None},
        "installed": False,
        "install": "pip install 'luthier[bnb]'",
    }
    assert found["demo"]["installed"]


def test_the_real_extras_are_found():
    assert {"bnb", "demo", "deepspeed"} <= {extra["name"] for extra in packages.extras()}


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("5.2.9", True), ("5.3", False), ("5.3.0.dev0", False), ("5.10.1+cpu", False), ("4", True)],
)
def test_versions_with_known_holes_are_warned_of(monkeypatch, version, is_old):
    installed = {"transformers": version}
    monkeypatch.setattr(packages, "installed_version", installed.get)
    notices = packages.security_notices()
    assert [notice.setting for notice in notices] == (["transformers"] if is_old else [])
    if is_old:
        assert "CVE-2026-4372" in notices[0].reason
        assert "pip install -U 'transformers>=5.3'" in notices[0].reason


def test_what_is_not_installed_has_no_hole(monkeypatch):
    monkeypatch.setattr(packages, "installed_version", lambda _: None)
    assert packages.security_notices() == []

"""Commit and changes of a checkout, told by real git repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import luthier
from luthier.recipes import source_version
from luthier.recipes.source_version import SOURCE, source_commit, source_diff, source_sha256


def git(folder: Path, *words: str) -> str:
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *who, *words],
        cwd=folder,
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a repository, both committed, with a document beside it."""
    folder = tmp_path / "repository" / "src" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("A = 1\n", encoding="utf-8")
    (folder / "bytes.bin").write_bytes(bytes(range(256)))
    root = folder.parents[1]
    (root / "README.md").write_text("Read.\n", encoding="utf-8")
    (root / ".gitignore").write_text("*.pyc\n", encoding="utf-8")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout_has_a_commit_and_no_diff(package: Path):
    assert source_commit(package) == {
        "commit": git(package, "rev-parse", "HEAD"),
        "changed_since_commit": False,
    }
    assert source_diff(package) == ""


def test_what_lies_outside_of_the_package_does_not_count(package: Path):
    (package.parents[1] / "README.md").write_text("Other.\n", encoding="utf-8")
    (package / "made.pyc").write_bytes(b"made")
    assert source_commit(package)["changed_since_commit"] is False
    assert source_diff(package) == ""


def test_the_diff_brings_another_checkout_to_the_same_source(package: Path, tmp_path: Path):
    root, other = package.parents[1], tmp_path / "other"
    git(tmp_path, "clone", "-q", str(root), str(other))
    (package / "__init__.py").write_text("A = 2  # 琴\n", encoding="utf-8")
    (package / "bytes.bin").write_bytes(bytes(range(255, -1, -1)))
    (package / "new one.py").write_text("B = 1\r\nC = 2\n", encoding="utf-8", newline="")
    (package / "new.bin").write_bytes(b"\0\1\2")
    (package / "staged.py").write_text("D = 1\n", encoding="utf-8")
    git(root, "add", "src/package/staged.py")
    assert source_commit(package)["changed_since_commit"] is True

    patch = tmp_path / "luthier.diff"
    patch.write_bytes(source_diff(package).encode())
    git(other, "apply", "--whitespace=nowarn", str(patch))
    assert source_sha256(other / "src" / "package") == source_sha256(package)


def test_no_secret_gets_into_the_diff(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    (package / "__init__.py").write_text('TOKEN = "s3cr3t-value"\n', encoding="utf-8")
    (package / "new.py").write_text('KEY = "s3cr3t-value"\n', encoding="utf-8")
    diff = source_diff(package)
    assert diff.count("***") == 2
    assert "s3cr3t" not in diff


def test_looking_leaves_the_repository_as_it_was(package: Path):
    root = package.parents[1]
    (package / "new.py").write_text("B = 1\n", encoding="utf-8")
    index = (root / ".git" / "index").read_bytes()
    assert "new.py" in source_diff(package)
    assert (root / ".git" / "index").read_bytes() == index
    assert git(root, "status", "--porcelain") == "?? src/package/new.py"


def test_below_somebodys_project_the_commit_is_not_ours(package: Path):
    installed = package.parents[1] / "environment" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("A = 1\n", encoding="utf-8")
    assert source_commit(installed) == {}
    assert source_diff(installed) == ""


def test_where_there_is_no_repository_or_no_commit_none_is_named(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
):
    assert source_commit(tmp_path) == {}
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "__init__.py").write_text("", encoding="utf-8")
    git(empty, "init", "-q")
    git(empty, "add", ".")
    assert source_commit(empty) == {}
    monkeypatch.setenv("PATH", str(empty))  # no git there
    assert source_commit(package) == {}


def test_the_source_is_hashed_by_names_and_contents(package: Path):
    plain = source_sha256(package)
    (package / "made.pyc").write_bytes(b"made")
    assert source_sha256(package) == plain
    (package / "__init__.py").rename(package / "other.py")
    renamed = source_sha256(package)
    (package / "other.py").write_text("A = 3\n", encoding="utf-8")
    assert len({plain, renamed, source_sha256(package)}) == 3


def test_luthiers_own_source_is_meant():
    assert Path(luthier.__file__).parent == SOURCE
    assert len(source_sha256()) == 64
    assert source_version.source_commit().keys() <= {"commit", "changed_since_commit"}

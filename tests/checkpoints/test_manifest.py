"""The seal: whatever happens to a sealed folder is found, and said."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from luthier.checkpoints.manifest import MANIFEST, read_manifest, seal, unknown_files, verify
from luthier.core.errors import RunError
from luthier.core.hashing import hash_json


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "step-000007"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "model" / MANIFEST).write_text("a file that only has the same name")
    (folder / "state.json").write_text("{}")
    seal(folder, {"step": 7, "metrics": {"eval_loss": 0.1 + 0.2}})
    return folder


def test_a_sealed_folder_verifies(sealed: Path) -> None:
    manifest = verify(sealed)
    assert manifest == read_manifest(sealed)
    assert manifest["step"] == 7
    assert manifest["metrics"]["eval_loss"] == 0.1 + 0.2
    names = ["model/manifest.json", "model/weights.safetensors", "state.json"]
    assert list(manifest["files"]) == names
    content = (sealed / "model" / "weights.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert manifest["files"]["model/weights.safetensors"] == {"bytes": 10_240, "sha256": digest}
    written = datetime.fromisoformat(manifest["written"])
    assert written.utcoffset() == UTC.utcoffset(None)


WEIGHTS = "model/weights.safetensors"


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove, f"{WEIGHTS} is missing from the checkpoint"),
        (truncate, f"{WEIGHTS} has 10239 bytes, and was sealed with 10240"),
        (extend, f"{WEIGHTS} has 10241 bytes, and was sealed with 10240"),
        (flip, f"the content of {WEIGHTS} has changed since it was sealed"),
    ],
)
def test_harm_to_a_file_is_found(sealed: Path, harm: Callable[[Path], None], message: str) -> None:
    harm(sealed / WEIGHTS)
    with pytest.raises(RunError, match=message) as caught:
        verify(sealed)
    assert caught.value.where == str(sealed)
    assert "earlier checkpoint" in str(caught.value.mend)


def test_a_folder_in_the_place_of_a_file_is_found(sealed: Path) -> None:
    (sealed / "state.json").unlink()
    (sealed / "state.json").mkdir()
    with pytest.raises(RunError, match=r"state\.json is missing"):
        verify(sealed)


def test_every_flipped_bit_of_the_manifest_is_found(sealed: Path) -> None:
    path = sealed / MANIFEST
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        for bit in (0, 3, 7):
            data = bytearray(good)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            try:
                same = json.loads(data) == json.loads(good)
            except (UnicodeDecodeError, json.JSONDecodeError):
                same = False
            if same:
                continue  # white space between values
            with pytest.raises(RunError):
                verify(sealed)


@pytest.mark.parametrize("text", ["", '{"format": 1,', "\0" * 50, "\xff", "[" * 100_000])
def test_a_torn_manifest(sealed: Path, text: str) -> None:
    (sealed / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match="the checkpoint's manifest is damaged"):
        read_manifest(sealed)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1}', '{"format": "2"}'])
def test_an_unknown_format(sealed: Path, text: str) -> None:
    (sealed / MANIFEST).write_text(text)
    with pytest.raises(RunError, match="has a format that this luthier does not know"):
        read_manifest(sealed)


def test_an_edited_manifest(sealed: Path) -> None:
    path = sealed / MANIFEST
    path.write_text(path.read_text().replace('"step": 7', '"step": 8'))
    with pytest.raises(RunError, match="its content has changed since it was sealed"):
        read_manifest(sealed)


def test_no_manifest(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    with pytest.raises(RunError, match=r"not a finished checkpoint: it has no manifest\.json"):
        verify(sealed)


def test_a_manifest_that_is_a_folder(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    (sealed / MANIFEST).mkdir()
    with pytest.raises(RunError, match=r"the checkpoint's manifest is damaged: .*Is a directory"):
        read_manifest(sealed)


def test_a_file_that_the_manifest_does_not_know_is_said_and_no_damage(sealed: Path) -> None:
    (sealed / "model" / ".DS_Store").write_text("left by a file manager")
    (sealed / "notes.txt").write_text("the good one")
    assert unknown_files(sealed, verify(sealed)) == ["model/.DS_Store", "notes.txt"]


def reseal(folder: Path, **changes: Any) -> None:
    """Write a manifest whose own hash is right, as a stranger can."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["seal"]
    manifest |= changes
    (folder / MANIFEST).write_text(json.dumps(manifest | {"seal": hash_json(manifest)}))


def entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.txt", "model/../../secret.txt", "{root}/secret.txt", "C:/secret.txt"),
        *("..\\secret.txt", "linked.txt", "linked/secret.txt", "inside.json", "\x1b[2Jx", "a\0b"),
    ],
)
def test_a_name_that_leads_out_is_refused(sealed: Path, name: str) -> None:
    """Although size and hash of what lies there are right."""
    secret = sealed.parent / "secret.txt"
    secret.write_text("secret")
    (sealed / "linked.txt").symlink_to(secret)
    (sealed / "linked").symlink_to(sealed.parent)
    (sealed / "inside.json").symlink_to(sealed / "state.json")
    name = name.format(root=sealed.parent)
    reseal(sealed, files={name: entry(secret)})
    message = f"the file name {name!r} is unsafe: it leads out of the checkpoint"
    with pytest.raises(RunError, match=re.escape(message)):
        verify(sealed)


def test_a_name_that_no_disk_can_hold(sealed: Path) -> None:
    reseal(sealed, files={"x" * 300: entry(sealed / "state.json")})
    with pytest.raises(RunError, match="xxx can't be read: File name too long"):
        verify(sealed)


def test_a_checkpoint_below_a_link_is_as_good(sealed: Path, tmp_path: Path) -> None:
    """The user's disk may be reached by a link: that one the checkpoint did not choose."""
    (tmp_path / "disk").symlink_to(sealed.parent)
    verify(tmp_path / "disk" / sealed.name)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": ["state.json"]},
        {"files": {"state.json": 5}},
        {"files": {"state.json": {"bytes": 2}}},
        {"metrics": [1]},
        {"metrics": {"eval_loss": "low"}},
        {"metrics": {"eval_loss": float("nan")}},
        {"fingerprint": "abc"},
        {"written": "yesterday"},
        {"written": "2026-01-01T00:00:00"},
        {"written": None},
    ],
    ids=str,
)
def test_a_sealed_manifest_of_something_else(sealed: Path, changes: dict[str, Any]) -> None:
    reseal(sealed, **changes)
    with pytest.raises(RunError, match="is sealed, but its content is not what luthier writes"):
        read_manifest(sealed)

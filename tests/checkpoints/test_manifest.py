"""The seal: whatever happens to a sealed folder is found, and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.checkpoints.manifest import MANIFEST, read_manifest, seal, verify
from luthier.core.errors import RunError


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
    assert manifest["files"]["model/weights.safetensors"]["bytes"] == 10_240


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


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 2}', '{"format": "1"}'])
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

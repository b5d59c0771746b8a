"""Content hashes are the same wherever and however the content is held."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core import hashing
from luthier.core.hashing import (
    hash_file,
    hash_files,
    hash_json,
    hash_sampled,
    hash_text,
    keyed_fraction,
)


def test_hash_text_is_sha256_of_utf8() -> None:
    assert hash_text("琴") == hashlib.sha256("琴".encode()).hexdigest()
    assert hash_text("\ud800") != hash_text("\ud801")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_hash_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert hash_json(turned) == hash_json(value)
    assert hash_json({"inner": [turned]}) == hash_json({"inner": [value]})


def test_hash_json_tells_values_apart() -> None:
    values = [{}, [], None, 0, "0", [0], {"a": 1}, {"a": "1"}, {"a": 1.5}, {"b": 1}, [1, 2], [2, 1]]
    assert len({hash_json(value) for value in values}) == len(values)
    # Pinned: a hash that changed would make every cached data set stale.
    assert hash_json({"b": 1, "a": [1.5, "é"]}) == hash_text('{"a":[1.5,"é"],"b":1}')


def test_hash_json_refuses_what_json_can_not_hold() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        hash_json({"path": Path("a")})


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_hash_file_reads_all_pieces(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size])
    assert hash_file(tmp_path / "a") == hashlib.sha256(data[:size]).hexdigest()


def test_hash_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    found = hash_files([tmp_path / "a", tmp_path / "b"])
    assert found == {"a": hash_text("1"), "b": hash_text("2")}


def test_files_of_the_same_name_do_not_hide_each_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "a", tmp_path / "other" / "a"):
        path.write_text("1")
    with pytest.raises(ValueError, match="two files are named a"):
        hash_files([tmp_path / "a", tmp_path / "other" / "a"])


def test_keyed_fraction_is_even_and_its_own_for_each_seed() -> None:
    fractions = [keyed_fraction(f"row {i}", seed=1) for i in range(4000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    for tenth in range(10):
        share = sum(tenth / 10 <= f < (tenth + 1) / 10 for f in fractions) / len(fractions)
        assert share == pytest.approx(0.1, abs=0.02)
    assert keyed_fraction("row 0", seed=1) == fractions[0] != keyed_fraction("row 0", seed=2)


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take 4 pieces of 8 bytes."""
    monkeypatch.setattr(hashing, "_SAMPLE_BYTES", 8)
    monkeypatch.setattr(hashing, "_NUM_SAMPLES", 4)


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("size", [0, 1, 8, 9, 31, 32])
def test_every_byte_of_a_small_file_counts(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    content = bytes(range(size))
    path.write_bytes(content)
    seen = {hash_sampled(path)}
    for index in range(size):
        path.write_bytes(content[:index] + b"\xff" + content[index + 1 :])
        seen.add(hash_sampled(path))
    path.write_bytes(content + b"\0")
    seen.add(hash_sampled(path))
    assert len(seen) == size + 2


@pytest.mark.usefixtures("small_samples")
def test_of_a_large_file_pieces_from_its_start_to_its_end_count(tmp_path: Path) -> None:
    path = tmp_path / "f"
    content = bytes(100)
    path.write_bytes(content)
    plain = hash_sampled(path)
    changed: list[int] = []
    for index in range(100):
        path.write_bytes(content[:index] + b"\xff" + content[index + 1 :])
        if hash_sampled(path) != plain:
            changed.append(index)
    assert changed == [*range(8), *range(30, 38), *range(61, 69), *range(92, 100)]

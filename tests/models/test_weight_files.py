"""Weights are looked at before a library reads them: no pickle, and headers that fit the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.core.errors import ModelError
from luthier.models.weight_files import check_safetensors, check_weights

Header = dict[str, Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    save_file({**tensors, "none": torch.zeros(0)}, path, {"format": "pt"})
    return path


def rewrite(path: Path, change: Callable[[Header], Any]) -> None:
    """Change the header of a file, and leave its data as they are."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    changed = change(header)
    text = changed if isinstance(changed, str) else json.dumps(header)
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data[8 + length :])


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_safetensors(path)
    assert caught.value.where == str(path)
    assert "fetch it again" in str(caught.value.mend)
    return caught.value.problem.removeprefix("the weights can't be used: ")


def test_what_safetensors_writes_passes(file: Path) -> None:
    check_safetensors(file)
    check_weights(file.parent, "model")
    assert set(load_file(file)) == {"a", "b", "none"}
    save_file({}, file)
    check_safetensors(file)


@pytest.mark.parametrize(
    ("dtype", "shape", "num_bytes"),
    [
        (torch.bool, (3,), 3),
        (torch.int64, (), 8),
        (torch.float8_e4m3fn, (2, 2), 4),
        (torch.complex64, (1,), 8),
    ],
)
def test_types_of_every_size(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...], num_bytes: int
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(shape, dtype=dtype)}, path)
    check_safetensors(path)
    rewrite(path, lambda header: header["x"].update(shape=[num_bytes + 1]))
    assert refused(path).startswith(f"the tensor 'x' has {num_bytes} bytes; ")


@pytest.mark.parametrize("size", [0, 3, 9])
def test_a_file_that_is_hardly_there(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    assert refused(file) == f"the file has only {size} bytes"


@pytest.mark.parametrize("length", [2**63, 2**40, 10_000])
def test_a_header_longer_than_the_file(file: Path, length: int) -> None:
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    assert refused(file).startswith(f"its header is to have {length:,} bytes; the file has ")


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as stream:
        stream.write((2 << 30).to_bytes(8, "little"))
        stream.truncate(3 << 30)  # a hole: the disk holds nothing of it
    assert "and 100,000,000 are allowed" in refused(path)


@pytest.mark.parametrize("text", ["{", "\u00ff{}", "[" * 50_000, '{"a": }'])
def test_a_header_that_is_no_json(file: Path, text: str) -> None:
    rewrite(file, lambda _: text)
    assert "its header is " in refused(file)


def test_bytes_that_are_no_text(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8:12] = b"\xff\xfe\x00\x01"
    file.write_bytes(data)
    assert refused(file).startswith("its header is not JSON: ")


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_a_header_that_is_no_object(file: Path, text: str) -> None:
    rewrite(file, lambda _: text)
    assert refused(file) == "its header is not an object of tensors"


def test_a_name_that_stands_twice(file: Path) -> None:
    place = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    rewrite(file, lambda _: f'{{"a":{place},"a":{place}}}')
    assert refused(file) == "its header names 'a' twice"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_offsets": [0, 23]}, "the tensor 'a' has 23 bytes; F32 of shape [2, 3] takes 24"),
        ({"shape": [2, 4]}, "the tensor 'a' has 24 bytes; F32 of shape [2, 4] takes 32 bytes"),
        ({"shape": [2**40, 2**40]}, "the tensor 'a' has 24 bytes; F32 of shape"),
        ({"dtype": "F16"}, "the tensor 'a' has 24 bytes; F16 of shape [2, 3] takes 12 bytes"),
        ({"dtype": "F31"}, "the tensor 'a' has the unknown type 'F31'"),
        ({"dtype": 3}, "the header says of the tensor 'a' what no header may say"),
        ({"shape": [-2, -3]}, "the header says of the tensor 'a' what no header may say"),
        ({"shape": ["2", 3]}, "the header says of the tensor 'a' what no header may say"),
        ({"shape": 6}, "the header says of the tensor 'a' what no header may say"),
        ({"data_offsets": [24, 0]}, "the header says of the tensor 'a' what no header may say"),
        ({"data_offsets": [-24, 0]}, "the header says of the tensor 'a' what no header may say"),
        ({"data_offsets": [0]}, "the header says of the tensor 'a' what no header may say"),
    ],
    ids=str,
)
def test_a_tensor_whose_place_is_wrong(file: Path, change: Header, said: str) -> None:
    rewrite(file, lambda header: header["a"].update(change))
    assert refused(file).startswith(said)


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (-4, "the tensor 'a' shares bytes with the one before it"),
        (4, "4 bytes before the tensor 'a' are of none"),
    ],
)
def test_tensors_that_overlap_or_leave_a_gap(file: Path, shift: int, said: str) -> None:
    def move(header: Header) -> None:
        first, last = sorted((name for name in "ab"), key=lambda n: header[n]["data_offsets"])
        header[last]["data_offsets"] = [at + shift for at in header[last]["data_offsets"]]
        header["a"], header["b"] = header[last], header[first]
        header.pop("none")

    rewrite(file, move)
    assert refused(file) == said


def test_a_file_that_ends_early_or_goes_on(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert refused(file) == "the file ends 5 bytes before its last tensor does"
    file.write_bytes(whole + b"12345")
    assert refused(file) == "5 bytes behind the last tensor are of none"


def test_places_that_are_no_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert refused(path) == "the file can't be read: No such file or directory"
    os.mkfifo(path)
    assert refused(path) == "this is no ordinary file"
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="this is no ordinary file"):
        check_weights(tmp_path, "model")
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match="No such file"):
        check_weights(tmp_path, "model")


@pytest.mark.parametrize("name", ["model.bin", "x.pt", "x.pth", "x.ckpt", "x.pkl", "x.pickle"])
def test_pickles_alone_are_refused(tmp_path: Path, name: str) -> None:
    check_weights(tmp_path, "model")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=rf"the weights are pickled \({name}\)") as caught:
        check_weights(tmp_path, "model")
    assert "Ask its author for model.safetensors" in str(caught.value.mend)
    save_file({}, tmp_path / "model.safetensors")
    check_weights(tmp_path, "model")


def write_index(folder: Path, value: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_each_part_is_checked(file: Path) -> None:
    part = file.rename(file.with_name("model-00001-of-00002.safetensors"))
    names = {"a": part.name, "b": "model-00002-of-00002.safetensors"}
    write_index(file.parent, {"weight_map": names})
    with pytest.raises(ModelError, match="No such file") as caught:
        check_weights(file.parent, "model")
    assert str(caught.value.where).endswith("model-00002-of-00002.safetensors")
    save_file({}, file.with_name(names["b"]))
    check_weights(file.parent, "model")


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin", "", "..", "."],
)
def test_an_index_names_files_of_its_folder(tmp_path: Path, name: str) -> None:
    index = write_index(tmp_path, {"weight_map": {"a": name}})
    with pytest.raises(ModelError, match="which is no safetensors file of this folder") as caught:
        check_weights(tmp_path, "model")
    assert caught.value.where == str(index)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "it is no index of weights"),
        ("[]", "it is no index of weights"),
        ({}, "it is no index of weights"),
        ({"weight_map": ["a"]}, "its weight_map does not say"),
        ({"weight_map": {"a": 3}}, "its weight_map does not say"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, value: Any, said: str) -> None:
    write_index(tmp_path, value)
    with pytest.raises(ModelError, match=said):
        check_weights(tmp_path, "model")


def test_weights_of_another_name(file: Path) -> None:
    named = file.rename(file.with_name("other.safetensors"))
    check_weights(file.parent, "model", named.name)
    named.write_bytes(b"")
    with pytest.raises(ModelError, match="only 0 bytes"):
        check_weights(file.parent, "model", named.name)
    index = file.with_name("other.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": named.name}}))
    with pytest.raises(ModelError, match="only 0 bytes"):
        check_weights(file.parent, "model", index.name)

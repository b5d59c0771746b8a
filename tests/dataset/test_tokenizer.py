from __future__ import annotations

import json
import shutil
import socket
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from luthier.core.errors import ModelError
from luthier.dataset.tokenizer import _hub_answers, load_tokenizer, tokenizer_fingerprint


@pytest.fixture
def folder(tokenizer_folders, tmp_path: Path) -> Path:
    """A copy of a tokenizer's folder, to be damaged."""
    return Path(shutil.copytree(tokenizer_folders["llama2"], tmp_path / "model"))


def edit(folder: Path, **values: object) -> None:
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_folder_is_loaded(tokenizer_folders, tiny_llama):
    tokenizer = load_tokenizer(str(tokenizer_folders["chatml"]))
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer("the dog").input_ids) == "the dog"
    assert load_tokenizer(str(tiny_llama())).pad_token == "<|endoftext|>"


def test_a_pad_token_that_is_not_eos_is_taken_where_there_is_one(tokenizer_folders):
    assert load_tokenizer(str(tokenizer_folders["chatml"])).pad_token == "<|endoftext|>"
    llama3 = load_tokenizer(str(tokenizer_folders["llama3"]))
    assert llama3.pad_token == "<|finetune_right_pad_id|>"
    assert load_tokenizer(str(tokenizer_folders["llama2"])).pad_token == "<unk>"


def test_eos_pads_where_there_is_nothing_else(tokenizer_folders, monkeypatch):
    monkeypatch.setattr("luthier.dataset.tokenizer.PAD_TOKENS", ("</s>", "<nothing>"))
    assert load_tokenizer(str(tokenizer_folders["llama2"])).pad_token == "</s>"


def test_neither_pad_nor_eos(folder, monkeypatch):
    monkeypatch.setattr("luthier.dataset.tokenizer.PAD_TOKENS", ())
    edit(folder, eos_token=None)
    with pytest.raises(ModelError, match="names neither a pad token nor an end token"):
        load_tokenizer(str(folder))


def test_a_folder_that_is_not_there(tmp_path):
    for name in (str(tmp_path / "none"), "./none", "~/none-such-folder", "a/b/c"):
        with pytest.raises(ModelError, match="there is no model folder"):
            load_tokenizer(name)


def test_a_file_in_place_of_a_folder(folder):
    with pytest.raises(ModelError, match=r"model_name_or_path is a file: .*\n.*holds config"):
        load_tokenizer(str(folder / "tokenizer.json"))


def test_a_folder_without_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="the folder has no tokenizer"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", b'{"version": "1.0",\n "added', r"tokenizer\.json:2: .*not JSON"),
        ("tokenizer.json", b"\xff\xfe", "not UTF-8 text"),
        ("tokenizer.json", b"[]", "not a JSON object"),
        ("tokenizer.json", b'{"version": "1.0"}', "not a tokenizer: "),
        ("tokenizer_config.json", b'{"a": ' + b"[" * 99_999, r"damaged \(nested too deep\)"),
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json:1: .*damaged \(not JSON"),
    ],
)
def test_damaged_files_are_named(name, content, said, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=said):
        load_tokenizer(str(folder))


def test_a_tokenizer_that_brings_code_is_refused_unless_trusted(folder):
    edit(folder, auto_map={"AutoTokenizer": ["code.Mine", None]})
    with pytest.raises(ModelError, match=r"wants to run Python code .*auto_map"):
        load_tokenizer(str(folder))
    (folder / "code.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n"
        "class Mine(PreTrainedTokenizerFast):\n    is_mine = True\n"
    )
    edit(folder, auto_map={"AutoTokenizer": ["code.Mine", "code.Mine"]})
    assert load_tokenizer(str(folder), trust_remote_code=True).is_mine


def test_a_tokenizer_without_offsets_is_refused(folder, monkeypatch):
    from transformers import AutoTokenizer

    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_args, **_options: slow)
    with pytest.raises(ModelError, match="reports no character offsets"):
        load_tokenizer(str(folder))


def test_what_the_library_refuses_is_said_in_one_line(folder, monkeypatch):
    from transformers import AutoTokenizer

    def refuse(*_args: object, **_options: object) -> None:
        raise ValueError("Unrecognised\nand more")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"can't be loaded \(ValueError: Unrecognised\)"):
        load_tokenizer(str(folder))


def test_a_hub_that_cannot_be_reached_is_said_at_once():
    with pytest.raises(ModelError, match=r"no folder nobody/nothing, and the hub can't be reached"):
        load_tokenizer("nobody/nothing")
    with pytest.raises(ModelError, match="can't be reached"):
        load_tokenizer("nobody/nothing", trust_remote_code=True)


def test_the_hub_is_asked_for_only_where_its_name_is_known(monkeypatch):
    from huggingface_hub import constants

    def unknown(*_args: object) -> None:
        raise socket.gaierror

    assert not _hub_answers(), "the tests run with HF_HUB_OFFLINE"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not _hub_answers()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert _hub_answers()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "proxy:1"})
    assert _hub_answers(), "a proxy may know the name"


def test_the_fingerprint_follows_what_decides_the_ids(load_tiny):
    first = tokenizer_fingerprint(load_tiny("chatml"))
    used = load_tiny("chatml")
    used(["a", "a b"], padding=True, truncation=True, max_length=1)
    assert tokenizer_fingerprint(used) == first, "calls leave padding behind, which changes no id"
    assert tokenizer_fingerprint(load_tiny("llama3")) != first
    grown = load_tiny("chatml")
    grown.add_tokens(["<new>"])
    assert tokenizer_fingerprint(grown) != first
    other_eos = load_tiny("chatml")
    other_eos.eos_token = "<|endoftext|>"
    assert tokenizer_fingerprint(other_eos) != first

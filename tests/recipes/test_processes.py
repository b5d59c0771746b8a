"""One process, and what is said where more are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes.processes import deepspeed_notice, refuse_many_processes

WriteFile = Callable[[str, "str | bytes"], Path]


def test_one_process_is_fine():
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}):
        refuse_many_processes(environment)
        with pytest.raises(SettingsError, match="trains in one process"):
            refuse_many_processes(environment | {"WORLD_SIZE": "2"})


def test_many_processes_are_refused():
    message = r"^WORLD_SIZE: this luthier trains in one process, .* started 8\n.*without torchrun"
    with pytest.raises(SettingsError, match=message):
        refuse_many_processes({"WORLD_SIZE": "8"})


def test_without_a_deepspeed_file_nothing_is_said():
    assert deepspeed_notice(None) is None


@pytest.mark.parametrize(
    ("content", "stage"),
    [
        ({"zero_optimization": {"stage": 3}}, 3),
        ({"zero_optimization": {}}, 0),
        ({"zero_optimization": None}, 0),
        ({"zero_optimization": True}, 0),
        ({}, 0),
    ],
)
def test_a_deepspeed_file_gives_a_notice(content: object, stage: int, write_file: WriteFile):
    notice = deepspeed_notice(str(write_file("ds.json", json.dumps(content))))
    assert notice is not None
    assert str(notice) == (
        f"deepspeed: ds.json (ZeRO-{stage}) -> plain loop (one process has nothing to shard)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"ds\.json: the DeepSpeed file is not valid JSON: .*line 1.*\n  Check the path"),
        (b"\xff", r"ds\.json: the DeepSpeed file is not valid JSON: .*utf-8.*\n  Check the path"),
        ("[1]", r"ds\.json: the DeepSpeed file holds no JSON object\n  It looks like"),
    ],
)
def test_a_deepspeed_file_that_is_none(content: str | bytes, message: str, write_file: WriteFile):
    with pytest.raises(SettingsError, match=message):
        deepspeed_notice(str(write_file("ds.json", content)))


def test_a_missing_deepspeed_file(tmp_path: Path):
    message = r"gone\.json: the DeepSpeed file can't be read: No such file.*\n  Check the path"
    with pytest.raises(SettingsError, match=message):
        deepspeed_notice(str(tmp_path / "gone.json"))


def test_a_deepspeed_file_at_home(write_file: WriteFile, monkeypatch: pytest.MonkeyPatch):
    file = write_file("ds.json", "{}")
    monkeypatch.setenv("HOME", str(file.parent))
    assert deepspeed_notice("~/ds.json") is not None

"""The run's manifest: what made this model, and nothing secret."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import luthier
from luthier.contracts.notice import Notice
from luthier.core.hashing import hash_file
from luthier.recipes import manifest
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve
from luthier.recipes.manifest import describe_model, describe_run, source_commit, write_manifest
from luthier.recipes.run_config import RunConfig


def config_of(**values: object) -> RunConfig:
    return resolve((), [Entry(name, value, "test") for name, value in values.items()]).config


@pytest.fixture
def git(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Put answers in git's place: output by subcommand, or no git at all."""

    def answer(outputs: dict[str, str] | None) -> list[list[str]]:
        calls: list[list[str]] = []

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            if outputs is None:
                raise FileNotFoundError("git")
            known = next((out for name, out in outputs.items() if name in command), None)
            return subprocess.CompletedProcess(command, 128 if known is None else 0, known or "")

        monkeypatch.setattr(manifest.subprocess, "run", run)
        return calls

    return answer


def test_a_checkout_has_a_commit(git: Any):
    calls = git({"ls-files": "__init__.py\n", "rev-parse": "abc\n", "status": ""})
    assert source_commit() == {"commit": "abc", "changed_since_commit": False}
    assert all(call[:2] == ["git", "--no-optional-locks"] for call in calls)
    assert {call[3] for call in calls} == {str(Path(luthier.__file__).parent)}
    git({"ls-files": "__init__.py\n", "rev-parse": "abc\n", "status": " M cli/main.py\n"})
    assert source_commit() == {"commit": "abc", "changed_since_commit": True}


@pytest.mark.parametrize(
    "outputs",
    [None, {}, {"ls-files": "", "rev-parse": "of somebody else"}, {"ls-files": "__init__.py"}],
    ids=["no git", "no repository", "in an environment below a project", "no commit yet"],
)
def test_where_no_commit_is_luthiers_own_none_is_named(git: Any, outputs: dict[str, str] | None):
    git(outputs)
    assert source_commit() == {}


def test_what_is_recorded_when_a_run_starts(tiny_llama: Any, git: Any):
    git({})
    folder = tiny_llama()
    config = config_of(model_name_or_path=str(folder), seed=7, overwrite_output_dir=True)
    notice = Notice("bf16", "bf16", "fp32", "because")
    facts = describe_run(config, ["luthier", "train"], {"key": "k"}, [notice])
    assert facts["luthier"] == {"version": luthier.__version__}
    assert facts["command"] == ["luthier", "train"]
    assert facts["seed"] == 7
    assert facts["data"] == {"key": "k"}
    assert facts["notices"] == [
        {"setting": "bf16", "asked": "bf16", "used": "fp32", "reason": "because"}
    ]
    assert facts["packages"]["torch"]
    assert facts["machine"]["cpu"]["cores"] > 0
    assert facts["started"].endswith("+00:00")
    assert facts["model"]["path"] == str(folder)
    assert facts["model"]["config_sha256"] == hash_file(folder / "config.json")
    size = (folder / "model.safetensors").stat().st_size
    assert facts["model"]["weight_bytes"] == {"model.safetensors": size}

    def hash_of(**values: object) -> str:
        other = config_of(model_name_or_path=str(folder), **values)
        return describe_run(other, [], {}, [])["settings_sha256"]

    assert hash_of(seed=7) == facts["settings_sha256"]
    assert hash_of(seed=8) != facts["settings_sha256"]


def test_a_hub_model_is_recorded_by_name():
    assert describe_model("owner/name") == {"name": "owner/name"}


def test_no_variable_and_no_token_is_recorded(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "USER", "HOSTNAME"):
        monkeypatch.setenv(name, "s3cr3t-value")
    config = config_of(model_name_or_path=str(tiny_llama()))
    assert "s3cr3t-value" not in json.dumps(describe_run(config, [], {}, []))


def test_the_earlier_parts_of_a_run(tmp_path: Path):
    assert manifest.earlier_parts(tmp_path) == []
    write_manifest(tmp_path, {"started": "a", "command": ["x"], "seed": 1, "earlier": [{"n": 1}]})
    assert manifest.earlier_parts(tmp_path) == [{"n": 1}, {"started": "a", "command": ["x"]}]


def test_writing(tmp_path: Path):
    write_manifest(tmp_path, {"语": "言"})
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"语": "言"}
    assert "语" in text

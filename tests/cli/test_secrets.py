"""Tokens are planted in the environment of real commands, and every byte they leave is searched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLANTED = {
    "HF_TOKEN": "hf_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b",
    "WANDB_API_KEY": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
    "MY_SECRET": "planted-secret-of-nobody",
    "SOME_DB_PASSWORD": "planted password, with blanks",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "GOOGLE_CREDENTIALS": '{"planted": "credential-of-nobody"}',
}
PROXY_PASSWORD = "pr0xy-passw0rd"
VALUES = (*PLANTED.values(), PROXY_PASSWORD)

Luthier = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def luthier(tmp_path: Path, tiny_llama: Any) -> Luthier:
    """Run the command in a process of its own, with the planted values in its environment."""
    tiny_llama("model")
    rows = [{"instruction": f"Name {i} colours.", "output": "Red and blue."} for i in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "small.yaml").write_text(
        "model_name_or_path: model\ntrain_file: rows.json\noutput_dir: out\nval_size: 2\n"
        "logging_steps: 1\nlora_rank: 2\nbf16: false\nmax_steps: 2\n",
        encoding="utf-8",
    )
    planted = {**PLANTED, "HTTPS_PROXY": f"http://someone:{PROXY_PASSWORD}@127.0.0.1:9"}
    places = {"LUTHIER_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    plain = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "luthier", *words],
            cwd=tmp_path,
            env={**os.environ, **planted, **places, **plain},
            capture_output=True,
            check=False,
        )

    return run


def assert_clean(*texts: bytes) -> None:
    for text in texts:
        for value in VALUES:
            assert value.encode() not in text


def assert_no_file_holds_one(folder: Path) -> list[str]:
    """Search every file, whatever it holds and is called; return their names."""
    names: list[str] = []
    for path in folder.rglob("*"):
        if path.is_file():
            names.append(path.name)
            assert_clean(path.name.encode(), path.read_bytes())
    return names


def test_a_run_and_its_reproduction_leave_no_secret(luthier: Luthier, tmp_path: Path):
    # The name of a settings file is no setting, and stands in the recorded command.
    named = f"{PLANTED['MY_SECRET']}.yaml"
    (tmp_path / "small.yaml").rename(tmp_path / named)
    trained = luthier("train", named, "--steps", "schema,exact")
    assert trained.returncode == 0, trained.stderr
    again = luthier("reproduce", "out", "--check_only")
    assert again.returncode == 0, again.stderr
    doctor = luthier("doctor", "--json")
    assert doctor.returncode == 0, doctor.stderr
    for done in (trained, again, doctor):
        assert_clean(done.stdout, done.stderr)
    (tmp_path / named).unlink()
    names = assert_no_file_holds_one(tmp_path)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["command"] == ["luthier", "train", "***.yaml", "--steps", "schema,exact"]
    # What was searched is what a run writes: folder, checkpoints, prepared data, cache.
    assert {"run.yaml", "manifest.json", "metrics.jsonl", "adapter_model.safetensors"} <= set(names)
    assert {"optimizer.safetensors", "rejected.jsonl", "data.html"} <= set(names)
    assert any(name.endswith(".arrow") for name in names)
    assert (tmp_path / "cache" / "prepared").is_dir()


@pytest.mark.parametrize("value", VALUES[:3])
def test_a_token_among_the_settings_is_refused(luthier: Luthier, tmp_path: Path, value: str):
    with (tmp_path / "small.yaml").open("a", encoding="utf-8") as file:
        file.write(f"val_file: {value}.json\n")
    flags = ("--train_file", f"x/{value}", "--task_weights", f"[{value}")
    for words, setting in ((("small.yaml",), b"val_file"), (flags[:2], b"train_file")):
        done = luthier("train", *words, "--model_name_or_path", "model")
        assert done.returncode == 2
        assert setting + b" holds " in done.stderr
        assert b"Tokens come from the environment alone" in done.stderr
        assert_clean(done.stdout, done.stderr)
    malformed = luthier("train", *flags)
    assert malformed.returncode == 2
    assert b"is not a list or mapping" in malformed.stderr
    assert_clean(malformed.stdout, malformed.stderr)
    assert not (tmp_path / "out").exists()


def test_the_message_of_a_run_that_fails_holds_none(luthier: Luthier, tmp_path: Path):
    turn = {"role": PLANTED["MY_SECRET"], "content": "Hi"}
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": [turn]}]), encoding="utf-8")
    done = luthier("train", "small.yaml")
    assert done.returncode == 3
    assert b"error: " in done.stderr
    assert b"***" in done.stderr
    assert_clean(done.stdout, done.stderr)
    assert assert_no_file_holds_one(tmp_path / "out") == []

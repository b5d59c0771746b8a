"""`luthier prepare`: what it prints, what it writes, how it stops, what it refuses."""

from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import prepare
from luthier.cli.main import main
from luthier.core.errors import DataError, LuthierError, RunError, SettingsError

STEPS = ["--steps", "schema,exact"]
WORDS = [f"word{number}" for number in range(500)]


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of twelve rows and one of them again, in the folder that the user is in."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=20)) for _ in range(24)]
    rows = [{"instruction": a, "output": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]
    path = Path("raw.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]), encoding="utf-8")
    return path


def lines_of(out: Any) -> list[str]:
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_from_a_file_to_a_corpus(capture: Any):
    out = capture(prepare)
    prepare.run(["raw.jsonl", *STEPS, "--val_size", "0.2", "--out", "my prepared"])
    lines = lines_of(out)
    assert lines[:4] == ["read", "schema", "exact", "exact: looking"]
    assert any(line.startswith("exact 13 1 dup_exact 1 ") for line in lines)
    assert any(line.startswith("left 12 of 13 rows (92.3 %)") for line in lines)
    assert any(line.startswith("split ") and "0 (0.0 %)" in line for line in lines)
    assert lines[-4:] == [
        "my prepared",
        "the data card: my prepared/data.html",
        "look at rows: luthier data show 'my prepared'",
        "train on it: luthier train CONFIG --train_file 'my prepared'",
    ]
    assert Path("my prepared/data.html").is_file()


def test_what_is_there_is_said_to_be_there(capture: Any):
    capture(prepare)
    prepare.run(["raw.jsonl", *STEPS, "--out", "out"])
    out = capture(prepare)
    prepare.run(["raw.jsonl", *STEPS, "--out", "out"])
    assert "out (it was there already)" in lines_of(out)
    assert "read" not in lines_of(out)


def test_without_out_it_lies_where_the_settings_say(capture: Any):
    capture(prepare)
    prepare.run(["raw.jsonl", *STEPS, "--corpus_dir", "there"])
    assert Path("there/manifest.json").is_file()


def test_the_models_tokenizer_counts(capture: Any, tokenizer_folders: dict[str, Path]):
    out = capture(prepare)
    model = str(tokenizer_folders["chatml"])
    prepare.run(["raw.jsonl", *STEPS, "--model_name_or_path", model, "--out", "out"])
    assert lines_of(out)[0] == "counting tokens of a sample"
    manifest = json.loads(Path("out/manifest.json").read_text("utf-8"))
    assert manifest["statistics"]["tokenizer"] == "chatml"


@pytest.mark.parametrize("args", [["--dry_run", "raw.jsonl"], ["raw.jsonl", "--dry_run=true"]])
def test_a_dry_run_shows_what_would_go_and_writes_nothing(capture: Any, args: list[str]):
    out = capture(prepare)
    prepare.run([*args, *STEPS, "--out", "out"])
    text = out.getvalue()
    assert "kept: raw.jsonl#0" in text
    assert "raw.jsonl#12 ─" in text
    assert "A look at the first 2,000 rows of each source; nothing was written." in text
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["raw.jsonl"]


def test_a_dry_run_of_some_rows(capture: Any):
    out = capture(prepare)
    prepare.run(["raw.jsonl", *STEPS, "--dry_run", "--rows", "7"])
    assert any(line.startswith("read 7 -") for line in lines_of(out))
    assert "first 7 rows" in out.getvalue()


def test_no_dry_run(capture: Any):
    capture(prepare)
    prepare.run(["raw.jsonl", *STEPS, "--dry_run", "false", "--out", "out"])
    assert Path("out/manifest.json").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], r"there is nothing to prepare\n  Name files.*luthier prepare raw/"),
        (["raw.jsonl", "--out"], r"--out: --out needs a folder\n  Write --out FOLDER"),
        (["raw.jsonl", "--out="], "--out needs a folder"),
        (["raw.jsonl", "--out", "."], r"--out: .*place of \., and you are in it\n.*--out prepared"),
        (["raw.jsonl", "--out", ".."], "you are in it"),
        (["raw.jsonl", "--corpus_dir", "."], r"^corpus_dir: .*you are in it"),
        (["raw.jsonl", "-o", "out"], r"-o is no flag and no file\n  Flags begin with two dashes"),
        (["raw.jsonl", "--rows", "9"], r"--rows: rows is for a dry run.*\n  Add --dry_run"),
        (["raw.jsonl", "--dry_run", "--rows"], r"rows needs a number\n  Write --rows 1000"),
        (["raw.jsonl", "--dry_run", "--rows", "0"], r"rows is '0', and must be a whole number"),
        (["raw.jsonl", "--dry_run", "--rows", "²"], r"rows is '²', and must be"),
        (["raw.jsonl", "--dry_run=maybe"], r"dry_run is 'maybe', and can be true or false"),
        (["--ray", "raw.jsonl"], r"--ray: raw\.jsonl is read as the address.*\n.*--ray last"),
        (["raw.jsonl", "--steps", "exakt"], r"there is no step exakt\n  Did you mean exact\?"),
        (["raw.jsonl", "--setps", "exact"], r"--setps: .*\n  Did you mean steps\?"),
    ],
)
def test_what_is_refused(capture: Any, args: list[str], message: str):
    out = capture(prepare)
    with pytest.raises(SettingsError, match=message):
        prepare.run(args)
    assert out.getvalue() == ""
    assert not Path("out").exists()


def test_a_folder_of_somebodys_is_left_alone(capture: Any):
    capture(prepare)
    Path("thesis").mkdir()
    Path("thesis/one.txt").touch()
    with pytest.raises(RunError, match=r"thesis: .*is no corpus that luthier prepared"):
        prepare.run(["raw.jsonl", *STEPS, "--out", "thesis"])


def test_a_file_that_is_not_there(capture: Any):
    capture(prepare)
    with pytest.raises(DataError, match=r"no such file or folder: rwa\.jsonl\n.*raw\.jsonl\?"):
        prepare.run(["rwa.jsonl", "--out", "out"])


def test_a_full_disk_in_a_dry_run(capture: Any, monkeypatch: pytest.MonkeyPatch):
    def fill(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    capture(prepare)
    monkeypatch.setattr("luthier.recipes.corpus_command.look_at_sample", fill)
    with pytest.raises(LuthierError, match=r"the disk is full(.|\n)*TMPDIR"):
        prepare.run(["raw.jsonl", *STEPS, "--dry_run"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [([], "Finished steps are kept"), (["--dry_run"], "Nothing was written.")],
)
def test_ctrl_c_is_answered_once(
    capture: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
):
    def stop(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    out = capture(prepare)
    monkeypatch.setattr("luthier.recipes.corpus.prepare_corpus", stop)
    monkeypatch.setattr("luthier.recipes.corpus_command.look_at_sample", stop)
    monkeypatch.setattr(sys, "argv", ["luthier", "prepare", "raw.jsonl", *STEPS, *flags])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert out.getvalue().startswith(f"\nStopped. {said}")
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_keeps_finished_steps(tmp_path: Path, capture: Any):
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        "def slow(row):\n    pathlib.Path('begun').touch()\n    time.sleep(9)\n",
        encoding="utf-8",
    )
    command = ["raw.jsonl", "--step_file", "slow.py", "--steps", "schema,slow", "--out", "out"]
    child = subprocess.Popen(
        [sys.executable, "-m", "luthier", "prepare", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_s = time.monotonic() + 60
    while not Path("begun").exists() and time.monotonic() < until_s:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    stopped = "Stopped. Finished steps are kept: the same command goes on from there."
    assert out.splitlines()[-2:] == ["", stopped]
    assert err == ""
    assert not Path("out").exists()

    (tmp_path / "slow.py").write_text("def slow(row):\n    pass\n", encoding="utf-8")
    capture(prepare)
    prepare.run(command)
    steps = json.loads(Path("out/manifest.json").read_text("utf-8"))["steps"]
    assert {step["name"]: step["from_cache"] for step in steps} == {
        "read": True,
        "schema": True,
        "slow": False,
    }

"""The command line as a whole: commands, exit codes, and errors without a traceback."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import pytest

import luthier
from luthier.cli.main import app, main
from luthier.core.errors import (
    DataError,
    LuthierError,
    MissingExtraError,
    ModelError,
    RunError,
    SettingsError,
)

COMMANDS = ("train", "prepare", "inspect", "config", "chat", "generate", "checkpoints", "doctor")
COMMANDS += ("demo", "reproduce", "lr-find", "eval")
COMMANDS += ("report", "compare", "runs", "watch", "sweep", "export", "verify")


@pytest.fixture
def luthier_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command line in this process; return exit code, output, errors."""

    def run(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["luthier", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return run


def test_every_command_has_help(luthier_command):
    code, out, _ = luthier_command("--help")
    assert code == 0
    for name in COMMANDS:
        assert f" {name} " in out
        code, shown, _ = luthier_command(name, "--help")
        assert code == 0
        assert f"luthier {name}" in shown
    names = {c.name or c.callback.__name__ for c in app.registered_commands}  # type: ignore[union-attr]
    assert names == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name: str):
    assert callable(importlib.import_module(f"luthier.cli.{name.replace('-', '_')}").run)


def test_without_a_command_the_help_is_shown(luthier_command):
    code, out, err = luthier_command()
    assert code in (0, 2)
    assert "Fine-tune language models" in out + err


def test_the_version(luthier_command):
    assert luthier_command("--version") == (0, f"luthier {luthier.__version__}\n", "")


def test_an_unknown_command(luthier_command):
    code, _, err = luthier_command("trian")
    assert code == 2
    assert "trian" in err


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (LuthierError, 1),
        (SettingsError, 2),
        (DataError, 3),
        (ModelError, 4),
        (RunError, 5),
        (MissingExtraError, 6),
    ],
)
def test_an_error_of_the_users_is_one_message_and_an_exit_code(
    luthier_command, monkeypatch: pytest.MonkeyPatch, kind: type[LuthierError], code: int
):
    def fail(args: list[str]) -> None:
        raise kind("no [field] x", where="a.json:3", mend="Add it.")

    monkeypatch.setattr("luthier.cli.train.run", fail)
    assert luthier_command("train") == (code, "", "error: a.json:3: no [field] x\n  Add it.\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_bug(luthier_command, monkeypatch: pytest.MonkeyPatch, number: int):
    def fail(args: list[str]) -> None:
        raise OSError(number, os.strerror(number), "out/metrics.jsonl")

    monkeypatch.setattr("luthier.cli.train.run", fail)
    code, _, err = luthier_command("train")
    assert code == 5
    assert err.startswith("error: out/metrics.jsonl: the disk is full\n  Make room; a run goes on")


def test_another_error_of_the_system_is_one(monkeypatch: pytest.MonkeyPatch):
    def fail(args: list[str]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr("luthier.cli.train.run", fail)
    monkeypatch.setattr(sys, "argv", ["luthier", "train"])
    with pytest.raises(PermissionError):
        main()


def test_anything_else_is_a_bug_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(args: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("luthier.cli.train.run", fail)
    monkeypatch.setattr(sys, "argv", ["luthier", "train"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_ctrl_c_ends_a_command_with_a_word(luthier_command, monkeypatch: pytest.MonkeyPatch):
    def stop(args: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("luthier.cli.train.run", stop)
    assert luthier_command("train") == (130, "", "\nStopped.\n")


@pytest.mark.parametrize("name", ["train", "inspect", "config"])
def test_settings_reach_the_command_as_they_were_typed(
    luthier_command, monkeypatch: pytest.MonkeyPatch, name: str
):
    typed = ["--config", "a.yaml", "--flash_attn", "--freeze_trainable_layers", "-2"]
    typed += ["--lora_target", "[a, b]", "--learning_rate=1e-4", "-x", "--resume_from_checkpoint"]
    given: list[list[str]] = []
    monkeypatch.setattr(f"luthier.cli.{name}.run", lambda args: given.append(list(args)))
    assert luthier_command(name, *typed)[0] == 0
    assert given == [typed]


def test_demos_options(luthier_command, monkeypatch: pytest.MonkeyPatch):
    given: list[dict[str, object]] = []
    monkeypatch.setattr("luthier.cli.demo.run", lambda **options: given.append(options))
    luthier_command("demo")
    luthier_command("demo", "--output_dir", "x", "--model", "m")
    assert given == [
        {"output_dir": "output/demo", "model": None},
        {"output_dir": "x", "model": "m"},
    ]

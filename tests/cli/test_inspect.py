"""`luthier inspect`: what would be taught, in colour or in brackets, and what it would take."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from luthier.cli import inspect
from luthier.core.errors import SettingsError
from luthier.recipes import inspection

ROWS = [{"instruction": f"Name {i} colours.", "output": "Red [b] \x1b[31m."} for i in range(8)]


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "measure_matrix_rates", lambda: {"fp32": 1e3, "bf16": 1e3})
    monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)


@pytest.fixture
def args(tmp_path: Path, tiny_llama: Any) -> list[str]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    values = {
        "model_name_or_path": tiny_llama(),
        "train_file": rows,
        "prepared_dir": tmp_path / "cache",
        "output_dir": tmp_path / "out",
        "bf16": "false",
        "lora_rank": 4,
        "num_train_epochs": 1,
    }
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def test_rows_counts_and_estimate(capture: Any, args: list[str], tmp_path: Path):
    out = capture(inspect)
    inspect.run([*args, "--rows", "2"])
    text = out.getvalue()
    titles = re.findall(r"╭─ rows\.jsonl:(\d): (\d+) tokens, (\d+) taught ─", text)
    assert len(titles) == 2
    # Without colours, what is taught stands in brackets; a control character is shown, not sent.
    assert text.count("⟦Red [b] ␛[31m.⟧⟦<|im_end|>⟧") == 2
    assert "\x1b" not in text
    assert "⟦taught⟧  seen, not taught" in text
    facts = {" ".join(line.split()[:-1]): line.split()[-1] for line in text.splitlines() if line}
    assert facts["read"] == "8"
    assert facts["train rows"] == "8"
    assert facts["cut to cutoff_len"] == "0"
    assert facts["optimiser steps"] == "8"
    assert re.search(r"parameters +\d+\.\dk, 4,096 trained \(\d\.\d %\)", text)
    assert re.search(r"time +about .* in fp32", text)
    assert re.search(r"memory +about [\d.]+ [KMG]iB", text)
    assert re.search(r"\d+ to \d+ +█+ 8", text)
    assert "No warnings." in text
    assert not (tmp_path / "out").exists()


def test_on_a_terminal_colours_say_what_is_taught(args: list[str], monkeypatch: pytest.MonkeyPatch):
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system="standard")
    monkeypatch.setattr(inspect, "console", console)
    inspect.run([*args, "--rows", "1"])
    assert "⟦" not in file.getvalue()
    assert "\x1b[1;7;32m<|im_end|>" in file.getvalue()
    assert "\x1b[1;32mRed [b] ␛[31m." in file.getvalue()


def test_warnings_and_losses_are_listed(capture: Any, args: list[str], tmp_path: Path):
    bad = tmp_path / "bad.jsonl"
    lines = [*map(json.dumps, ROWS), json.dumps({"instruction": "x", "output": ""})]
    bad.write_text("\n".join(lines), encoding="utf-8")
    copy = tmp_path / "copy.jsonl"
    copy.write_text(json.dumps(ROWS[0]), encoding="utf-8")
    out = capture(inspect)
    words = ["--train_file", str(bad), "--val_file", str(copy), "--on_bad_row", "skip"]
    inspect.run([*args, *words, "--rows=0"])
    text = out.getvalue()
    assert re.search(r"left out: \w+ +1\n", text)
    assert re.search(r"read +10\n", text)
    assert re.search(r"val rows +1\n", text)
    assert "note  train_val_overlap: 1 of 1 rows" in text
    assert "No warnings." not in text


@pytest.mark.parametrize("words", [["--rows"], ["--rows", "many"], ["--rows=-1"], ["--rows=2.5"]])
def test_rows_is_a_number(args: list[str], words: list[str]):
    message = r"--rows: rows is .*, and must be a whole number\n  Write --rows 5"
    with pytest.raises(SettingsError, match=message):
        inspect.run([*args, *words])

"""`luthier lr-find`: what it refuses, what it draws, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import lr_find
from luthier.cli.lr_find import curve_lines, print_found, read_range
from luthier.cli.terminal import Stopped
from luthier.core.errors import SettingsError
from luthier.core.exit_codes import INTERRUPTED
from luthier.engine.lr_suggestion import RangeCurve, Suggestion, smooth, suggest
from luthier.recipes import lr_find as recipe
from luthier.recipes.lr_find import FoundRate

ROWS = [{"instruction": f"Name {i} colours.", "output": "Red, green, blue."} for i in range(24)]
RATES = tuple(10.0 ** (-7 + i / 10) for i in range(61))
LOSSES = tuple(2.0 - 0.8 / (1 + 1e-3 / r) + 0.5 * (r / 3e-2) ** 1.5 for r in RATES)


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
        "per_device_train_batch_size": 2,
        "min_lr": "1e-5",
        "max_lr": "10",
        "num_steps": "30",
    }
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def found_rate(tmp_path: Path, **changes: Any) -> FoundRate:
    curve = RangeCurve(RATES, LOSSES, 2.0, has_diverged=True)
    smoothed = smooth(RATES, LOSSES, 0.5)
    values: dict[str, Any] = {
        "folder": tmp_path / "[out]" / "lr-find",
        "curve": curve,
        "smoothed": smoothed,
        "suggestion": suggest(curve, smoothed, 0.5),
        "end": "diverged",
        "num_steps": 100,
        "seconds": 4.2,
    }
    return FoundRate(**(values | changes))


def test_the_range_is_the_usual_one():
    assert read_range({}) == (1e-7, 1.0, None)
    given = {"min_lr": "1e-5", "max_lr": "0.5", "num_steps": "10"}
    assert read_range(given) == (1e-5, 0.5, 10)


@pytest.mark.parametrize("name", ["min_lr", "max_lr"])
@pytest.mark.parametrize("value", [True, "fast", "0", "-1e-3", "nan", "inf"])
def test_a_rate_is_a_number_above_0(name: str, value: Any):
    message = rf"--{name}: {name} is .*, and must be a number above 0\n  Write --{name} 1e-5"
    with pytest.raises(SettingsError, match=message):
        read_range({name: value})


@pytest.mark.parametrize("low", ["1", "2"])
def test_the_lowest_rate_is_below_the_highest(low: str):
    message = rf"--min_lr: min_lr is {low}, and must be below max_lr, which is 1\n  Leave both"
    with pytest.raises(SettingsError, match=message):
        read_range({"min_lr": low})


@pytest.mark.parametrize("value", [True, "9", "-20", "many", "20.5"])
def test_there_are_at_least_ten_steps(value: Any):
    message = r"--num_steps: num_steps is .*, and must be a whole number from 10 on\n  Leave it out"
    with pytest.raises(SettingsError, match=message):
        read_range({"num_steps": value})


def test_a_wrong_range_is_answered_before_the_settings_are_read():
    with pytest.raises(SettingsError, match="--num_steps"):
        lr_find.run(["missing.yaml", "--num_steps", "5"])


def test_an_unknown_flag_names_its_neighbour():
    with pytest.raises(SettingsError, match=r"Did you mean num_steps\?"):
        lr_find.run(["--num_step", "50"])


def test_the_curve_is_drawn_over_the_rates_with_the_suggestion_below(tmp_path: Path):
    found = found_rate(tmp_path)
    *chart, marks, axis = curve_lines(found)
    assert len(chart) == 8
    assert {len(line) for line in chart} == {70}
    # High at the left, low at the minimum, and cut off where it has risen far above its start.
    bottom, top = chart[-1].split("│")[1], chart[0].split("│")[1]
    lowest = round(59 * (math.log10(found.suggestion.minimum or 1) + 7) / 6)
    assert bottom[lowest] in "▁▂▃"
    assert top[-1] == "█"
    assert float(chart[0].split("│")[0]) < 3.0
    place = 59 * (math.log10(found.suggestion.rate or 1) + 7) / 6
    assert marks.index("▲") - 10 == pytest.approx(place, abs=2)
    assert axis.split()[0] == "1e-07"
    assert axis.startswith(" " * 10 + "1e-07")


def test_the_line_for_the_settings_file_stands_alone(capture: Any, tmp_path: Path):
    found = found_rate(tmp_path)
    out = capture(lr_find)
    print_found(found)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    from luthier.report.lr_page import shown

    assert found.suggestion.rate is not None
    assert f"for the settings file   learning_rate: {shown(found.suggestion.rate)}" in lines
    text = out.getvalue()
    assert "A clear valley" in text
    assert "It ended early: the loss rose too far." in text
    order = [text.index(words) for words in ("a tenth of", "falls fastest", "longest fall")]
    assert order == sorted(order)
    assert f"written {tmp_path}/[out]/lr-find/lr_find.json" in lines
    assert f"written {tmp_path}/[out]/lr-find/lr_find.html" in lines
    assert "It took 4.2 s." in text


def test_without_a_valley_nothing_is_suggested(capture: Any, tmp_path: Path):
    out = capture(lr_find)
    print_found(found_rate(tmp_path, suggestion=Suggestion("no_rise", minimum=1.0), end="max_lr"))
    text = out.getvalue()
    assert "There is no valley: the loss falls, and does not rise again" in text
    assert "learning_rate:" not in text
    assert "▲" not in text


def test_without_a_curve_there_is_no_chart(capture: Any, tmp_path: Path):
    bare = RangeCurve((), (), 2.0, has_diverged=True)
    out = capture(lr_find)
    print_found(
        found_rate(
            tmp_path, curve=bare, smoothed=smooth((), (), 0.5), suggestion=Suggestion("too_few")
        )
    )
    assert "There is no curve" in out.getvalue()
    assert "│" not in out.getvalue()


@pytest.fixture
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "lr_page", lambda record: "a page")
    monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)


@pytest.mark.usefixtures("_no_page")
def test_the_command_from_end_to_end(capture: Any, args: list[str], tmp_path: Path):
    out = capture(lr_find)
    lr_find.run([*args, "--learning_rate", "5e-5"])
    text = out.getvalue()
    assert "learning_rate: " in text
    assert "model" in text
    record = json.loads((tmp_path / "out" / "lr-find" / "lr_find.json").read_text("utf-8"))
    assert record["settings"]["schedule"]["learning_rate"] == 5e-5
    assert record["num_steps"] == 30


@pytest.mark.usefixtures("_no_page")
def test_a_stopped_test_shows_what_it_has_and_ends_as_ctrl_c_does(
    capture: Any, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = found_rate(tmp_path, end="stopped")
    monkeypatch.setattr(recipe, "find_learning_rate", lambda *args, **asked: found)
    out = capture(lr_find)
    with pytest.raises(Stopped) as end:
        lr_find.run(args)
    assert end.value.code == INTERRUPTED
    assert "It was stopped before its end." in out.getvalue()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_what_was_measured(args: list[str], tmp_path: Path):
    words = [*args, "--num_steps", "400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "luthier", "lr-find", *words, "--dataloader_num_workers", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("step     8"):
            process.send_signal(signal.SIGUSR1)
        if line.startswith("step    14"):
            process.send_signal(signal.SIGINT)
            break
    seen += process.stdout.read()
    assert process.wait() == INTERRUPTED, seen
    assert "SIGUSR1: a range test writes no checkpoint." in seen
    assert "SIGINT: the test ends after this micro-batch." in seen
    assert "Traceback" not in seen
    record = json.loads((tmp_path / "out" / "lr-find" / "lr_find.json").read_text("utf-8"))
    assert record["end"] == "stopped"
    assert len(record["curve"]["loss"]) >= 11

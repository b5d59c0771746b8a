"""The benchmark of DPO runs from end to end with a tiny model, and takes turns as it says."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import preference
import pytest
from throughput_runs import BenchmarkError

SCRIPT = Path(preference.__file__)
TRL_PYTHON = SCRIPT.parents[1] / ".peers-venv-trl/bin/python"


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def figures(printed: str, title: str) -> tuple[list[str], list[str]]:
    """Return the cells of a contestant's lines: of the table of speed and of that of learning."""
    lines = [line for line in printed.splitlines() if line.startswith(f"| {title} |")]
    speed, learning = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines)
    return speed, learning


def result(contestant: str, number: int, seconds: float, wall_s: float) -> dict[str, Any]:
    """Return a run whose first step is slow, and whose others take the given seconds."""
    return {
        "round": number,
        "contestant": contestant,
        "tuning": "lora",
        "steps": [
            {"seconds": s, "tokens": 100, "loss": loss, "accuracy": right}
            for s, loss, right in ((50.0, 0.7, 0.0), (seconds, 0.6, 0.5), (seconds, 0.4, 1.0))
        ],
        "memory_bytes": 2**30 if contestant == "luthier" else 4 * 2**30,
        "wall_s": wall_s,
        "heldout": {"accuracy": 0.6, "margin": 0.1, "loss": 0.65},
        "others": None,
    }


def test_second_round_goes_backwards_with_its_own_seed() -> None:
    options = argparse.Namespace(only="trl-defaults,luthier", rounds=2, seed=7)
    names = [(run.number, run.contestant.name, run.seed) for run in preference.plan(options)]
    assert names == [
        (1, "trl-defaults", 7),
        (1, "luthier", 7),
        (2, "luthier", 8),
        (2, "trl-defaults", 8),
    ]


def test_unknown_contestant_is_refused() -> None:
    options = argparse.Namespace(only="trk", rounds=1, seed=7)
    with pytest.raises(BenchmarkError, match="no contestant is called trk; there are trl-defaults"):
        preference.plan(options)


def test_ratios_are_taken_within_a_round() -> None:
    results = [
        result("trl-defaults", 1, seconds=4.0, wall_s=100.0),
        result("luthier", 1, seconds=2.0, wall_s=80.0),
        result("trl-defaults", 2, seconds=8.0, wall_s=100.0),
        result("luthier", 2, seconds=2.0, wall_s=40.0),
    ]
    speed, _ = figures(
        f"{preference.speed_table(results, 1)}\n{preference.learning_table(results)}",
        "TRL at its defaults",
    )
    assert speed[0] == "19 (12 to 25)"
    assert speed[4] == "4.00"
    assert speed[5:] == ["3.00 (2.00 to 4.00)", "1.88 (1.25 to 2.50)", "0.25 (0.25 to 0.25)"]
    (aim,) = preference.aim_lines(results, 1)
    assert aim == (
        "luthier over TRL at its defaults: 3.00 (2.00 to 4.00) by the steps, "
        "1.88 (1.25 to 2.50) by the whole command; the aim is 1.5"
    )


def test_learning_is_shown_of_the_last_quarter_and_of_held_out_pairs() -> None:
    results = [result("luthier", 1, seconds=2.0, wall_s=80.0)]
    printed = f"{preference.speed_table(results, 1)}\n{preference.learning_table(results)}"
    _, learning = figures(printed, "luthier")
    assert learning == ["0.7000", "0.5667", "0.4000", "1.000", "0.600", "0.1000", "0.6500"]
    assert preference.aim_lines(results, 1) == [], "alone it is ahead of none"


@pytest.mark.parametrize("missing", ["--data", "--model"])
def test_missing_input_is_named(tmp_path: Path, missing: str) -> None:
    nowhere, data = tmp_path / "nowhere.json", tmp_path / "data.json"
    data.write_text("[]")
    given = {"--data": str(data), "--out": str(tmp_path / "out")} | {missing: str(nowhere)}
    done = run(*(word for flag in given.items() for word in flag))
    assert done.returncode == 1
    assert f"{nowhere}: name one with {missing}" in done.stderr


def test_runs_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    done = run("--out", str(tmp_path))
    assert done.returncode == 1
    assert "holds runs of other settings: give another --out" in done.stderr


def test_dry_pairs_have_two_different_answers(tmp_path: Path) -> None:
    options = preference.dry(argparse.Namespace(), tmp_path)
    pairs = [json.loads(line) for line in options.data.read_text("utf-8").splitlines()]
    assert len(pairs) >= options.rows + options.heldout
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)


@pytest.mark.slow
def test_dry_run_of_luthier(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    done = run("--dry_run", "--peers_venv", str(nowhere))
    assert done.returncode == 0, done.stderr
    assert "NOT RUN: 1-" not in done.stdout
    assert f"NOT RUN: TRL, which needs {nowhere}; this makes it: " in done.stdout
    speed, learning = figures(done.stdout, "luthier")
    assert float(speed[0]) > float(speed[1]) > 0, "the whole command takes longer than its steps"
    assert float(learning[0]) == pytest.approx(0.6931, abs=0.005), "it begins as its reference"


@pytest.mark.slow
@pytest.mark.skipif(
    not TRL_PYTHON.is_file(), reason="TRL's environment is made by throughput.py --make_peers_venv"
)
def test_dry_run_of_both_computes_the_same() -> None:
    done = run("--dry_run", "--only", "trl-defaults,trl-precomputed,luthier")
    assert done.returncode == 0, done.stderr
    assert "NOT RUN" not in done.stdout
    _, ours = figures(done.stdout, "luthier")
    for title in ("TRL at its defaults", "TRL, reference precomputed"):
        _, theirs = figures(done.stdout, title)
        for at in (0, 1, 6):
            assert float(ours[at]) == pytest.approx(float(theirs[at]), abs=0.005)
        assert f"luthier over {title}: " in done.stdout

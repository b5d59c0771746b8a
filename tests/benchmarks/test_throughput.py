"""The benchmark of peers runs from end to end with a tiny model, and takes turns as it says."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import throughput
from throughput_runs import BenchmarkError, Inputs

SCRIPT = Path(throughput.__file__)
TRL_PYTHON = SCRIPT.parents[1] / ".peers-venv-trl/bin/python"
LOSS_RATIO = 5
"""The table's column of it, counted behind the contestant's title."""


def inputs(folder: Path, device: str = "cpu") -> Inputs:
    return Inputs("model", folder, device, 8, 512, 1, 16, 60.0)


def options(**values: object) -> argparse.Namespace:
    given = {"only": None, "rounds": 2, "tuning": "full", "precision": "bf16", "seed": 7}
    return argparse.Namespace(**{**given, **values})


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def figures(printed: str, title: str) -> list[list[str]]:
    """Return the cells of the table lines that begin with a contestant's title."""
    lines = [line for line in printed.splitlines() if line.startswith(f"| {title}")]
    return [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]


def test_second_round_goes_backwards_with_its_own_seed(tmp_path: Path) -> None:
    runs = throughput.plan(options(only="lecture,trl-tuned,luthier-free"), inputs(tmp_path))
    names = [(r.number, r.contestant.name, r.seed) for r in runs]
    assert names == [
        (1, "lecture", 7),
        (1, "trl-tuned", 7),
        (1, "luthier-free", 7),
        (2, "luthier-free", 8),
        (2, "trl-tuned", 8),
        (2, "lecture", 8),
    ]


def test_trl_is_compared_in_bf16_alone(tmp_path: Path) -> None:
    runs = throughput.plan(options(precision="bf16,fp32", rounds=1), inputs(tmp_path))
    assert {r.contestant.system for r in runs if r.precision == "fp32"} == {"lecture", "luthier"}


def test_frozen_weights_are_kept_in_bf16_only_where_some_are_frozen(tmp_path: Path) -> None:
    runs = throughput.plan(options(tuning="full,lora", rounds=1), inputs(tmp_path))
    assert [r.tuning for r in runs if r.contestant.name == "trl-bf16"] == ["lora"]


def test_liger_needs_a_gpu(tmp_path: Path) -> None:
    for device, expected in (("cpu", False), ("cuda", True)):
        runs = throughput.plan(options(), inputs(tmp_path, device))
        assert any(r.contestant.name == "trl-liger" for r in runs) is expected


def test_unknown_contestant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no contestant is called trk; there are lecture, "):
        throughput.plan(options(only="trk"), inputs(tmp_path))


def test_held_out_rows_are_not_trained_on(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"at": at}) + "\n" for at in range(10)))
    throughput.write_conversations(data, tmp_path, rows=6, heldout=3, seed=0)
    train, heldout = (
        {json.loads(line)["at"] for line in (tmp_path / name).read_text().splitlines()}
        for name in ("train.jsonl", "heldout.jsonl")
    )
    assert (len(train), len(heldout), train & heldout) == (6, 3, set())
    with pytest.raises(BenchmarkError, match=r"has 10 rows; 8 \+ 3 are asked for"):
        throughput.write_conversations(data, tmp_path, rows=8, heldout=3, seed=0)


@pytest.mark.parametrize("missing", ["--data", "--model"])
def test_missing_input_is_named(tmp_path: Path, missing: str) -> None:
    nowhere = tmp_path / "nowhere.json"
    done = run(missing, str(nowhere), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert f"{nowhere}: name one with {missing}" in done.stderr


def test_runs_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    done = run("--out", str(tmp_path))
    assert done.returncode == 1
    assert "holds runs of other settings: give another --out" in done.stderr


@pytest.mark.slow
def test_dry_run_of_luthier_and_the_lecture() -> None:
    done = run("--dry_run", "--only", "lecture,luthier-free,luthier-packed")
    assert done.returncode == 0, done.stderr
    assert "NOT RUN: 1-" not in done.stdout
    assert "was given" not in done.stdout, "all were given every token just once"
    for title in ("the lecture's recipe", "luthier, packing: padding_free", "luthier, packing: tr"):
        full, lora = figures(done.stdout, title)
        for cells in (full, lora):
            assert float(cells[0].replace(",", "")) > 0
            assert float(cells[LOSS_RATIO]) == pytest.approx(1.0, abs=0.005), (
                "the loss beside the lecture's"
            )
    assert "| full, bf16 |" in done.stdout
    assert "| head |" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not TRL_PYTHON.is_file(), reason="TRL's environment is made by throughput.py --make_peers_venv"
)
def test_dry_run_of_trl() -> None:
    done = run("--dry_run", "--only", "lecture,trl-defaults,trl-tuned", "--tuning", "lora")
    assert done.returncode == 0, done.stderr
    assert "NOT RUN" not in done.stdout
    assert "was given" not in done.stdout
    for title in ("TRL at its defaults", "TRL tuned"):
        (cells,) = figures(done.stdout, title)
        assert float(cells[LOSS_RATIO]) == pytest.approx(1.0, abs=0.005), (
            "the loss beside the lecture's"
        )


@pytest.mark.slow
def test_missing_trl_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    done = run("--dry_run", "--only", "trl-tuned", "--peers_venv", str(nowhere))
    assert done.returncode == 0, done.stderr
    assert f"NOT RUN: TRL, which needs {nowhere}; this makes it: " in done.stdout
    assert "--make_peers_venv" in done.stdout


@pytest.mark.slow
def test_dry_run_of_scaling() -> None:
    done = run("--dry_run", "--scaling", "--tuning", "lora")
    assert done.returncode == 0, done.stderr
    for first in ("64", "128", "1,024", "2,048", "1", "2"):
        (cells,) = figures(done.stdout, f"{first} |")
        assert float(cells[-1]) > 0

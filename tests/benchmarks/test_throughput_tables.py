"""Rates leave the warm-up out, ratios are taken within a round, and a lost token is said."""

from __future__ import annotations

from typing import Any

import pytest
from throughput_tables import (
    Wall,
    disturbance_notes,
    main_table,
    measured_steps,
    mfu_table,
    per_second,
    ratio,
    spread,
    table,
    token_notes,
)
from throughput_wall import PRODUCTS, flops_per_token

CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 100,
}


def result(contestant: str, number: int, *seconds: float, loss: float = 2.0) -> dict[str, Any]:
    """Return a run whose first step is slow, and whose others take the given seconds."""
    steps = [{"seconds": s, "tokens": 100, "supervised": 75} for s in (50.0, *seconds)]
    return {
        "round": number,
        "contestant": contestant,
        "tuning": "full",
        "precision": "bf16",
        "steps": steps,
        "memory_bytes": 2**30,
        "loss": loss,
        "others": None,
    }


def wall(card: str = "") -> Wall:
    """Return a machine whose products allow 100 tokens a second."""
    flops = flops_per_token(CONFIG, "full", 0.75, 16)
    records = [
        {"precision": "bf16", "product": product, "flops": 100 * flops, "seconds": 1.0}
        for product in PRODUCTS
    ]
    return Wall(records, card, CONFIG, 0.75, 16)


def test_warm_up_does_not_count() -> None:
    found = result("lecture", 1, 2.0, 3.0)
    assert per_second(found, 1) == 200 / 5
    assert per_second(found, 1, "supervised") == 150 / 5


def test_the_last_step_counts_where_all_are_warm_up() -> None:
    assert len(measured_steps(result("lecture", 1, 2.0), warmup=5)) == 1


def test_ratio_pairs_runs_of_one_round() -> None:
    ours = [result("luthier-free", 1, 1.0), result("luthier-free", 2, 10.0)]
    theirs = [result("lecture", 2, 20.0), result("lecture", 1, 3.0)]
    found = ratio(ours, theirs, lambda r: per_second(r, 1))
    assert found == "2.50 (2.00 to 3.00)"
    assert ratio(ours, [], lambda r: per_second(r, 1)) == ""


def test_main_table() -> None:
    results = [result("lecture", 1, 4.0), result("luthier-free", 1, 2.0, loss=2.01)]
    titles = {"lecture": "the recipe", "trl-tuned": "TRL", "luthier-free": "luthier"}
    lines = main_table(results, titles, 1, wall()).splitlines()
    assert lines[0].endswith("| luthier-free / it |")
    recipe = ["the recipe", "25", "19", "4.00", "1.00", "2.0000", "1.0000", "25%", "2.00"]
    luthier = ["luthier", "50", "38", "2.00", "1.00", "2.0100", "1.0050", "50%", "1.00"]
    assert lines[2:] == ["| " + " | ".join(cells) + " |" for cells in (recipe, luthier)]


def test_mfu_by_the_nominal_rate() -> None:
    found = mfu_table([result("lecture", 1, 4.0)], {"lecture": "x"}, 1, wall("NVIDIA A100"))
    share = 100 * 25 * flops_per_token(CONFIG, "full", 0.75, 16) / 312e12
    assert found.splitlines()[-1] == f"| x | full | {share:.1f} % |"
    assert mfu_table([], {}, 1, wall()).startswith("No MFU: no nominal rate is known of this")


def test_lost_tokens_are_said() -> None:
    found = result("trl-defaults", 1, 1.0)
    assert token_notes([found], 200, 150) == []
    (note,) = token_notes([found], 210, 150)
    assert "trl-defaults (full, round 1) was given 200 tokens, 150 of them supervised" in note


def test_disturbed_runs_are_said() -> None:
    quiet, busy = result("lecture", 1, 1.0), {**result("lecture", 2, 1.0), "others": 0.42}
    (note,) = disturbance_notes([quiet, {**quiet, "others": 0.05}, busy], 0.1)
    assert "beside lecture (full, round 2) other work took 42% of the processors" in note


@pytest.mark.parametrize(
    ("values", "expected"), [([2.0], "2.0"), ([1.0, 2.0, 6.0], "2.0 (1.0 to 6.0)")]
)
def test_spread(values: list[float], expected: str) -> None:
    assert spread(values, 1) == expected


def test_table_is_markdown() -> None:
    assert table([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"

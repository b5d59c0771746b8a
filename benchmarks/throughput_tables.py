"""Results of throughput.py in, Markdown tables out: medians over rounds, ranges, and ratios.

Ratios are taken within a round, where both ran on the same rows and the same seed one after the
other, and the median of these is shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from throughput_wall import PRODUCTS, flops_per_token, nominal_flops, rate

Result = dict[str, Any]


@dataclass(frozen=True)
class Wall:
    """What the machine could do at most.

    Attributes:
        records: Of `throughput_wall.measure`.
        card: Name of the GPU, or an empty text.
        config: The model's config.json.
        supervised_share: Share of the real tokens that carry loss.
    """

    records: list[dict[str, Any]]
    card: str
    config: dict[str, Any]
    supervised_share: float
    lora_rank: int

    def flops(self, tuning: str) -> float:
        """Return the operations of one real token."""
        return flops_per_token(self.config, tuning, self.supervised_share, self.lora_rank)

    def tokens_per_second(self, tuning: str, precision: str) -> float:
        """Return how many real tokens a second the matrix products alone would allow."""
        return rate(self.records, precision, tuning) / self.flops(tuning)


def measured_steps(result: Result, warmup: int) -> list[dict[str, float]]:
    """Return the steps that count: all after the warm-up, but the last one at least."""
    steps = result["steps"]
    return steps[min(warmup, len(steps) - 1) :]


def per_second(result: Result, warmup: int, what: str = "tokens") -> float:
    """Return real (or `supervised`) tokens a second over the steps that count."""
    steps = measured_steps(result, warmup)
    return sum(step[what] for step in steps) / sum(step["seconds"] for step in steps)


def seconds_per_step(result: Result, warmup: int) -> float:
    """Return the mean seconds of the steps that count."""
    steps = measured_steps(result, warmup)
    return sum(step["seconds"] for step in steps) / len(steps)


def table(cells: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table; the first row is its head."""
    head, *rows = cells
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, with the range behind it where there is one."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(
    mine: list[Result],
    theirs: list[Result],
    figure: Callable[[Result], float],
    digits: int = 2,
) -> str:
    """Return the median over rounds of `figure(mine) / figure(theirs)`, or nothing."""
    by_round = {result["round"]: figure(result) for result in theirs}
    pairs = [figure(r) / by_round[r["round"]] for r in mine if r["round"] in by_round]
    return spread(pairs, digits) if pairs else ""


def main_table(
    results: list[Result], titles: dict[str, str], warmup: int, wall: Wall | None
) -> str:
    """Return the table of one tuning and one precision.

    Args:
        results: Of this tuning and precision, all rounds.
        titles: What each contestant is called, in the order of the rows.
        warmup: Steps that are left out at the start.
        wall: None leaves its column empty.
    """
    of = {name: [r for r in results if r["contestant"] == name] for name in titles}
    ours = [name for name in titles if name.startswith("luthier") and of[name]]

    def speed(result: Result) -> float:
        return per_second(result, warmup)

    rows = [
        [
            "contestant",
            "real tokens/s",
            "supervised tokens/s",
            "s a step",
            "peak GiB",
            "held-out loss",
            "loss / lecture's",
            "share of the wall",
            *(f"{name} / it" for name in ours),
        ]
    ]
    for name, title in titles.items():
        mine = of[name]
        if not mine:
            continue
        first = mine[0]
        limit = wall.tokens_per_second(first["tuning"], first["precision"]) if wall else None
        share = f"{statistics.median(map(speed, mine)) / limit:.0%}" if limit else ""
        rows.append(
            [
                title,
                spread([speed(r) for r in mine]),
                f"{statistics.median(per_second(r, warmup, 'supervised') for r in mine):.0f}",
                spread([seconds_per_step(r, warmup) for r in mine], 2),
                f"{max(r['memory_bytes'] for r in mine) / 2**30:.2f}",
                spread([r["loss"] for r in mine], 4),
                ratio(mine, of.get("lecture", []), lambda r: r["loss"], digits=4),
                share,
                *(ratio(of[other], mine, speed) for other in ours),
            ]
        )
    return table(rows)


def wall_table(wall: Wall, precisions: Sequence[str]) -> str:
    """Return what the products of each shape reach, in GFLOP/s."""
    names = list(dict.fromkeys(record["matrix"] for record in wall.records))
    rows = [["matrix", *(f"{p}, {product}" for p in precisions for product in PRODUCTS)]]
    found = {(r["matrix"], r["precision"], r["product"]): r for r in wall.records}
    for name in names:
        cells = [found[name, p, product] for p in precisions for product in PRODUCTS]
        rows.append([name, *(f"{c['flops'] / c['seconds'] / 1e9:,.0f}" for c in cells)])
    return table(rows)


def limits_table(wall: Wall, tunings: Sequence[str], precisions: Sequence[str]) -> str:
    """Return operations a token, rate and wall of each tuning, and the card's nominal rate."""
    nominal = nominal_flops(wall.card)
    rows = [["training", "MFLOP a real token", "GFLOP/s of its products", "wall, tokens/s"]]
    if nominal:
        rows[0].append(f"at the nominal {nominal / 1e12:.0f} TFLOP/s")
    for tuning in tunings:
        for precision in precisions:
            speed = rate(wall.records, precision, tuning)
            cells = [
                f"{tuning}, {precision}",
                f"{wall.flops(tuning) / 1e6:,.0f}",
                f"{speed / 1e9:,.0f}",
                f"{wall.tokens_per_second(tuning, precision):,.0f}",
            ]
            rows.append([*cells, *([f"{nominal / wall.flops(tuning):,.0f}"] if nominal else [])])
    return table(rows)


def mfu_table(results: list[Result], titles: dict[str, str], warmup: int, wall: Wall) -> str:
    """Return model FLOPs utilisation by the nominal rate of the card, or why there is none."""
    nominal = nominal_flops(wall.card)
    if nominal is None:
        return f"No MFU: no nominal rate is known of {wall.card or 'this machine'}."
    rows = [["contestant", "training", "MFU by the nominal rate"]]
    for name, title in titles.items():
        for tuning in dict.fromkeys(r["tuning"] for r in results):
            mine = [
                r
                for r in results
                if r["contestant"] == name and r["tuning"] == tuning and r["precision"] == "bf16"
            ]
            if mine:
                shares = [per_second(r, warmup) * wall.flops(tuning) / nominal for r in mine]
                rows.append([title, tuning, spread([100 * share for share in shares], 1) + " %"])
    return table(rows)


def token_notes(results: list[Result], num_tokens: int, num_supervised: int) -> list[str]:
    """Return a line for each run that did not train on every token just once."""
    notes: list[str] = []
    for result in results:
        seen = sum(step["tokens"] for step in result["steps"])
        taught = sum(step["supervised"] for step in result["steps"])
        if (seen, taught) != (num_tokens, num_supervised):
            notes.append(
                f"NOTE: {result['contestant']} ({result['tuning']}, round {result['round']}) was "
                f"given {seen} tokens, {taught} of them supervised; the rows have {num_tokens} "
                f"and {num_supervised}."
            )
    return notes


def disturbance_notes(results: list[Result], allowed: float) -> list[str]:
    """Return a line for each run beside which other processes worked.

    Args:
        results: With `others`, the share of the processors that they took, or None.
        allowed: The largest share that isn't worth a line.
    """
    return [
        f"NOTE: beside {result['contestant']} ({result['tuning']}, round {result['round']}) other "
        f"work took {result['others']:.0%} of the processors; run it again on an idle machine."
        for result in results
        if result["others"] is not None and result["others"] > allowed
    ]

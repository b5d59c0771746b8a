"""Measure the memory and the time that the loss takes, by vocabulary and by number of tokens.

    python benchmarks/loss_memory.py [--width 576] [--full] [--seconds]

Each figure comes from a child process of its own: the growth of its largest resident size while
head and loss run forward and backward once. What belongs to the model is taken off: with a trained
head the gradient of its matrix, and in bfloat16 the copy of the matrix that autocast makes, too. It
prints Markdown tables: memory over vocabularies at one length, memory over lengths at one
vocabulary, and, with --seconds, time against that of the bare matrix products in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from luthier.objectives.linear_cross_entropy import linear_cross_entropy

VOCABULARIES = (8_192, 32_768, 131_072, 262_144)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
TOKENS, VOCABULARY = 4096, 49_152
KINDS = ("frozen bf16", "trained bf16", "trained fp32")
MEBIBYTE = 2**20


def main() -> None:
    """Print the tables, or with --child one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--full", action="store_true", help="full logits, for comparison")
    parser.add_argument("--seconds", action="store_true", help="measure time instead")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(**json.loads(given.child))))
    elif given.seconds:
        time_tables(given.width)
    else:
        memory_tables(given.width, given.full)


def memory_tables(width: int, full: bool) -> None:
    """Print memory over vocabularies, and over lengths."""
    print(f"\nMiB beyond the model's own, {TOKENS} supervised tokens, width {width}\n")
    print(header("vocabulary", KINDS))
    for size in VOCABULARIES:
        print(memory_row(f"{size}", width, full, tokens=TOKENS, size=size))
    print(f"\nMiB beyond the model's own, vocabulary {VOCABULARY}, width {width}\n")
    print(header("supervised tokens", KINDS))
    for tokens in LENGTHS:
        print(memory_row(f"{tokens}", width, full, tokens=tokens, size=VOCABULARY))


def memory_row(name: str, width: int, full: bool, *, tokens: int, size: int) -> str:
    """Return one row: a figure for each kind of head."""
    figures = [
        child(kind=kind, tokens=tokens, size=size, width=width, full=full)["memory_bytes"]
        for kind in KINDS
    ]
    return row(name, [f"{figure / MEBIBYTE:.0f}" for figure in figures])


def time_tables(width: int) -> None:
    """Print seconds of the bare products, of this loss, and of full logits."""
    print(f"\nCPU seconds on one thread, vocabulary {VOCABULARY}, width {width}\n")
    print(header("rows, head", ("products", "GFLOP/s", "this loss", "share", "full logits")))
    for kind in KINDS:
        for tokens in (500, 1000, 1500):
            parts = {
                how: child(
                    kind=kind, tokens=tokens, size=VOCABULARY, width=width, full=how, seconds=True
                )
                for how in (False, True)
            }
            bare = min(part["products_s"] for part in parts.values())
            ours, full = parts[False]["loss_s"], parts[True]["loss_s"]
            rate = parts[False]["gflop"] / bare
            cells = [bare, rate, ours, bare / ours, full]
            print(row(f"{tokens}, {kind}", [f"{cell:.2f}" for cell in cells]), flush=True)


def header(first: str, others: tuple[str, ...]) -> str:
    """Return the head of a Markdown table."""
    return row(first, others) + "\n" + row("---", ["---"] * len(others))


def row(first: str, cells: list[str] | tuple[str, ...]) -> str:
    """Return one row of a Markdown table."""
    return "| " + " | ".join([first, *cells]) + " |"


def child(**case: object) -> dict[str, float]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def measure(
    kind: str, tokens: int, size: int, width: int, full: bool, seconds: bool = False
) -> dict[str, float]:
    """Run head and loss of one case.

    Returns:
        `memory_bytes`, or with `seconds`: `loss_s`, `products_s`, `gflop`.
    """
    torch.manual_seed(0)
    trained, low = kind.startswith("trained"), kind.endswith("bf16")
    # Made in its own type at once: a copy would raise the largest size before the loss runs.
    dtype = torch.bfloat16 if low and not trained else torch.float32
    weight = torch.empty(size, width, dtype=dtype).normal_(std=0.05)
    weight.requires_grad_(trained)
    hidden = torch.randn(tokens, width, requires_grad=True)
    targets = torch.randint(0, size, (tokens,))

    def step(count: int = tokens) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            total = plain(hidden[:count], weight, targets[:count]) if full else None
            if total is None:
                total = linear_cross_entropy(hidden[:count], weight, targets[:count]).total
        (total / tokens).backward()
        hidden.grad = weight.grad = None

    if seconds:
        return times(step, trained=trained, low=low, hidden=hidden, weight=weight)
    small = torch.randn(64, width)
    linear_cross_entropy(small, torch.randn(64, width), torch.arange(64))  # Loads libraries.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    own = size * width * (4 * trained + 2 * (low and trained))
    return {"memory_bytes": grown - own}


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the summed loss by full logits."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


def times(
    step: Callable[[], None],
    *,
    trained: bool,
    low: bool,
    hidden: torch.Tensor,
    weight: torch.Tensor,
) -> dict[str, float]:
    """Time loss and bare products in turn; the least of five of each, in CPU seconds."""
    torch.set_num_threads(1)
    work = torch.bfloat16 if low else torch.float32
    a, b = hidden.detach().to(work), weight.detach().to(work)
    logits = torch.empty(len(a), len(b), dtype=work)

    def products() -> None:
        torch.mm(a, b.t(), out=logits)
        torch.mm(logits, b)
        if trained:
            torch.mm(logits.t(), a)

    best = {"products_s": float("inf"), "loss_s": float("inf")}
    for _ in range(5):
        for name, run in (("products_s", products), ("loss_s", step)):
            started = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - started)
    return {**best, "gflop": 2 * (2 + trained) * len(a) * b.numel() / 1e9}


if __name__ == "__main__":
    main()

"""The wall that throughput.py holds contestants against: a model's matrix products, and no more.

Operations of a real token: its products with the matrices of the layers and, where it carries
loss, of the head. Forward 2 operations a parameter, gradient of the activations 2, gradient of
the weights 2. So full training takes 6 a parameter; LoRA 4 a frozen parameter and 6 a parameter
of the adapters. Attention's own products, norms, activations and the optimiser aren't counted:
who does them must do them beside these.

    python benchmarks/throughput_wall.py CASE.json

measures the rate of these very products on this machine: each matrix with the tokens of one
micro-batch, forward and both gradients, weighted by how often the model has it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOMINAL_TFLOPS = {
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""bf16 without sparsity, accumulated in float32, as the makers state it; the first name that
stands in the card's is taken."""

PRODUCTS = ("forward", "to inputs", "to weights")


@dataclass(frozen=True)
class Matrix:
    """A linear layer's shape, and how many of its kind the model has."""

    name: str
    inputs: int
    outputs: int
    count: int

    @property
    def parameters(self) -> int:
        """Parameters of all of its kind."""
        return self.inputs * self.outputs * self.count


def matrices(config: dict[str, Any]) -> tuple[list[Matrix], Matrix]:
    """Return the layers' matrices and the head, of a model of LLaMA's kind.

    Args:
        config: What stands in its config.json.
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_width = config.get("head_dim") or width // heads
    query = heads * head_width
    key = (config.get("num_key_value_heads") or heads) * head_width
    inner = config["intermediate_size"]
    body = [
        Matrix("q", width, query, layers),
        Matrix("k, v", width, key, 2 * layers),
        Matrix("o", query, width, layers),
        Matrix("gate, up", width, inner, 2 * layers),
        Matrix("down", inner, width, layers),
    ]
    return body, Matrix("head", width, config["vocab_size"], 1)


def flops_per_token(
    config: dict[str, Any], tuning: str, supervised_share: float, lora_rank: int
) -> float:
    """Return the operations of one real token; see the module's head.

    Args:
        config: The model's config.json.
        tuning: `full` or `lora`.
        supervised_share: Share of the real tokens that carry loss.
        lora_rank: Rank of the adapters on all matrices of the layers.
    """
    body, head = matrices(config)
    base = sum(matrix.parameters for matrix in body) + supervised_share * head.parameters
    if tuning == "full":
        return 6 * base
    adapters = sum(lora_rank * (m.inputs + m.outputs) * m.count for m in body)
    return 4 * base + 6 * adapters


def nominal_flops(card: str) -> float | None:
    """Return a card's nominal bf16 rate in operations a second, or None for an unknown one."""
    return next((1e12 * rate for name, rate in NOMINAL_TFLOPS.items() if name in card), None)


def measure(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure each product of each matrix.

    Returns:
        A record a product: `precision`, `matrix`, `product`, `flops` of all of its kind in one
        step, and the `seconds` that they take.
    """
    import torch

    body, head = matrices(case["config"])
    types = {"bf16": torch.bfloat16, "fp32": torch.float32}
    records: list[dict[str, Any]] = []
    for precision in case["precisions"]:
        for matrix in (*body, head):
            tokens = case["tokens"] if matrix is not head else case["supervised"]
            for product, run in products(matrix, tokens, types[precision], case["device"]).items():
                records.append(
                    {
                        "precision": precision,
                        "matrix": matrix.name,
                        "product": product,
                        "flops": 2 * tokens * matrix.parameters,
                        "seconds": matrix.count * time_one(run, case["device"], case["each_s"]),
                    }
                )
    return records


def products(matrix: Matrix, tokens: int, dtype: Any, device: str) -> dict[str, Callable[[], Any]]:
    """Return the three products of one linear layer, as training computes them.

    Each writes into memory that is there already: a fresh page for each result would be timed too.
    """
    import torch

    inputs = torch.randn(tokens, matrix.inputs, dtype=dtype, device=device)
    weight = torch.randn(matrix.outputs, matrix.inputs, dtype=dtype, device=device)
    gradient = torch.randn(tokens, matrix.outputs, dtype=dtype, device=device)
    outputs, to_inputs, to_weights = map(torch.empty_like, (gradient, inputs, weight))
    return {
        "forward": lambda: torch.mm(inputs, weight.t(), out=outputs),
        "to inputs": lambda: torch.mm(gradient, weight, out=to_inputs),
        "to weights": lambda: torch.mm(gradient.t(), inputs, out=to_weights),
    }


def time_one(run: Callable[[], Any], device: str, each_s: float) -> float:
    """Return the median seconds of a product, repeated for so many seconds in all."""
    import torch

    def once() -> float:
        started_s = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started_s

    once()
    seconds = [once()]
    while sum(seconds) < each_s or len(seconds) < 3:
        seconds.append(once())
    return statistics.median(seconds)


def rate(records: list[dict[str, Any]], precision: str, tuning: str) -> float:
    """Return operations a second over the products that a tuning needs."""
    needed = PRODUCTS if tuning == "full" else PRODUCTS[:2]
    mine = [r for r in records if r["precision"] == precision and r["product"] in needed]
    return sum(r["flops"] for r in mine) / sum(r["seconds"] for r in mine)


def main() -> None:
    """Measure a case, and write `wall.json` into its folder."""
    import torch

    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    card = torch.cuda.get_device_name() if case["device"] == "cuda" else ""
    found = {"card": card, "threads": torch.get_num_threads(), "records": measure(case)}
    (Path(case["folder"]) / "wall.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Time attention over packed rows: by segments, by a T x T mask, and its matrix products alone.

    python benchmarks/segment_attention.py [--threads 1] [--repeats 5] [--tokens 2048]

9 heads of width 64, 3 of keys and values (SmolLM2-135M), forward and backward, one layer. The last
column is how long the products alone take: 2 forward and 5 backward over half of each segment's
square, at the rate of a product of 512 x 512. Cases are timed in turns, and the quickest turn of
each counts, so that what else runs on the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from luthier.models.segments import segments_attention, segments_mask

HEADS, KV_HEADS, WIDTH = 9, 3, 64
MIXED = [201, 90, 452, 33, 260, 150, 330, 201, 121, 90, 120]
"""2048 tokens in documents as long as those of alpaca_en_demo: mean near 200."""
PRODUCTS = 7


class Layer(torch.nn.Module):
    """What an attention function asks of a layer."""

    is_causal = True
    num_key_value_groups = HEADS // KV_HEADS


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = (64, 128, 256, 512, 1024, 2048)
    packs = {str(size): [size] * (options.tokens // size) for size in sizes}
    packs["mixed"] = MIXED
    print("| dtype | segment | by segments, ms | T x T mask, ms | ratio | products, ms | share |")
    print("|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for name, lengths in packs.items():
            print(_line(dtype, name, lengths, options.repeats), flush=True)


def _line(dtype: torch.dtype, name: str, lengths: list[int], repeats: int) -> str:
    square = torch.randn(512, 512, dtype=dtype)
    cases = {
        "segments": _attention(dtype, lengths, by_mask=False),
        "mask": _attention(dtype, lengths, by_mask=True),
        "product": lambda: square @ square,
    }
    seconds = dict.fromkeys(cases, float("inf"))
    for case in cases.values():
        case()
    for _ in range(repeats):
        for case, run in cases.items():
            start = time.perf_counter()
            run()
            seconds[case] = min(seconds[case], time.perf_counter() - start)
    num_operations = PRODUCTS * sum(length**2 for length in lengths) * HEADS * WIDTH
    products = num_operations * seconds["product"] / (2 * 512**3)
    ours, mask = seconds["segments"], seconds["mask"]
    return (
        f"| {str(dtype).removeprefix('torch.')} | {name} | {ours * 1e3:.1f} | {mask * 1e3:.1f} | "
        f"{mask / ours:.1f} | {products * 1e3:.1f} | {products / ours:.0%} |"
    )


def _attention(dtype: torch.dtype, lengths: list[int], *, by_mask: bool) -> Callable[[], None]:
    num_tokens = sum(lengths)
    inputs = [
        torch.randn(1, num_tokens, heads, WIDTH, dtype=dtype).transpose(1, 2).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    upstream = torch.randn(1, num_tokens, HEADS, WIDTH, dtype=dtype)
    layer = Layer()
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    # transformers builds the same mask for `sdpa`; a padding mask makes it so here.
    mask = segments_mask(
        mask_function=lambda _b, _h, q, k: (k <= q) & (segment[q] == segment[k]),
        attention_mask=torch.ones(1, num_tokens, dtype=torch.bool),
        allow_is_causal_skip=False,
        batch_size=1,
        q_length=num_tokens,
        kv_length=num_tokens,
        device="cpu",
    )
    case: dict[str, Any] = {} if by_mask else {"cu_seq_lens_q": ends}

    def run() -> None:
        query, key, value = inputs
        output, _ = segments_attention(layer, query, key, value, mask if by_mask else None, **case)
        torch.autograd.grad(output, inputs, upstream)

    return run


if __name__ == "__main__":
    main()

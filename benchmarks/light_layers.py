"""Time luthier's LoRA layers and norms beside those of peft and transformers.

    python benchmarks/light_layers.py [--tokens 1600] [--hidden 576] [--repeats 15]

Forward and backward of one layer of SmolLM2-135M's shape under bfloat16 autocast, LoRA of rank 16.
The last column of the first table is what the products with the frozen weights alone take. Cases
are timed in turns, and the quickest turn of each counts, so that what else runs on the machine
disturbs all alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping

import torch
from peft import LoraConfig, get_peft_model
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from luthier.models.lora_linear import share_lora_products
from luthier.models.rms_norm import lighten_norms
from luthier.recipes.machine import cpu_name

BF16 = torch.bfloat16


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1600)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    width, inner = options.hidden, options.hidden * 8 // 3
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"torch {torch.__version__}, {options.tokens} tokens\n")
    print("| layers of one input | peft, ms | shared, ms | frozen products alone, ms |")
    print("|---|---|---|---|")
    groups = {
        "q_proj k_proj v_proj": (width, [width, width // 3, width // 3]),
        "o_proj": (width, [width]),
        "gate_proj up_proj": (width, [inner, inner]),
        "down_proj": (inner, [width]),
    }
    for names, (num_inputs, outputs) in groups.items():
        cases = lora_cases(names.split(), num_inputs, outputs, options.tokens)
        print(row(names, best_times(cases, options.repeats)), flush=True)
    print("\n| norm of a residual stream in | transformers, ms | light, ms |")
    print("|---|---|---|")
    for dtype in (BF16, torch.float32):
        times = best_times(norm_cases(width, options.tokens, dtype), options.repeats)
        print(row(str(dtype).removeprefix("torch."), times), flush=True)


def row(name: str, seconds: Mapping[str, float]) -> str:
    """Return a line of a table, in milliseconds."""
    return f"| {name} | " + " | ".join(f"{s * 1e3:.2f}" for s in seconds.values()) + " |"


def best_times(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the quickest run of each case, in seconds; the cases take turns."""
    seconds = dict.fromkeys(cases, float("inf"))
    for turn in range(repeats + 2):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn >= 2:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def lora_cases(
    names: list[str], num_inputs: int, outputs: list[int], tokens: int
) -> dict[str, Callable[[], object]]:
    """Return a run of peft's layers, of the shared ones, and of the frozen products."""
    x = torch.randn(tokens, num_inputs, dtype=BF16, requires_grad=True)
    upstream = [torch.randn(tokens, size, dtype=BF16) for size in outputs]
    weight = torch.randn(sum(outputs), num_inputs, dtype=BF16)
    together = torch.cat(upstream, 1)

    def run_of(shared: bool) -> Callable[[], object]:
        layers = [torch.nn.Linear(num_inputs, n, bias=False, dtype=BF16) for n in outputs]
        block = torch.nn.ModuleDict(dict(zip(names, layers, strict=True)))
        config = LoraConfig(r=16, target_modules=names, init_lora_weights=False)
        model = get_peft_model(torch.nn.ModuleDict({"block": block}), config)
        if shared:
            share_lora_products(model)
        found = dict(model.named_modules())
        block = found["base_model.model.block"]
        trained = [x, *(p for p in model.parameters() if p.requires_grad)]

        def run() -> object:
            with torch.autocast("cpu", BF16):
                results = [block.get_submodule(name)(x) for name in names]
            return torch.autograd.grad(results, trained, upstream)

        return run

    return {
        "peft": run_of(shared=False),
        "shared": run_of(shared=True),
        "products": lambda: (x.detach() @ weight.t(), together @ weight),
    }


def norm_cases(width: int, tokens: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Return a run of transformers' norm and of the light one."""
    x = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    upstream = torch.randn(tokens, width, dtype=BF16)

    def run_of(light: bool) -> Callable[[], object]:
        model = torch.nn.Sequential(LlamaRMSNorm(width).to(dtype))
        if light:
            lighten_norms(model)
        trained = [x, *model.parameters()]

        def run() -> object:
            with torch.autocast("cpu", BF16):
                result = model(x).to(BF16)  # as the product after it would
            return torch.autograd.grad(result, trained, upstream)

        return run

    return {"transformers": run_of(light=False), "light": run_of(light=True)}


if __name__ == "__main__":
    main()

"""LoRA layers that share their products: one autograd function for all that read one input.

Queries, keys and values are three linear layers of the same input, gate and up are two. peft
computes each alone: a product with A, one with B, a sum, and in the backward pass four more and
their sums. Here the A's of a group are one matrix, B's product is added in place, and the gradient
of the input is summed in place. The result is the same but for the order of sums
(benchmarks/light_layers.py). Only plain LoRA on plain linear layers is served; everything else
stays with peft.

The layers stay where they are, with their names and peft's whole interface (turning adapters off,
merging, saving): only their `forward` is another.

Shape suffixes: N inputs, K width in, M width out, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear

SHARED_INPUTS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that are called with the same input, in the models of transformers."""


def share_lora_products(model: torch.nn.Module) -> int:
    """Replace the LoRA layers of a model, in place, by layers that share their products.

    Returns:
        How many were replaced.
    """
    num_replaced = 0
    for parent in list(model.modules()):
        plain: dict[str, Any] = {n: c for n, c in parent.named_children() if _is_plain(c)}
        groups = [[name for name in names if name in plain] for names in SHARED_INPUTS]
        grouped = {name for group in groups for name in group}
        groups += [[name] for name in plain if name not in grouped]
        for group in groups:
            members = [SharedLoraLinear.of(plain[name]) for name in group]
            shared = SharedInput(members)
            for name, member in zip(group, members, strict=True):
                object.__setattr__(member, "shared", shared)  # no child: the names stay as they are
                setattr(parent, name, member)
        num_replaced += len(plain)
    return num_replaced


def _is_plain(module: torch.nn.Module) -> bool:
    # Exactly this class: quantised layers, and those of other methods, are subclasses of their own.
    return type(module) is LoraLinear and type(module.get_base_layer()) is torch.nn.Linear


class SharedLoraLinear(LoraLinear):
    """peft's LoRA layer with another forward pass, where its adapter is plain LoRA."""

    shared: SharedInput

    @classmethod
    def of(cls, layer: LoraLinear) -> SharedLoraLinear:
        """Return the same layer, its parameters and state included, as one of this class."""
        made = cls.__new__(cls)
        vars(made).update(vars(layer))
        return made

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what peft's layer returns for the input (..., K): (..., M)."""
        if args or kwargs or not self.shared.can_serve():
            return super().forward(x, *args, **kwargs)
        return self.shared.output_of(self, x)

    def adapter(self) -> str | None:
        """Return the name of the adapter that is active, if it is one and is plain LoRA."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1:
            return None
        (name,) = names
        has_dropout = not isinstance(self.lora_dropout[name], torch.nn.Identity)
        if (has_dropout and self.training) or name in self.lora_variant or self.lora_bias[name]:
            return None
        return name


class SharedInput:
    """Layers that are called one after another with the same input.

    The first call computes all; the others take what is theirs. A call with another input computes
    again, so the result is right whatever the order of the calls.
    """

    def __init__(self, members: Sequence[SharedLoraLinear]) -> None:
        self._members = members
        self._input: torch.Tensor | None = None
        self._outputs: dict[SharedLoraLinear, torch.Tensor] = {}

    def can_serve(self) -> bool:
        """Whether every member has just one adapter, and it is plain LoRA."""
        return all(member.adapter() is not None for member in self._members)

    def output_of(self, member: SharedLoraLinear, x: torch.Tensor) -> torch.Tensor:
        """Return a member's output for an input."""
        if self._input is not x or member not in self._outputs:
            outputs = lora_linears(x, self._members)
            self._input, self._outputs = x, dict(zip(self._members, outputs, strict=True))
        output = self._outputs.pop(member)
        if not self._outputs:
            self._input = None
        return output


def lora_linears(x: torch.Tensor, layers: Sequence[SharedLoraLinear]) -> tuple[torch.Tensor, ...]:
    """Return x W^T + s (x A^T) B^T (+ bias) for each layer.

    Args:
        x: (..., K).
        layers: Each with an `adapter()`.

    Returns:
        For each layer (..., M), in the type of autocast or of the layer's weights.
    """
    kind = x.device.type
    weights = [layer.get_base_layer().weight for layer in layers]
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weights[0].dtype
    names = [str(layer.adapter()) for layer in layers]
    adapters = list(zip(layers, names, strict=True))
    outputs: Any = _LoraLinears.apply(
        x.reshape(-1, x.shape[-1]),
        dtype,
        [layer.scaling[name] for layer, name in adapters],
        *weights,
        *[layer.lora_A[name].weight for layer, name in adapters],
        *[layer.lora_B[name].weight for layer, name in adapters],
    )
    shaped = [y.view(*x.shape[:-1], -1) for y in outputs]
    biases: list[Any] = [layer.get_base_layer().bias for layer in layers]
    return tuple(
        y if bias is None else y + bias.to(dtype) for y, bias in zip(shaped, biases, strict=True)
    )


class _LoraLinears(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NK: torch.Tensor,
        dtype: torch.dtype,
        scales: Sequence[float],
        *matrices: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        count = len(scales)
        weights = [matrix.to(dtype) for matrix in matrices[:count]]
        a_RK = torch.cat(matrices[count : 2 * count]).to(dtype)
        bs = [matrix.to(dtype) for matrix in matrices[2 * count :]]
        ranks = [b.shape[1] for b in bs]
        x = x_NK.to(dtype)
        h_NR = x @ a_RK.t()
        outputs = [
            (x @ weight.t()).addmm_(h, b.t(), alpha=scale)
            for weight, h, b, scale in zip(
                weights, h_NR.split(ranks, dim=1), bs, scales, strict=True
            )
        ]
        ctx.save_for_backward(x, a_RK, h_NR, *weights, *bs)
        ctx.scales, ctx.ranks = scales, ranks
        ctx.input_dtype, ctx.adapter_dtype = x_NK.dtype, matrices[count].dtype
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable  # its type hides the signature
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        x, a_RK, h_NR, *matrices = ctx.saved_tensors
        count = len(ctx.scales)
        weights, bs = matrices[:count], matrices[count:]
        grad_h_NR = torch.empty_like(h_NR)
        parts = zip(h_NR.split(ctx.ranks, 1), grad_h_NR.split(ctx.ranks, 1), strict=True)
        grad_bs: list[torch.Tensor] = []
        for grad, b, scale, (h, grad_h) in zip(grad_outputs, bs, ctx.scales, parts, strict=True):
            grad_bs.append((grad.t() @ h).to(ctx.adapter_dtype).mul_(scale))
            grad_h.copy_(grad @ b).mul_(scale)
        grad_a_RK = (grad_h_NR.t() @ x).to(ctx.adapter_dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_h_NR @ a_RK
            for grad, weight in zip(grad_outputs, weights, strict=True):
                grad_x.addmm_(grad, weight)
            grad_x = grad_x.to(ctx.input_dtype)
        return (grad_x, None, None, *[None] * count, *grad_a_RK.split(ctx.ranks), *grad_bs)

"""RMSNorm (arXiv 1910.07467) with a backward pass of its own: fewer passes over memory, less kept.

The class in transformers is written for reading: five operations whose inputs autograd keeps, most
in float32, and eleven in the backward pass. Here the input and one number a token are kept. Under
autocast the result has the type that the products after it compute in: written once, where each of
them would cast it again.

Shape suffixes: N tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch

PLAIN_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
"""transformers' classes that compute weight * x / rms(x), and whose results only products read.
Not Gemma's: it scales by 1 + weight, and adds a norm's result to the residual stream."""


def lighten_norms(model: torch.nn.Module) -> int:
    """Replace the RMSNorms of a model, in place; names and parameters stay as they are.

    Returns:
        How many were replaced.
    """
    num_replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in PLAIN_NORMS and type(child).__module__.startswith(
                "transformers."
            ):
                setattr(parent, name, LightRMSNorm.of(child))
                num_replaced += 1
    return num_replaced


class LightRMSNorm(torch.nn.Module):
    """weight * x / sqrt(mean(x^2) + epsilon)."""

    weight: torch.Tensor
    variance_epsilon: float

    @classmethod
    def of(cls, norm: torch.nn.Module) -> LightRMSNorm:
        """Return the same layer, its parameter included, as one of this class."""
        made = cls.__new__(cls)
        vars(made).update(vars(norm))
        return made

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension of (..., D)."""
        kind, dtype = hidden_states.device.type, hidden_states.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        normed: Any = _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon, dtype)
        return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        epsilon: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        square_length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact).square_()
        scale = square_length.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed = x * scale
        # transformers rounds here too, before the weight.
        return normed.to(x.dtype).mul_(weight.to(x.dtype)).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # its type hides the signature
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        x, weight, scale = ctx.saved_tensors
        grad = grad_outputs[0].to(scale.dtype)
        normed = x * scale
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = torch.linalg.vecdot(grad.flatten(0, -2), normed.flatten(0, -2), dim=0)
            grad_weight = grad_weight.to(weight.dtype)
        grad = grad * weight
        # x's part along itself doesn't change the normed vector.
        along = (grad * normed).mean(-1, keepdim=True)
        grad_x = grad.addcmul_(normed, along, value=-1).mul_(scale).to(x.dtype)
        return grad_x, grad_weight, None, None

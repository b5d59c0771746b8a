"""Lion: the sign of a momentum is the step."""

from __future__ import annotations

from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """Lion with decoupled weight decay.

    Every weight moves by the same distance, the learning rate, so that wants to be three to ten
    times smaller than AdamW's, and weight decay as much larger. The state is one momentum.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Share of the momentum in the update, and its decay.
        weight_decay: Decoupled.

    Source:
        arXiv 2302.06675, program 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step over all parameters that have a gradient.

        Args:
            closure: Not used: the gradients are there already.
        """
        del closure
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                direction = momentum.lerp(gradient, 1 - beta1).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(direction, alpha=group["lr"])
                momentum.lerp_(gradient, 1 - beta2)

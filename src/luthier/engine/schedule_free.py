"""Schedule-free AdamW: an average of the weights takes the place of a falling learning rate.

Three sequences of weights: z takes the steps, x is the average of z that is to be used, and y, in
between, is where gradients are taken. The parameters are y while the model is trained. Whoever
looks at the model (an evaluation, a checkpoint, the run's end) wants x, and gets it in
`averaged_weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")

_Y = "y"


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """AdamW without a schedule; decoupled weight decay.

    The state is z and AdamW's second moment; the average stands in for the first. A saved state
    holds y as well: a checkpoint's model is x, and y made of x again would be rounded.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, which may warm up and is to stay where it is then.
        betas: Share of x in y (more than 0), and the decay of the second moment.
        eps: Added to the denominator.
        weight_decay: Decoupled, of y.

    Source:
        arXiv 2405.15682, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, numbers)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step over all parameters that have a gradient.

        Args:
            closure: Not used: the gradients are there already.
        """
        del closure
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            beta1, beta2 = group["betas"]
            for y in group["params"]:
                gradient = y.grad
                if gradient is None:
                    continue
                state = self.state[y]
                if not state:
                    state["z"], state["square"] = y.detach().clone(), torch.zeros_like(y)
                    state["num_steps"], state["weight_sum"] = 0, 0.0
                state["num_steps"] += 1
                square = state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                unbiased = square / (1 - beta2 ** state["num_steps"])
                direction = gradient / unbiased.sqrt_().add_(group["eps"])
                direction.add_(y, alpha=decay)
                # Steps count in the average by the square of their rate: those of a warm-up little.
                state["weight_sum"] += rate**2
                share = rate**2 / state["weight_sum"] if state["weight_sum"] else 0.0
                # y = (1 - beta1) z + beta1 x, where z has moved, and x went its share towards it.
                y.lerp_(state["z"], share)
                y.add_(direction, alpha=rate * (beta1 * (1 - share) - 1))
                state["z"].sub_(direction, alpha=rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the state with y in it."""
        found = super().state_dict()
        states = dict(found["state"])
        for index, (y, _) in enumerate(self.pairs()):
            if index in states:
                states[index] = {**states[index], _Y: y.detach()}
        return {**found, "state": states}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Any) -> None:
        """Take back what `state_dict` gave; the parameters become its y."""
        states = {index: dict(values) for index, values in state_dict["state"].items()}
        saved = {index: values.pop(_Y) for index, values in states.items()}
        super().load_state_dict({**state_dict, "state": states})
        for index, (y, _) in enumerate(self.pairs()):
            if index in saved:
                y.copy_(saved[index])

    def pairs(self) -> Iterator[tuple[torch.Tensor, float]]:
        """Yield each parameter with its group's share of x in y."""
        for group in self.param_groups:
            for parameter in group["params"]:
                yield parameter, group["betas"][0]


@contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Let the parameters be the weights that are to be used: x, where a schedule-free one has such.

    They are other tensors, so whatever keeps them keeps x; y comes back as it was, bit for bit. It
    takes the memory of what is trained a second time. Of any other optimiser nothing is changed.

    Args:
        optimizer: Over the parameters.
    """
    kept = _exchange(optimizer)
    try:
        yield
    finally:
        for parameter, y in kept:
            parameter.data = y


def settle_averaged_weights(optimizer: torch.optim.Optimizer) -> None:
    """Let the parameters be the weights that are to be used, for good: training is over."""
    if _exchange(optimizer):
        optimizer.state.clear()


def on_averaged_weights(
    optimizer: torch.optim.Optimizer, look: Callable[_P, _R]
) -> Callable[_P, _R]:
    """Return a function that looks at the model as `look` does, in `averaged_weights`."""

    def looked(*args: _P.args, **options: _P.kwargs) -> _R:
        with averaged_weights(optimizer):
            return look(*args, **options)

    return looked


@torch.no_grad()
def _exchange(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    if isinstance(optimizer, ScheduleFreeAdamW):
        for parameter, beta1 in optimizer.pairs():
            if state := optimizer.state.get(parameter):
                y = parameter.data
                kept.append((parameter, y))
                parameter.data = torch.lerp(y, state["z"], 1 - 1 / beta1)
    return kept

"""Muon for the matrices of a model's layers and AdamW for all else, as one optimiser.

Muon makes of each matrix's momentum a step whose singular values are all about 1: the steepest
descent where a layer is measured by how much it can lengthen a vector. That says something of a
matrix between two hidden states. It says nothing of embeddings, heads, norms and biases, which
AdamW trains; nor of the two factors of a LoRA, whose product is what acts: `config_rules` refuses
these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

MUON, ADAMW = "muon", "adamw"

Groups = list[dict[str, Any]]


class MuonWithAdamW(torch.optim.Optimizer):
    """Two of torch's optimisers over the groups of one.

    Groups and state are this optimiser's own, so that they are saved and loaded as any other's. The
    two are lent them for each step.

    Args:
        groups: Each with `kind`: `muon`, of parameters of two dimensions, or `adamw`.
        lr: Learning rate of both: Muon's steps are scaled to be as long as AdamW's.
        muon: Arguments of `torch.optim.Muon`.
        adamw: Arguments of `torch.optim.AdamW`.

    Source:
        https://kellerjordan.github.io/posts/muon/; the scale of the steps: arXiv 2502.16982,
        equation 4, with which learning rate and weight decay are those of AdamW.
    """

    def __init__(
        self, groups: Groups, lr: float, muon: Mapping[str, Any], adamw: Mapping[str, Any]
    ) -> None:
        super().__init__(groups, {"lr": lr})
        makers: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
            MUON: lambda own: torch.optim.Muon(own, adjust_lr_fn="match_rms_adamw", **muon),
            ADAMW: lambda own: torch.optim.AdamW(own, **adamw),
        }
        self._parts = {
            kind: make(self._of(kind)) for kind, make in makers.items() if self._of(kind)
        }

    def _of(self, kind: str) -> Groups:
        return [group for group in self.param_groups if group["kind"] == kind]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step over all parameters that have a gradient.

        Args:
            closure: Not used: the gradients are there already.
        """
        del closure
        for kind, part in self._parts.items():
            # After `load_state_dict` groups and state are other objects than before.
            part.param_groups, part.state = self._of(kind), self.state
            part.step()


def split_by_kind(groups: Sequence[Mapping[str, Any]], matrices: set[int]) -> Groups:
    """Split groups of parameters into what Muon trains and what AdamW trains.

    Args:
        groups: Groups of parameters.
        matrices: Ids of the parameters that Muon is for.

    Returns:
        Groups that have a `kind`; none is empty.
    """
    split: Groups = []
    for kind in (MUON, ADAMW):
        for group in groups:
            own = [p for p in group["params"] if (id(p) in matrices) == (kind == MUON)]
            if own:
                split.append({**group, "params": own, "kind": kind})
    return split

"""The output head of a model: what logits are made of, and the losses that need no logits.

Comes in: hidden states of the rows that carry loss. Goes out: their losses. `find_head` makes a
`Head` and checks it; here peft's wrappers are seen through, anew at each call, for adapters are
switched and weights replaced.

Shape suffixes: B rows, L tokens, N supervised tokens, D width, R rank, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from luthier.objectives.linear_cross_entropy import (
    LowRank,
    RowLosses,
    linear_cross_entropy,
    linear_log_probs,
)


@dataclass(frozen=True, slots=True)
class HeadParts:
    """What the logits are made of at this moment: weights change, adapters are switched."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    low_rank: LowRank | None


@dataclass(frozen=True, slots=True)
class Head:
    """A model's decoder and the linear head above it.

    Attributes:
        model: The model that it was found in, as it was given.
        decoder: Returns the hidden states that the head takes.
        projection: The head: a linear layer, or peft's wrapper of one.
        scale: Multiplies the logits.
        softcap: Bounds them; None for no bound.
    """

    model: torch.nn.Module
    decoder: torch.nn.Module
    projection: torch.nn.Module
    scale: float = 1.0
    softcap: float | None = None

    @property
    def trained(self) -> bool:
        """Whether the head's matrix takes part in training (an adapter on it does not count)."""
        return linear_layer(self.projection).weight.requires_grad

    def hidden_states(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Run the decoder alone.

        Args:
            model: The model that is trained.
            inputs: Its keyword arguments.

        Returns:
            Hidden states of all tokens, (B, L, D).

        Raises:
            ValueError: The model isn't the one that the head was found in. A wrapper around it,
                such as DistributedDataParallel, would not see its own forward pass.
        """
        if model is not self.model:
            raise ValueError(
                f"the head was found in another model than this {type(model).__name__}: "
                "call find_head on the model that is trained, or use none"
            )
        return self.decoder(**inputs, use_cache=False).last_hidden_state

    def cross_entropy(
        self,
        hidden_ND: torch.Tensor,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        dft: bool = False,
    ) -> RowLosses:
        """Sum the weighted cross-entropy of rows; see `linear_cross_entropy`."""
        parts = head_parts(self.projection, hidden_ND)
        return linear_cross_entropy(
            hidden_ND,
            parts.weight,
            targets_N,
            weights_N,
            bias_V=parts.bias,
            low_rank=parts.low_rank,
            label_smoothing=label_smoothing,
            softcap=self.softcap,
            scale=self.scale,
            dft=dft,
        )

    def log_probs(self, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        """Return each row's log-probability of its target; see `linear_log_probs`."""
        parts = head_parts(self.projection, hidden_ND)
        return linear_log_probs(
            hidden_ND,
            parts.weight,
            targets_N,
            bias_V=parts.bias,
            low_rank=parts.low_rank,
            softcap=self.softcap,
            scale=self.scale,
        )


def _kind(module: torch.nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


_LINEAR = "torch.nn.modules.linear.Linear"
_LORA = "peft.tuners.lora.layer.Linear"
_SAVED = "peft.utils.other.ModulesToSaveWrapper"
_TOKENS = "peft.utils.other.TrainableTokensWrapper"


def unsupported_head(projection: Any) -> str | None:
    """Return why a head can't be taken apart, or None.

    Types are compared by name, and exactly: a subclass may compute anything, and an adapter just
    made adds nothing yet, so that no probe can see what it will do.
    """
    kind = _kind(projection)
    if kind == _LORA:
        if any(projection.lora_variant.values()) or any(projection.lora_bias.values()):
            return "the head's adapter is more than a low-rank product"
    elif kind not in (_LINEAR, _SAVED, _TOKENS):
        return f"its head is a {type(projection).__name__}, not a plain linear layer"
    layer = linear_layer(projection)
    if _kind(layer) != _LINEAR:
        return f"its head is a {type(layer).__name__}, not a plain linear layer"
    if layer.weight.is_meta:
        return "its head is offloaded"
    return None


def linear_layer(projection: Any) -> Any:
    """Return the layer whose matrix is in use, out of peft's wrappers."""
    kind = _kind(projection)
    if kind == _LORA:
        return projection.base_layer
    if kind == _TOKENS:
        return projection.original_module
    if kind == _SAVED:
        if projection.disable_adapters or not projection.active_adapters:
            return projection.original_module
        return projection.modules_to_save[projection.active_adapters[0]]
    return projection


def head_parts(projection: Any, hidden_ND: torch.Tensor) -> HeadParts:
    """Return the parts of the logits of some hidden states.

    An adapter on the head stays apart from it: `hidden @ weight.T + (hidden @ A.T) @ B.T` has a
    second product of rank R, where merging would cost a copy of the matrix.
    """
    layer = linear_layer(projection)
    if _kind(projection) == _TOKENS and _trained_rows(projection):
        return _with_trained_rows(projection, hidden_ND)
    low_rank = _low_rank(projection, hidden_ND) if _kind(projection) == _LORA else None
    return HeadParts(layer.weight, layer.bias, low_rank)


def _low_rank(lora: Any, hidden_ND: torch.Tensor) -> LowRank | None:
    if lora.disable_adapters:
        if lora.merged:
            lora.unmerge()
        return None
    if lora.merged:
        return None
    inputs: list[torch.Tensor] = []
    matrices: list[torch.Tensor] = []
    for name in lora.active_adapters:
        if name in lora.lora_A:
            down = lora.lora_A[name]
            dropped_ND = lora.lora_dropout[name](hidden_ND.to(down.weight.dtype))
            inputs.append(down(dropped_ND) * lora.scaling[name])
            matrices.append(lora.lora_B[name].weight)
    if len(inputs) < 2:
        return (inputs[0], matrices[0]) if inputs else None
    return torch.cat(inputs, dim=1), torch.cat(matrices, dim=1)


def _trained_rows(wrapper: Any) -> list[str]:
    """Return the adapters that are active and have rows of their own in the head's matrix."""
    adapter = wrapper.token_adapter
    if adapter.disable_adapters and adapter.merged:
        adapter.unmerge()
    if adapter.disable_adapters or adapter.merged:
        return []
    return [name for name in adapter.active_adapters if name in adapter.trainable_tokens_delta]


def _with_trained_rows(wrapper: Any, hidden_ND: torch.Tensor) -> HeadParts:
    """Return the parts of a head in which single rows are trained.

    `weight` as peft gives it is a copy, and its gradient is as large. But that some rows are others
    is a low-rank term as well: the rows' change, times a matrix of ones in their places. It is the
    better way as long as the rows are few.
    """
    adapter, weight_VD = wrapper.token_adapter, wrapper.original_module.weight
    names = _trained_rows(wrapper)
    tokens = torch.tensor([i for name in names for i in adapter.token_indices[name]])
    tokens = tokens.to(weight_VD.device)
    if len(tokens) > weight_VD.shape[1] // 4:
        return HeadParts(wrapper.weight, None, None)
    rows_RD = torch.cat([adapter.trainable_tokens_delta[name] for name in names])
    change_RD = rows_RD.to(weight_VD.dtype).float() - weight_VD[tokens].float()
    places_VR = torch.zeros(len(weight_VD), len(tokens), device=weight_VD.device)
    places_VR[tokens, torch.arange(len(tokens), device=tokens.device)] = 1
    return HeadParts(weight_VD, None, (hidden_ND.float() @ change_RD.t(), places_VR))

"""NEFTune: noise on the input embeddings while a model is trained, and none when it is measured.

The noise comes from torch's own generator, whose state is in every checkpoint: a run that goes on
draws what it would have drawn.

Shape suffixes: B rows, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from luthier.models.compiled_layers import decoder_of


def add_embedding_noise(model: Any, alpha: float) -> None:
    """Let a model add noise to its input embeddings in training mode.

    Args:
        model: A causal language model, with adapters or without; it gets two hooks.
        alpha: Size of the noise. A document of L tokens gets uniform noise between
            -alpha / sqrt(L D) and alpha / sqrt(L D).

    Source:
        arXiv 2310.05914, algorithm 1. L is the length of a document alone, without padding and
        whatever row it stands in: so packed rows are trained with the noise of padded ones.
    """
    noise = _Noise(alpha)
    decoder_of(model).register_forward_pre_hook(noise.see_lengths, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(noise.add)


def document_lengths(inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Return for each token of a batch the length of its document, (B, L).

    Args:
        inputs: Keyword arguments of a decoder: `position_ids` that restart at 0 with each document,
            or an `attention_mask` that is 0 on padding, where the length is 0 too.

    Returns:
        None where neither is given: each row is one document.
    """
    positions_BL, mask_BL = inputs.get("position_ids"), inputs.get("attention_mask")
    if mask_BL is not None:
        return mask_BL * mask_BL.sum(dim=-1, keepdim=True)
    if positions_BL is None:
        return None
    # A row's first token begins a document whatever its position, so rows are never joined.
    starts_BL = positions_BL == 0
    starts_BL[:, 0] = True
    documents = starts_BL.flatten().cumsum(0) - 1
    return torch.bincount(documents)[documents].view_as(positions_BL)


class _Noise:
    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._lengths_BL: torch.Tensor | None = None

    def see_lengths(self, decoder: torch.nn.Module, args: Any, inputs: Mapping[str, Any]) -> None:
        """Remember how long the documents are that the decoder is called with."""
        del args
        self._lengths_BL = document_lengths(inputs) if decoder.training else None

    def add(self, embedding: torch.nn.Module, args: Any, output_BLD: torch.Tensor) -> torch.Tensor:
        """Return the embeddings with their noise."""
        del args
        if not embedding.training:
            return output_BLD
        lengths_BL = self._lengths_BL
        if lengths_BL is None:
            lengths_BL = torch.full(output_BLD.shape[:2], output_BLD.shape[1])
        lengths_BL1 = lengths_BL.to(output_BLD)[..., None]
        size_BL1 = self._alpha / (lengths_BL1 * output_BLD.shape[-1]).clamp_min(1).sqrt()
        noise_BLD = torch.rand_like(output_BLD).mul_(2).sub_(1)
        return output_BLD + noise_BLD * size_BL1 * (lengths_BL1 > 0)

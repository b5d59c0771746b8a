"""Merge an adapter into its base, so that one plain model is left.

In: the base as training had it, quantised or not, and an adapter's folder. Out: the same model
whole, in float32, whose logits are those of base and adapter. A quantised base is expanded first:
peft would merge into the quantised weights and round the sum to 4 bits again, which throws much of
the adapter away (https://github.com/huggingface/peft/issues/2321). bfloat16 rounds it, too: make
it narrow once it is merged.
"""

from __future__ import annotations

from typing import Any

import torch

from luthier.core.errors import ModelError
from luthier.models.adapters import apply_tuning
from luthier.models.settings import LoraTuning


def merge_adapter(model: Any, adapter: str) -> Any:
    """Merge an adapter into a base model.

    Args:
        model: The base that the adapter was trained on, with rows for its tokens; changed in place.
        adapter: A LoRA adapter's folder, or a hub name.

    Returns:
        A plain transformers model with float32 weights. Of a base in 8 bits it computes a little
        otherwise than training did, which rounded the inputs of each product to 8 bits as well.

    Raises:
        ModelError: The adapter can't be loaded; or it changes one of two tied matrices, which can't
            be merged without changing the other.
    """
    if getattr(model, "is_quantized", False):
        model = model.dequantize(torch.float32)
    model.float()
    tuned = apply_tuning(model, LoraTuning(), adapter)
    _refuse_half_of_a_tie(tuned, adapter)
    merged = tuned.merge_and_unload(safe_merge=True)
    return merged.requires_grad_(False).eval()


def _refuse_half_of_a_tie(tuned: Any, adapter: str) -> None:
    from peft.tuners.lora import LoraLayer

    base = tuned.get_base_model()
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    weights = [getattr(getattr(m, "base_layer", m), "weight", None) for m in (embedding, head)]
    is_tied = weights[0] is weights[1]  # A reward model has no such head.
    if is_tied and isinstance(embedding, LoraLayer) | isinstance(head, LoraLayer):
        raise ModelError(
            "this adapter changes the embeddings or the head, which are one matrix in its base: "
            "merged, it would change both",
            where=adapter,
            mend="Use it beside its base, unmerged.",
        )

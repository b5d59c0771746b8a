"""Gradients of a tied embedding: only the rows of the batch's tokens, added to the head's.

The embedding of a batch touches a few hundred rows of the table, yet its gradient has the shape of
the whole table: for a vocabulary of 128k at width 2,048 that is 1 GiB of zeros, written and added
at every micro-batch. Where the head is the same matrix its own gradient, which is full, is there
already, and a sparse one can be added to it.
"""

from __future__ import annotations

from typing import Any

import torch


def use_sparse_gradient(model: Any) -> bool:
    """Let the embedding of a model give a sparse gradient, if the head gives a full one.

    What the optimiser sees is full, whatever a batch did.

    Args:
        model: A transformers model; changed in place.

    Returns:
        Whether it was done: the two are one matrix, it is trained, and it is on the CPU. (On a GPU
        memory is fast enough, and sharded tensors know no sparse gradients.)
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, torch.nn.Embedding) or type(head) is not torch.nn.Linear:
        return False
    weight = embedding.weight
    if head.weight is not weight or not weight.requires_grad or weight.device.type != "cpu":
        return False
    embedding.sparse = True
    weight.register_post_accumulate_grad_hook(_fill_up)
    return True


def _fill_up(weight: torch.Tensor) -> None:
    # A batch in which the head took no part.
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()

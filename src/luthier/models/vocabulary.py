"""Rows for new tokens in a model's embeddings and head, and which of them are trained.

A new row begins as the mean of the old ones: so a new token is at first as likely as an average
one, and the old tokens' probabilities hardly change. There is no chance in it, so a run that goes
on makes the same rows.

Source: https://nlp.stanford.edu/~johnhew/vocab-expansion.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import ModelError, SettingsError
from luthier.models.module_names import is_named


def add_token_rows(model: Any, token_ids: Sequence[int]) -> None:
    """Give new tokens their rows, each the mean of the rows before the first of them.

    Where a model has spare rows (many pad their matrices), the tokens take these.

    Args:
        model: A transformers model; changed in place.
        token_ids: Of the new tokens.
    """
    if not token_ids:
        return
    num_old, num_needed = min(token_ids), max(token_ids) + 1
    if num_needed > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(num_needed, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tensors = [embedding.weight]
    if head is not None:
        tensors += [t for t in (head.weight, head.bias) if t is not None]
    with torch.no_grad():
        for tensor in tensors:
            mean = tensor[:num_old].float().mean(dim=0)
            # Tied weights are set twice to the same numbers.
            tensor[list(token_ids)] = mean.to(tensor.dtype)


def rows_for_lora(
    model: Any, token_ids: Sequence[int], whole: Sequence[str]
) -> tuple[dict[str, list[int]], list[str]]:
    """Return what LoRA trains of embeddings and head, so that new tokens are learned.

    Args:
        model: The base, with its new rows.
        token_ids: Of the new tokens.
        whole: Names of modules that are trained whole anyway (`additional_target`).

    Returns:
        For peft's `trainable_token_indices`, the rows of each module; and the modules that are to
        be trained whole: a head with a bias, which peft leaves out of a head that it wraps.

    Raises:
        SettingsError: `whole` names one of two tied matrices.
    """
    rows: dict[str, list[int]] = {}
    extra: list[str] = []
    if not token_ids:
        return rows, extra
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is not None and head.weight is embedding.weight
    for path, module in model.named_modules():
        if module is not embedding and module is not head:
            continue
        if any(is_named(path, name) for name in whole):
            if is_tied:
                raise SettingsError(
                    f"additional_target names {path}, whose matrix is embeddings and head in one, "
                    "and whose new rows are trained",
                    mend="Take it out of additional_target.",
                )
        elif module is head and is_tied:
            continue  # peft wraps it together with the embeddings.
        elif getattr(module, "bias", None) is not None:
            extra.append(path)
        else:
            rows[path] = list(token_ids)
    return rows, extra


def refuse_frozen_rows(model: Any, token_ids: Sequence[int]) -> None:
    """Raise if new tokens have rows that no one trains.

    Args:
        model: A transformers model in which it is chosen what is trained.
        token_ids: Of the new tokens.

    Raises:
        SettingsError: Embeddings or head are frozen.
    """
    if not token_ids:
        return
    ends = {id(m) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    frozen = [
        path
        for path, module in model.named_modules()
        if id(module) in ends and not module.weight.requires_grad
    ]
    if frozen:
        raise SettingsError(
            f"there are new tokens, and their rows in {' and '.join(frozen)} would not be trained",
            mend=f"Add {','.join(path.split('.')[-1] for path in frozen)} to freeze_extra_modules.",
        )


def check_token_rows(folder: Path, token_ids: Sequence[int]) -> None:
    """Refuse an adapter whose trained rows are not those of the run's new tokens.

    Args:
        folder: The adapter's.
        token_ids: Of the run's new tokens.

    Raises:
        ModelError: The adapter has rows for other tokens, or for none, or the run has none.
    """
    from peft import LoraConfig

    config: Any = LoraConfig.from_pretrained(str(folder))
    found: Any = config.trainable_token_indices or []
    lists = list(found.values()) if isinstance(found, dict) else [found]
    if all(sorted(own) == sorted(token_ids) for own in lists):
        return
    if not any(lists):
        raise ModelError(
            "there are new tokens, and this adapter has no rows for them",
            where=str(folder),
            mend="Begin a new adapter on it: create_new_adapter: true.",
        )
    raise ModelError(
        f"this adapter has rows for the tokens {_span(lists[0])}, and the new tokens of this run "
        f"are {_span(token_ids)}",
        where=str(folder),
        mend="Give new_special_tokens and add_tokens as the run had them that made the adapter.",
    )


def _span(token_ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(token_ids)[:4]))
    return (shown + (", ..." if len(token_ids) > 4 else "")) or "none"

"""Pairs of answers in one row, each pair with its prompt once.

In: a batch in which each pair lies as prompt | chosen | rejected. Out: the keyword arguments of the
model's forward pass, with which the rejected answer sees its prompt and itself and not the chosen
one. Prompt and chosen answer are one segment, the rejected answer is another that shares the
beginning of the first (`segment_kernels.SharedPrefixes`). Exact, and only with the attention
`segments.SEGMENTS`: ask `shared_prefix_support` of the config, and try it on the loaded model.

Shapes: P pairs, T tokens of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from luthier.models.compiled_layers import decoder_of
from luthier.models.packing_support import PackingSupport, packing_support
from luthier.models.segments import packed_inputs

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from luthier.contracts.training import Batch

_TRIAL_PAIRS = ((7, 5, 9), (1, 6, 2), (4, 1, 1))
"""Tokens of prompt, chosen and rejected answer."""

_TRIAL_TOLERANCE = 0.05
"""Mean difference of logits over their spread. An answer that sees the other one differs by 0.1 and
more, one that does not by nothing."""


def shared_prefix_inputs(batch: Batch) -> dict[str, Any]:
    """Return the keyword arguments of `model.forward` for pairs that share their prompts.

    The caller adds `use_cache=False`, as for `packed_inputs`.

    Args:
        batch: `input_ids` and `position_ids` (int64, both (1, T), the rejected answer's positions
            going on from its prompt's) and `pairs` (int32, (P, 4): the start of each pair, the end
            of its prompt, of the chosen answer, and of the pair).

    Raises:
        ValueError: The batch holds an attention mask or several rows, or the pairs don't lie end to
            end from 0 to T, each with two answers.
    """
    # One transfer for all: on a GPU each read waits for everything queued before it.
    pairs: list[list[int]] = batch["pairs"].tolist()
    starts, ends = [pair[0] for pair in pairs], [pair[3] for pair in pairs]
    is_ordered = all(start <= prompt < chosen < end for start, prompt, chosen, end in pairs)
    if not is_ordered or starts != [0, *ends[:-1]]:
        raise ValueError(
            "pairs must lie end to end from 0, each as start <= end of the prompt < end of the "
            f"chosen answer < end, not as {pairs}"
        )
    segment_ends = torch.tensor([0, *(end for pair in pairs for end in pair[2:])])
    inputs = packed_inputs({**batch, "cu_seqlens": segment_ends})
    pieces = [piece for pair in pairs for piece in _keys(*pair)]
    key_lengths = [length for pair in pairs for length in _key_lengths(*pair)]
    layout = {
        "cu_seq_lens_q": inputs["cu_seq_lens_q"],
        "cu_seq_lens_k": torch.tensor([0, *accumulate(key_lengths)], dtype=torch.int32),
        "key_tokens": torch.cat([torch.arange(*piece) for piece in pieces]),
    }
    device = batch["input_ids"].device
    on_device = {name: tensor.to(device) for name, tensor in layout.items()}
    return inputs | on_device | {"max_length_k": max(key_lengths)}


def _keys(start: int, prompt: int, chosen: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges of tokens that both answers of a pair see, one behind another."""
    return [(start, chosen), (start, prompt), (chosen, end)]


def _key_lengths(start: int, prompt: int, chosen: int, end: int) -> tuple[int, int]:
    return chosen - start, prompt - start + end - chosen


def shared_prefix_support(config: PretrainedConfig) -> PackingSupport:
    """Say whether the answers of a pair can be computed with one pass over their prompt.

    Args:
        config: The model's config, as AutoConfig reads it.

    Returns:
        `segments` where they can; `none`, with the reason, where they must be computed apart.
    """
    support = packing_support(config)
    chunked = "chunked_attention" in (getattr(config.get_text_config(), "layer_types", None) or ())
    if support.kind == "segments" and chunked:
        return PackingSupport("none", "chunks of attention end at places that answers don't share")
    return support


Outputs = Callable[[torch.nn.Module, Mapping[str, Any]], torch.Tensor]
"""From a model and its keyword arguments to one vector for each token, (B, L, D)."""


def logits(model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Return a language model's logits."""
    return model(**inputs, use_cache=False).logits


def hidden_states(model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Return what the head of a model reads; a reward model's own output is one number a row."""
    return decoder_of(model)(**inputs, use_cache=False).last_hidden_state


@torch.no_grad()
def check_shared_prefixes(model: torch.nn.Module, outputs: Outputs = logits) -> str | None:
    """Try pairs with shared prompts on a loaded model: what changes where something is changed.

    With other chosen answers, prompts and rejected answers must give what they gave; with another
    prompt, rejected answers must not. Held against each other are rows of one shape, not a row of
    pairs and its answers alone: in 16 bits those differ by rounding, at rare tokens by much. The
    model's mode and the random state stay as they were.

    Args:
        model: A causal language model or, with `hidden_states`, a reward model; with adapters or
            without.
        outputs: What is looked at.

    Returns:
        None where both held, else why the answers of a pair must be computed apart.
    """
    device = next(model.parameters()).device
    batch = _trial_pairs(device)
    pairs_P4 = batch["pairs"].long()
    places_T = torch.arange(batch["input_ids"].shape[1], device=device)
    _, prompts_T, chosen_T, _ = pairs_P4.repeat_interleave(pairs_P4[:, 3] - pairs_P4[:, 0], dim=0).T
    is_chosen_T = (places_T >= prompts_T) & (places_T < chosen_T)
    was_training = model.training
    model.eval()
    try:
        before, other_chosen, other_prompts = (
            outputs(model, shared_prefix_inputs(_with_others(batch, where)))[0]
            for where in (places_T < 0, is_chosen_T, places_T < prompts_T)
        )
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return f"shared prompts fail in this model: {str(error).strip().splitlines()[0]}"
    finally:
        model.train(was_training)
    spread = before.float().std()
    difference_T = (before.float() - other_chosen.float()).abs().mean(1) / spread
    difference = float(difference_T[~is_chosen_T].mean())
    if difference >= _TRIAL_TOLERANCE:
        return f"answers that share a prompt see each other (logits differ by {difference:.0%})"
    if bool((before == other_prompts).all(1)[pairs_P4[:, 2]].any()):
        return "an answer does not see the prompt that it shares"
    return None


def _with_others(batch: Batch, where_T: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the batch with other tokens in some places."""
    ids = batch["input_ids"]
    return {**batch, "input_ids": torch.where(where_T[None], 15 - ids, ids)}


def _trial_pairs(device: torch.device) -> dict[str, torch.Tensor]:
    ends = list(accumulate(length for pair in _TRIAL_PAIRS for length in pair))
    pairs = [
        [end - sum(lengths), end - lengths[1] - lengths[2], end - lengths[2], end]
        for lengths, end in zip(_TRIAL_PAIRS, ends[2::3], strict=True)
    ]
    positions = [
        torch.cat([torch.arange(prompt + chosen), torch.arange(prompt, prompt + rejected)])
        for prompt, chosen, rejected in _TRIAL_PAIRS
    ]
    batch = {
        "input_ids": (torch.arange(ends[-1]) * 7 % 11 + 2)[None],
        "position_ids": torch.cat(positions)[None],
        "pairs": torch.tensor(pairs, dtype=torch.int32),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}

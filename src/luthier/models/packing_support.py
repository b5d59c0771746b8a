"""A model's config in; out: whether several documents may share a row of it, and by which means.

Decided from the config's fields and from what transformers says of the model's class, not from
names of models; `check_packed` then tries it on the loaded model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from luthier.contracts.notice import Notice
from luthier.models.segments import packed_inputs

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})

_TRIAL_LENGTHS = (7, 1, 12)
_TRIAL_TOLERANCE = 0.05
"""Mean difference of logits over their spread. Two packed rows of one shape differ by nothing where
the documents are the same; a document that sees the one before it, by 0.1 and more."""


@dataclass(frozen=True, slots=True)
class PackingSupport:
    """How packed rows of a model are computed.

    Attributes:
        kind: `segments`: each segment by itself; exact, windows, chunks, caps and sinks respected.
            `none`: documents in one row would see each other.
        reason: Why, in one clause.
    """

    kind: Literal["segments", "none"]
    reason: str

    def notice(self, asked: str) -> Notice | None:
        """Return what the user should know who asked for packing, if there is anything.

        Args:
            asked: The setting `packing`, as it is written.
        """
        if self.kind == "segments":
            return None
        return Notice("packing", asked, "false", self.reason)


def packing_support(config: PretrainedConfig) -> PackingSupport:
    """Say whether a causal language model can be trained on packed rows.

    Args:
        config: The model's config, as AutoConfig reads it.
    """
    model_class = causal_class(config)
    reason = _obstacle(config, model_class)
    if reason is not None:
        return PackingSupport("none", reason)
    return PackingSupport("segments", "each segment by itself")


@torch.no_grad()
def check_packed(model: torch.nn.Module) -> str | None:
    """Try a packed row on a loaded model; the last word on what `packing_support` says.

    Two rows of three short documents differ in the first document alone: the logits of the others
    must be the same. Held against each other are packed rows, not a packed row and its documents
    alone: in 16 bits those differ by rounding, at rare tokens by much. The model's mode and the
    random state stay as they were.

    Args:
        model: A causal language model, with adapters or without.

    Returns:
        None where both gave the same, else why the model's rows can't be packed.
    """
    device = next(model.parameters()).device
    positions_T = torch.cat([torch.arange(length, device=device) for length in _TRIAL_LENGTHS])
    ids_T = positions_T + 2
    others_T = ids_T.clone()
    others_T[: _TRIAL_LENGTHS[0]] = ids_T[: _TRIAL_LENGTHS[0]].flip(0)
    packed = {
        "position_ids": positions_T[None],
        "cu_seqlens": torch.tensor([0, *_TRIAL_LENGTHS], device=device).cumsum(0),
    }
    was_training = model.training
    model.eval()
    try:
        one, other = (
            model(**packed_inputs(packed | {"input_ids": ids[None]}), use_cache=False).logits[0]
            for ids in (ids_T, others_T)
        )
    except (RuntimeError, TypeError, ValueError) as error:
        return f"a packed row fails in this model: {str(error).strip().splitlines()[0]}"
    finally:
        model.train(was_training)
    one, other = (logits[_TRIAL_LENGTHS[0] :].float() for logits in (one, other))
    difference = float((one - other).abs().mean() / one.std())
    if difference < _TRIAL_TOLERANCE:
        return None
    return f"packed documents see each other in this model (logits differ by {difference:.0%})"


def causal_class(config: PretrainedConfig) -> Any:
    """Return transformers' causal language model class for a config, or None if it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in known:
        return None
    found = known[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _obstacle(config: PretrainedConfig, model_class: Any) -> str | None:
    text = config.get_text_config()
    if config.is_encoder_decoder:
        return "the model has an encoder and a decoder"
    if model_class is None:
        return f"transformers has no causal language model of type {config.model_type}"
    if "position_ids" not in inspect.signature(model_class.forward).parameters:
        return "the model takes no position ids, so it can't count each document from 0"
    if not getattr(text, "is_decoder", True) or not getattr(text, "is_causal", True):
        return "the model's attention is not causal"
    unknown = sorted(_layer_kinds(text) - _ATTENTION_LAYERS)
    if unknown:
        return f"layers of type {', '.join(unknown)} carry what they saw across documents"
    if getattr(model_class, "_is_stateful", False):
        return "the model has recurrent layers, which carry what they saw across documents"
    if not _takes_attention(model_class):
        # Such models exist with every way of positions and masks: ALiBi (BLOOM, MPT, Falcon), masks
        # that don't look at the position ids (BioGPT).
        return "the model computes attention by itself, so nothing keeps documents apart in it"
    return None


def _layer_kinds(text: PretrainedConfig) -> set[str]:
    kinds: Iterable[str] = getattr(text, "layer_types", None) or ()
    return set(kinds)


def _takes_attention(model_class: Any) -> bool:
    # The class's own word, and transformers' look at its source: code from elsewhere may have one
    # and not the other.
    return bool(
        getattr(model_class, "_supports_attention_backend", False)
        and model_class._can_set_attn_implementation()
    )

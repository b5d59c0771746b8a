"""Reward models: the body of a language model, and on it one number in the place of a vocabulary.

transformers calls such a model a sequence classifier with one label, and its head `score`. In: a
model's config, or a loaded model. Out: whether it is one, or can become one; and how it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from luthier.core.errors import ModelError
from luthier.models.compiled_layers import without_adapters

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

ModelKind = Literal["causal_lm", "reward"]
"""What a model is loaded for: to write text, or to give an answer a number."""

SCORE = "score"
"""The head's name in transformers and in peft, which trains and saves it whole."""

TASK_TYPES: dict[ModelKind, str] = {"causal_lm": "CAUSAL_LM", "reward": "SEQ_CLS"}
"""peft's words, for an adapter's config."""

_OTHER_BASE = "Choose a base of another family, such as Llama, Qwen2, Qwen3, Mistral or Gemma."


def auto_class(kind: ModelKind) -> Any:
    """Return the class of transformers that builds models of a kind."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForCausalLM if kind == "causal_lm" else AutoModelForSequenceClassification


def kind_of(model: Any) -> ModelKind:
    """Return what a loaded model is for; peft's wrapper makes no difference."""
    return "reward" if hasattr(without_adapters(model), SCORE) else "causal_lm"


def is_scorer(config: PretrainedConfig) -> bool:
    """Whether a saved model is a sequence classifier, by its config."""
    names: list[str] = getattr(config, "architectures", None) or []
    return any(name.endswith("ForSequenceClassification") for name in names)


def check_kind(config: PretrainedConfig, kind: ModelKind, name: str) -> None:
    """Refuse a model that can't be loaded for a purpose.

    Args:
        config: As transformers reads it.
        kind: The purpose.
        name: Where the model lies, for the message.

    Raises:
        ModelError: A reward model is to write text; or what is to give rewards sorts texts into
            several classes, is not causal, or has no class in transformers that gives numbers.
    """
    if kind == "causal_lm":
        if is_scorer(config):
            raise ModelError(
                "this is a reward model: it gives answers a number and writes none",
                where=name,
                mend="Name the language model that it was made from. Only stage: rm trains reward "
                "models.",
            )
        return
    if is_scorer(config) and config.num_labels != 1:
        raise ModelError(
            f"this model sorts texts into {config.num_labels} classes, a reward model gives one "
            "number",
            where=name,
            mend="Start from a language model, or from a reward model (num_labels: 1).",
        )
    reason = _obstacle(config)
    if reason is not None:
        raise ModelError(
            f"no reward model can be made of this model: {reason}",
            where=name,
            mend=_OTHER_BASE,
        )


def _obstacle(config: PretrainedConfig) -> str | None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    known: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if type(config) not in known:
        return f"transformers has no sequence classification for models of type {config.model_type}"
    if config.is_encoder_decoder:
        return "it has an encoder and a decoder"
    return None


def settle_scorer(model: Any, name: str) -> None:
    """See that a loaded model's number is one product of the last hidden state.

    Args:
        model: A sequence classifier of transformers; changed in place: every token's embedding is
            trained. torch leaves out the one of the pad token, and what the config names as that
            changes when the model is saved (`settle_padding`): a run that goes on would differ.
        name: Where it lies, for the message.

    Raises:
        ModelError: It has no linear layer `score`.
    """
    if not isinstance(getattr(model, SCORE, None), torch.nn.Linear):
        raise ModelError(
            f"no reward model can be made of this model: {type(model).__name__} has no linear "
            f"head named {SCORE}",
            where=name,
            mend=_OTHER_BASE,
        )
    model.get_input_embeddings().padding_idx = None


def settle_padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let transformers find the last token of padded answers: what is saved knows the pad token.

    Args:
        model: A reward model of transformers; changed in place.
        tokenizer: Its pad token ends no answer (`dataset/padding.py`).
    """
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id

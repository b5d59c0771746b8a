"""The pad token of a reward model: one that no answer ends with.

transformers reads the reward of a padded row at its last token that is not the pad token. Where the
token that ends an answer pads too, as in many chat models, that is one token too early, and the
reward would depend on who computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier.contracts.notice import Notice
from luthier.core.errors import ModelError
from luthier.dataset.rendering import stop_token_ids
from luthier.dataset.templates import resolve_template
from luthier.dataset.tokenizer import PAD_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def resolve_for_rewards(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> tuple[PreTrainedTokenizerFast, Sequence[Notice]]:
    """Set the template that a run uses, and a pad token that no answer ends with.

    Args:
        tokenizer: With a pad token; changed in place.
        template: As for `resolve_template`.

    Returns:
        The tokenizer, and what had to be substituted.

    Raises:
        SettingsError: No such template.
        ModelError: The template can't be used, or no token of the vocabulary can pad.
    """
    tokenizer, notices = resolve_template(tokenizer, template)
    stops = stop_token_ids(tokenizer)
    if tokenizer.pad_token_id not in stops:
        return tokenizer, notices
    before = str(tokenizer.pad_token)
    vocabulary = tokenizer.get_vocab()
    # A row may begin with BOS, and never ends with it.
    candidates = (*PAD_TOKENS, tokenizer.unk_token, tokenizer.bos_token)
    fit = (token for token in candidates if vocabulary.get(str(token), stops[0]) not in stops)
    chosen = next(fit, None)
    if chosen is None:
        raise ModelError(
            f"its pad token {before} also ends answers, and its vocabulary has no other that could "
            "pad: transformers would read rewards one token too early",
            where=tokenizer.name_or_path,
            mend='Add a token <pad> to its tokenizer, or name an unused one as "pad_token" in '
            "tokenizer_config.json.",
        )
    tokenizer.pad_token = chosen
    reason = "transformers reads a reward at the last token that is no pad token"
    return tokenizer, [*notices, Notice("pad_token", before, str(chosen), reason)]

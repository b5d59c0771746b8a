"""The data of a run, from its settings: tokenizer, template, prepared rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luthier.contracts.notice import Notice
from luthier.core.errors import SettingsError
from luthier.dataset.prepare import Prepared, prepare
from luthier.dataset.rendering import stop_token_ids
from luthier.dataset.templates import resolve_template
from luthier.dataset.tokenizer import load_tokenizer
from luthier.recipes.run_config import RunConfig
from luthier.recipes.screen import Screen


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """Prepared rows, and the tokenizer (with the template that is trained) that made them."""

    prepared: Prepared
    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    notices: tuple[Notice, ...]


def prepare_data(config: RunConfig, screen: Screen) -> PreparedRun:
    """Load the tokenizer and bring the data into prepared form, from the cache if it is there.

    Raises:
        SettingsError: No training data is named.
        DataError: The data can't be read or holds nothing to train on.
        ModelError: The tokenizer or the template can't be used.
    """
    if config.data.train_file is None and config.data.dataset is None:
        raise SettingsError(
            "there is no training data",
            where="train_file",
            mend="Set train_file to a json, jsonl, csv or parquet file, or give --train_file.",
        )
    tokenizer = load_tokenizer(
        config.model.model_name_or_path,
        revision=config.model.model_revision,
        trust_remote_code=config.model.trust_remote_code,
    )
    tokenizer, notices = resolve_template(tokenizer, config.tokens.template)
    prepared = prepare(
        config.data,
        config.tokens,
        tokenizer,
        seed=config.run.seed,
        notices=notices,
        progress=screen.working,
    )
    screen.data(prepared)
    return PreparedRun(prepared, tokenizer, tuple(stop_token_ids(tokenizer)), prepared.notices)

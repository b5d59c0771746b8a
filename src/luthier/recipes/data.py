"""The data of a run, from its settings: tokenizer, template, prepared rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.contracts.notice import Notice
from luthier.core.errors import SettingsError
from luthier.corpus.settings import CorpusSettings
from luthier.dataset.new_tokens import add_new_tokens
from luthier.dataset.prepare import Prepared, prepare
from luthier.dataset.tokenizer import load_tokenizer
from luthier.recipes.corpus import prepare_corpus
from luthier.recipes.corpus_command import choose_runner
from luthier.recipes.corpus_plan import CorpusPlan, unused_weights
from luthier.recipes.run_config import RunConfig
from luthier.recipes.screen import Screen
from luthier.recipes.stages import stage_of


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """Prepared rows, and the tokenizer (with the template that is trained, if any) that made them.

    Attributes:
        corpus: The manifest of the corpus that the steps left; None where no step is set.
        new_token_ids: Of the tokens that the settings add and the model's tokenizer does not have.
    """

    prepared: Prepared
    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    notices: tuple[Notice, ...]
    corpus: Mapping[str, Any] | None = None
    new_token_ids: tuple[int, ...] = ()


def prepare_data(config: RunConfig, screen: Screen) -> PreparedRun:
    """Load the tokenizer and bring the data into prepared form, from the cache if it is there.

    Raises:
        SettingsError: No training data is named.
        DataError: The data can't be read or holds nothing to train on.
        ModelError: The tokenizer or the template can't be used.
    """
    data = config.data
    if data.train_file is None and data.dataset is None and data.sources is None:
        raise SettingsError(
            "there is no training data",
            where="train_file",
            mend="Set train_file to a json, jsonl, csv, parquet or txt file, or give --train_file.",
        )
    data, corpus = settled_corpus(config, screen)
    rows = stage_of(config).rows
    tokenizer, notices, new_token_ids = run_tokenizer(config)
    prepared = prepare(
        data,
        config.tokens,
        tokenizer,
        seed=config.run.seed,
        notices=notices,
        progress=screen.working,
        kind=rows,
    )
    screen.data(prepared)
    stops = tuple(rows.stop_token_ids(tokenizer))
    return PreparedRun(prepared, tokenizer, stops, prepared.notices, corpus, new_token_ids)


def run_tokenizer(config: RunConfig) -> tuple[Any, Sequence[Notice], tuple[int, ...]]:
    """Return the tokenizer as the stage of a run wants it, what was replaced, and the new ids.

    Raises:
        ModelError: It can't be loaded, or its template can't be used.
        SettingsError: There is no such template; or `resize_vocab` insists on new tokens, and the
            tokenizer has all of them.
    """
    tokenizer = load_tokenizer(
        config.model.model_name_or_path,
        revision=config.model.model_revision,
        trust_remote_code=config.model.trust_remote_code,
    )
    model = config.model
    # Before the template, whose marks may be among them.
    new_ids, known = add_new_tokens(tokenizer, model.new_special_tokens, model.add_tokens)
    if model.resize_vocab and not new_ids:
        raise SettingsError(
            "resize_vocab is true, and all new tokens are in the vocabulary already",
            where=model.model_name_or_path,
            mend="This model was resized before: take resize_vocab, new_special_tokens and "
            "add_tokens out.",
        )
    tokenizer, notices = stage_of(config).settle_tokenizer(tokenizer, config.tokens.template)
    return tokenizer, (*known, *notices), new_ids


def settled_corpus(
    config: RunConfig, screen: Screen
) -> tuple[CorpusSettings, Mapping[str, Any] | None]:
    """Run the corpus steps of a run, if it has any, or find them done.

    Returns:
        Settings that name what training reads: the corpus that the steps left, else the run's own;
        and the manifest of that corpus.

    Raises:
        SettingsError: A source has a weight, and no step mixes.
        LuthierError: The steps can't be run.
    """
    if not config.preparation.steps:
        if any(source.weight is not None for source in config.data.sources or ()):
            raise unused_weights()
        return config.data, None
    plan = CorpusPlan.of(config)
    runner = choose_runner(plan, config.tokens.preprocessing_num_workers)
    corpus = prepare_corpus(plan, None, runner, screen.working)
    screen.corpus(corpus)
    # A prepared corpus brings its own validation rows.
    others = {"dataset": None, "sources": None, "val_file": None, "val_size": 0.0}
    settings = config.data.model_copy(update={"train_file": str(corpus.folder), **others})
    return settings, corpus.manifest

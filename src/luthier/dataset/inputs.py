"""What prepared data depends on, as one key: equal keys, equal rows.

In: sources, settings, tokenizer, seed. Out: a JSON value that is hashed, and that the manifest
keeps. Everything that can change a row is in it, and nothing else: not where the cache lies, not
how many threads work.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.errors import DataError
from luthier.core.hashing import hash_file
from luthier.corpus.readers.raw_file import check_data_file
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import Source
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import CONVERSATIONS, RowKind
from luthier.dataset.tokenizer import tokenizer_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PREPARED_FORMAT = 1
"""Raised whenever the same inputs give other rows or another layout on disk."""

# The sources stand for the first five; the template's text for the name of the template.
_NAMES_OF_FILES = {"train_file", "val_file", "dataset", "dataset_dir", "sources"}
_NOT_IN_THE_ROWS = {"template", "prepared_dir", "overwrite_cache", "preprocessing_num_workers"}


def describe_inputs(sources: Iterable[Source]) -> list[dict[str, Any]]:
    """Return each source with the hash and size of its bytes, or the hub's fingerprint.

    Raises:
        DataError: A file can't be read, or the hub can't be reached.
    """
    return [{**source.as_json(), **_content(source)} for source in sources]


def describe_work(
    corpus_settings: CorpusSettings,
    dataset_settings: DatasetSettings,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    kind: RowKind = CONVERSATIONS,
) -> dict[str, Any]:
    """Return all but the sources that decides what the rows are."""
    return {
        "format": PREPARED_FORMAT,
        "settings": {
            **corpus_settings.model_dump(mode="json", exclude=_NAMES_OF_FILES),
            **dataset_settings.model_dump(mode="json", exclude=_NOT_IN_THE_ROWS),
        },
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "seed": seed,
        **kind.describe(tokenizer),
    }


def _content(source: Source) -> dict[str, Any]:
    if source.path is None:
        return {"fingerprint": _hub_fingerprint(source)}
    check_data_file(source.path)
    return {"sha256": _hash(source.path), "bytes": source.path.stat().st_size}


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(
            f"the file can't be read: {error.strerror}", where=str(path), mend="Check it."
        ) from error


def _hub_fingerprint(source: Source) -> str:
    """Return what tells one state of a hub data set from another."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetsError

    assert source.hub is not None, "a source without a path has a hub name"
    try:
        builder = load_dataset_builder(source.hub, source.subset, data_dir=source.folder)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"{source.hub} is no file here, and can't be found on the hub: {error}",
            where=source.label,
            mend="Check the path or the name, and the network.",
        ) from error
    return str(builder.hash)

"""The settings' data, as a list of sources: files, folders, patterns, hub names, catalogue entries.

Nothing is opened here but dataset_info.json, so that a wrong name is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from luthier.core.errors import SettingsError
from luthier.corpus.dataset_info import read_dataset_info
from luthier.corpus.paths import expand, is_pattern
from luthier.corpus.readers.dispatch import is_data_file
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings

TRAIN_SPLITS = ("train",)
VAL_SPLITS = ("validation", "test")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")

__all__ = ["Source", "input_files", "resolve_train", "resolve_val"]


def resolve_train(settings: CorpusSettings) -> list[Source]:
    """Return the sources of the training rows.

    Raises:
        SettingsError: No training data is named, an entry does not exist, or a file is named twice.
        DataError: A path leads nowhere, or dataset_info.json can't be used.
    """
    if settings.train_file is not None:
        sources = _resolve(settings.train_file, TRAIN_SPLITS)
    elif settings.dataset is not None:
        names = _entry_names(settings.dataset)
        sources = read_dataset_info(names, Path(settings.dataset_dir).expanduser())
    else:
        sources = []
    if not sources:
        raise SettingsError(
            "there is no training data",
            mend="Name a file by train_file, or entries of dataset_info.json by dataset.",
        )
    return _each_once(sources)


def resolve_val(settings: CorpusSettings) -> list[Source]:
    """Return the sources of the validation rows, or none where `val_file` is not given.

    Raises:
        SettingsError: A file is named twice.
        DataError: A path leads nowhere.
    """
    if settings.val_file is None:
        return []
    return _each_once(_resolve(settings.val_file, VAL_SPLITS))


def input_files(sources: Iterable[Source]) -> list[Path]:
    """Return the files whose bytes go in, in order; data sets from the hub have none."""
    return [source.path for source in sources if source.path is not None]


def _resolve(given: str | list[str], splits: tuple[str, ...]) -> list[Source]:
    sources: list[Source] = []
    for text in [given] if isinstance(given, str) else given:
        if _is_hub_name(text):
            sources.append(Source(text, hub=text, splits=splits))
        else:
            sources.extend(Source(str(path), path=path) for path in expand(text))
    return sources


def _is_hub_name(text: str) -> bool:
    """Tell `owner/name` from a path: nothing of it exists, and it has no data file's suffix."""
    path = Path(text)
    if not _HUB_NAME.fullmatch(text) or is_pattern(text) or is_data_file(path):
        return False
    return not (path.exists() or path.parent.exists())


def _entry_names(given: str | list[str]) -> list[str]:
    """Return the names of entries; LLaMA-Factory's users write them with commas between."""
    texts = [given] if isinstance(given, str) else given
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _each_once(sources: list[Source]) -> list[Source]:
    seen: set[str] = set()
    for source in sources:
        if source.path is not None:
            place = str(source.path.resolve())
        else:
            place = str((source.hub, source.subset, source.folder, source.splits))
        if place in seen:
            raise SettingsError(
                f"{source.path or source.hub} is named twice: its rows would count twice",
                mend="Name it once; to give rows more weight, use a weight field or task_weights.",
            )
        seen.add(place)
    return sources

"""The settings' data, as a list of sources: files, folders, patterns, hub names, catalogue entries.

Nothing is opened here but dataset_info.json and what tells a prepared corpus, so that a wrong name
is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from luthier.core.errors import DataError, SettingsError
from luthier.corpus.dataset_info import read_dataset_info
from luthier.corpus.folder import TRAIN, VAL, has_side, is_corpus_folder, side_files
from luthier.corpus.paths import expand, is_pattern
from luthier.corpus.readers.dispatch import is_data_file
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings, SourceSettings
from luthier.corpus.source_names import refuse_equal_names, short_names

TRAIN_SPLITS = ("train",)
VAL_SPLITS = ("validation", "test")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")
_OF_THE_HUB = ("split", "subset", "folder")

__all__ = ["Source", "has_validation", "input_files", "resolve_train", "resolve_val"]


def resolve_train(settings: CorpusSettings, *, any_kind: bool = False) -> list[Source]:
    """Return the sources of the training rows.

    Args:
        settings: What the user named.
        any_kind: Take catalogue entries of preference data and of tools too, which supervised
            fine-tuning refuses.

    Raises:
        SettingsError: No training data is named, an entry does not exist, a file is named twice,
            or two sources have one name.
        DataError: A path leads nowhere, or dataset_info.json or a prepared corpus can't be used.
    """
    sources = _train_sources(settings, any_kind)
    if not sources:
        raise SettingsError(
            "there is no training data",
            mend="Name a file by train_file, or entries of dataset_info.json by dataset.",
        )
    return _each_once(_named(sources, ()))


def resolve_val(settings: CorpusSettings, *, any_kind: bool = False) -> list[Source]:
    """Return the sources of the validation rows, or none where there is no `val_file`.

    A prepared corpus as the one `train_file` brings its own validation rows, if it has some and
    none are cut from it.

    Args:
        settings: What the user named.
        any_kind: As for `resolve_train`.

    Raises:
        SettingsError: A file is named twice.
        DataError: A path leads nowhere, or a prepared corpus has no validation rows.
    """
    val_file = settings.val_file or _prepared_val(settings)
    if val_file is None:
        return []
    # Rows of both sides stand in one account, so their sources have different names.
    taken = input_files(_train_sources(settings, any_kind))
    return _each_once(_named(_resolve(val_file, VAL_SPLITS, VAL), taken))


def has_validation(settings: CorpusSettings) -> bool:
    """Return whether there will be validation rows; opens a manifest at most."""
    return bool(settings.val_file or settings.val_size or _prepared_val(settings))


def _prepared_val(settings: CorpusSettings) -> str | None:
    """Return the prepared corpus that brings validation rows to a run that names none."""
    named = settings.train_file
    names = [named] if isinstance(named, str) else named or []
    if settings.val_size or len(names) != 1:
        return None
    folder = Path(names[0]).expanduser()
    return names[0] if is_corpus_folder(folder) and has_side(folder, VAL) else None


def input_files(sources: Iterable[Source]) -> list[Path]:
    """Return the files whose bytes go in, in order; data sets from the hub have none."""
    return [source.path for source in sources if source.path is not None]


def _train_sources(settings: CorpusSettings, any_kind: bool) -> list[Source]:
    if settings.train_file is not None:
        return _resolve(settings.train_file, TRAIN_SPLITS, TRAIN)
    if settings.dataset is not None:
        names, folder = _entry_names(settings.dataset), Path(settings.dataset_dir).expanduser()
        return read_dataset_info(names, folder, any_kind=any_kind)
    return [source for given in settings.sources or [] for source in _declared(given)]


def _resolve(given: str | list[str], splits: tuple[str, ...], side: str) -> list[Source]:
    """Return the sources of paths; those of plain files are not named yet."""
    sources: list[Source] = []
    for text in [given] if isinstance(given, str) else given:
        if _is_hub_name(text):
            sources.append(Source(text, hub=text, splits=splits))
        elif is_corpus_folder(folder := Path(text).expanduser()):
            sources.extend(_prepared(folder, side))
        else:
            sources.extend(map(_file, expand(text)))
    return sources


def _file(path: Path) -> Source:
    """Return the source of a file, not named yet; a part of a prepared corpus is told by its place.

    Raises:
        DataError: It lies in a prepared corpus, and holds the rows that were dropped.
    """
    if is_corpus_folder(path.parent):
        raise DataError(
            f"{path.parent} is a prepared corpus: {path.name} is no part of its data",
            where=str(path),
            mend="Name the prepared corpus alone, or the other files, each by its path.",
        )
    side = path.parent
    if side.name in (TRAIN, VAL) and is_corpus_folder(side.parent):
        return Source(_prepared_name(side.parent, path), path=path, format="record")
    return Source("", path=path)


def _prepared(folder: Path, side: str) -> list[Source]:
    """Return one source for each file of a side of a prepared corpus.

    Raises:
        DataError: It has no such side, or a file is not what the manifest says.
    """
    files = side_files(folder, side)
    if not files:
        raise DataError(
            f"this prepared corpus has no {side} rows",
            where=str(folder),
            mend="Prepare it again with val_size, or name another val_file."
            if side == VAL
            else "Prepare it again: its steps left no row.",
        )
    return [Source(_prepared_name(folder, path), path=path, format="record") for path in files]


def _prepared_name(folder: Path, path: Path) -> str:
    # Not the folder as given: `.` has no name.
    return f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}"


def _declared(given: SourceSettings) -> list[Source]:
    """Return the sources of one entry of `sources`.

    Raises:
        SettingsError: It says of a file what only a hub data set has, of several files what can
            be said of one, or of a prepared corpus what its columns say.
        DataError: A path leads nowhere.
    """
    sources = _resolve(given.path, (given.split or "train",), TRAIN)
    is_hub, is_prepared = sources[0].hub is not None, sources[0].format == "record"
    if not is_hub and (unused := [name for name in _OF_THE_HUB if getattr(given, name)]):
        raise _refused(given, f"{unused[0]} is for data sets on the hub, and this is a file")
    if is_prepared and (given.columns or given.tags or given.format not in ("auto", "record")):
        raise _refused(given, "format, columns and tags can't be set for a prepared corpus")
    if len(sources) > 1 and given.num_samples is not None:
        problem = f"num_samples counts one file's rows, and these are {len(sources)} files"
        raise _refused(given, problem)
    if len(sources) > 1 and given.weight is not None and given.name is None:
        raise _refused(given, f"weight needs a name: these are {len(sources)} files, and one share")
    made = [
        replace(
            source,
            format=source.format if is_prepared else given.format,
            columns=dict(given.columns),
            tags=dict(given.tags),
            subset=given.subset,
            folder=given.folder,
            num_samples=given.num_samples,
            weight=given.weight,
            category=given.category,
        )
        for source in sources
    ]
    return made if given.name is None else _under_one_name(made, given.name)


def _under_one_name(sources: list[Source], name: str) -> list[Source]:
    if len(sources) == 1:
        return [replace(sources[0], name=name)]
    parts = short_names(input_files(sources))
    return [
        replace(source, name=name, part=part) for source, part in zip(sources, parts, strict=True)
    ]


def _refused(given: SourceSettings, problem: str) -> SettingsError:
    return SettingsError(
        problem,
        where=f"sources: {given.name or given.path}",
        mend="Give each file an entry of its own under sources, or leave the setting out.",
    )


def _named(sources: list[Source], taken: Sequence[Path]) -> list[Source]:
    """Give plain files their names.

    Raises:
        SettingsError: Two sources have the same name.
    """
    unnamed = [source for source in sources if not source.name]
    others = [*input_files(source for source in sources if source.name), *taken]
    names = iter(short_names(input_files(unnamed), others))
    return [source if source.name else replace(source, name=next(names)) for source in sources]


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
    refuse_equal_names(sources)
    return sources

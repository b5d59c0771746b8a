"""LLaMA-Factory's catalogue of data sets: `dataset_info.json` in `dataset_dir`.

In: names of entries. Out: a `Source` for each file. An entry can name files within its own folder
and data sets on the hub; scripts, which would run code, images, and where asked the kinds of data
that supervised fine-tuning can't use (preference, tools) are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from luthier.core.errors import DataError, SettingsError, did_you_mean
from luthier.corpus.bad_rows import kind_of
from luthier.corpus.paths import files_in, inside, missing_path
from luthier.corpus.readers.dispatch import check_kind
from luthier.corpus.readers.raw_file import read_text
from luthier.corpus.readers.source import Source, SourceFormat
from luthier.corpus.readers.strict_json import StrictDecoder
from luthier.corpus.source_names import short_names

FILE_NAME = "dataset_info.json"
_COLUMNS = frozenset({"prompt", "query", "response", "system", "history", "messages"})
_PREFERENCE = frozenset({"chosen", "rejected", "kto_tag"})
_MEDIA = frozenset({"images", "videos", "audios"})
_OTHER_DATA = _MEDIA | {"tools"}
_TAGS = frozenset(
    {
        "role_tag",
        "content_tag",
        "user_tag",
        "assistant_tag",
        "system_tag",
        "observation_tag",
        "function_tag",
    }
)
_FORMATS: Mapping[str, SourceFormat] = {
    "alpaca": "alpaca",
    "sharegpt": "sharegpt",
    "openai": "sharegpt",
}
_OTHER_HUBS = frozenset({"script_url", "ms_hub_url", "om_hub_url", "cloud_file_name"})
_KEYS = frozenset(
    {
        *("file_name", "file_sha1", "hf_hub_url", "subset", "split", "folder", "num_samples"),
        *("formatting", "ranking", "columns", "tags"),
        *_OTHER_HUBS,
    }
)


def read_dataset_info(
    names: Iterable[str], dataset_dir: Path, *, any_kind: bool = False
) -> list[Source]:
    """Return the sources that entries of dataset_info.json stand for.

    Args:
        names: Names of entries.
        dataset_dir: The folder that holds dataset_info.json and the files that it names.
        any_kind: Take entries that supervised fine-tuning can't use too.

    Raises:
        SettingsError: An entry has no such name.
        DataError: dataset_info.json is missing or damaged, or an entry is not usable.
    """
    path = dataset_dir / FILE_NAME
    text, entries = _read(path)
    sources: list[Source] = []
    for name in names:
        if name not in entries:
            raise SettingsError(
                f"dataset: {path} has no entry {name!r}", mend=did_you_mean(name, entries)
            )
        where = f"{path}:{_line_of(text, name)}"
        sources.extend(_entry_sources(name, entries[name], dataset_dir, where, any_kind))
    return sources


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.exists():
        raise missing_path(path)
    text = read_text(path)
    start = len(text) - len(text.lstrip())
    try:
        value, _, amiss = StrictDecoder().decode_at(text, start)
    except ValueError as error:
        raise DataError(
            f"the file is not valid JSON: {error}", where=str(path), mend="Mend this place."
        ) from error
    if amiss is not None:
        raise DataError(amiss.detail, where=str(path), mend="Mend this place.")
    if not isinstance(value, dict):
        raise DataError(
            f"the file is {kind_of(value)}, not an object of entries",
            where=str(path),
            mend='Write {"name": {"file_name": "rows.json"}}.',
        )
    return text, cast(dict[str, Any], value)


def _line_of(text: str, name: str) -> int:
    found = re.search(rf'"{re.escape(name)}"\s*:\s*\{{', text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _entry_sources(
    name: str, value: Any, dataset_dir: Path, where: str, any_kind: bool
) -> list[Source]:
    entry = _checked_object(value, f"the entry {name!r}", _KEYS, where)
    columns = _checked_names(entry, "columns", _COLUMNS | _PREFERENCE | _OTHER_DATA, where)
    tags = _checked_names(entry, "tags", _TAGS, where)
    _refuse_other_data(name, entry, columns, where, any_kind)
    if entry.get("ranking"):
        columns = {"chosen": "chosen", "rejected": "rejected", **columns}
    num_samples = _num_samples(entry, where)
    declare = partial(
        Source,
        name,
        format=_format_of(entry, columns, tags, where),
        columns=columns,
        tags=tags,
        num_samples=num_samples,
    )
    texts = {
        key: _text(entry, key, where)
        for key in ("file_name", "hf_hub_url", "split", "subset", "folder")
    }
    if hub := texts["hf_hub_url"]:
        splits = (texts["split"] or "train",)
        return [declare(hub=hub, splits=splits, subset=texts["subset"], folder=texts["folder"])]
    if not texts["file_name"]:
        raise _no_place(name, entry, where)
    files = _files(texts["file_name"], dataset_dir, where)
    if num_samples is not None and len(files) > 1:
        raise DataError(
            f"{name!r} is a folder of {len(files)} files, and num_samples counts one file's rows",
            where=where,
            mend="Join the files, or give each an entry of its own.",
        )
    if len(files) == 1:
        return [declare(path=files[0])]
    parts = short_names(files)
    return [declare(path=file, part=part) for file, part in zip(files, parts, strict=True)]


def _no_place(name: str, entry: Mapping[str, Any], where: str) -> DataError:
    others = sorted(_OTHER_HUBS & entry.keys())
    return DataError(
        f"{name!r} names {others[0]}, which luthier does not follow"
        if others
        else f"{name!r} names neither file_name nor hf_hub_url",
        where=where,
        mend="Name a file in this folder by file_name, or a hub data set by hf_hub_url.",
    )


def _refuse_other_data(
    name: str, entry: dict[str, Any], columns: Mapping[str, str], where: str, any_kind: bool
) -> None:
    if not any_kind and (entry.get("ranking") or _PREFERENCE & columns.keys()):
        raise DataError(
            f"{name!r} is preference data (ranking): supervised fine-tuning learns one answer",
            where=where,
            mend="Name a data set without chosen and rejected answers.",
        )
    if others := sorted((_MEDIA if any_kind else _OTHER_DATA) & columns.keys()):
        raise DataError(
            f"{name!r} has {others[0]}, which this stage can't use",
            where=where,
            mend="Name a data set of plain text.",
        )


def _num_samples(entry: dict[str, Any], where: str) -> int | None:
    num_samples = entry.get("num_samples")
    if num_samples is not None and (type(num_samples) is not int or num_samples < 1):
        raise DataError(
            f"num_samples is {kind_of(num_samples)}, not a whole number from 1 up",
            where=where,
            mend="Write a number, or remove num_samples to use all rows.",
        )
    return num_samples


def _files(file_name: str, dataset_dir: Path, where: str) -> list[Path]:
    """Return the file, or the files of the folder, that an entry names."""
    path = inside(dataset_dir, file_name, where)
    if not path.exists():
        raise missing_path(path, where)
    if not path.is_dir():
        check_kind(path)
        return [path]
    return [
        inside(dataset_dir, str(file.relative_to(dataset_dir)), where) for file in files_in(path)
    ]


def _format_of(
    entry: dict[str, Any], columns: Mapping[str, str], tags: Mapping[str, str], where: str
) -> SourceFormat:
    declared = _text(entry, "formatting", where)
    if declared is None:
        if "messages" in columns or tags:
            return "sharegpt"
        return "alpaca" if columns else "auto"
    if declared not in _FORMATS:
        raise DataError(
            f"formatting {declared!r} is not known",
            where=where,
            mend=did_you_mean(declared, _FORMATS),
        )
    return _FORMATS[declared]


def _checked_object(value: Any, what: str, known: frozenset[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{what} is {kind_of(value)}, not an object",
            where=where,
            mend='Write {"key": "value"}.',
        )
    found = cast(dict[str, Any], value)
    for key in found:
        if key not in known:
            raise DataError(
                f"{what} has an unknown key {key!r}", where=where, mend=did_you_mean(key, known)
            )
    return found


def _checked_names(
    entry: dict[str, Any], part: str, known: frozenset[str], where: str
) -> dict[str, str]:
    """Return `columns` or `tags` of an entry; keys given as null count as absent."""
    found = _checked_object(entry.get(part) or {}, part, known, where)
    return {key: name for key in found if (name := _text(found, key, where)) is not None}


def _text(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"{key} is {kind_of(value)}, not text", where=where, mend="Write a name.")

"""Read a settings file: YAML, JSON or TOML in, named values with their lines out.

Refuses what a settings file can't mean: a list at the top, a key that stands twice, a section
that is no mapping. Which names exist is not decided here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from luthier.core.errors import SettingsError, nearest

SUFFIXES = (".yaml", ".yml", ".json", ".toml")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value that somebody set.

    Attributes:
        name: The setting's name as written.
        value: Its value, in plain Python types.
        where: `file:line` or the command-line flag.
        section: The section that it was written in; None in the flat layout.
    """

    name: str
    value: Any
    where: str
    section: str | None = None


def read_config_file(path: Path, section_names: frozenset[str]) -> list[Entry]:
    """Read the entries of a settings file in the order in which they stand.

    Args:
        path: A .yaml, .yml, .json or .toml file.
        section_names: Top-level keys that open a section.

    Raises:
        SettingsError: The file is missing, can't be parsed or has the wrong shape.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".toml":
        values, lines = _parse_toml(path, text)
    else:
        values, lines = _parse_yaml(path, text)
    if not values:
        raise SettingsError(
            "the file holds no setting",
            where=str(path),
            mend="Write one `name: value` a line; configs/ holds ready examples.",
        )
    entries: list[Entry] = []
    for key, value in values.items():
        line = lines.get((key,), 1)
        where = f"{path}:{line}"
        if key not in section_names:
            entries.append(Entry(str(key), _plain(value), where))
            continue
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"{key} is a section, and its value is {_plain(value)!r}",
                where=where,
                mend=f"Write its settings indented below `{key}:`.",
            )
        entries += [
            Entry(str(name), _plain(item), f"{path}:{lines.get((key, name), line)}", str(key))
            for name, item in value.items()
        ]
    return entries


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise SettingsError(
            "this is a folder, not a settings file", where=str(path), mend="Name a file in it."
        )
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise SettingsError(
            f"a settings file ends in {', '.join(SUFFIXES)}", where=str(path), mend="Rename it."
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(
            "no such settings file", where=str(path), mend=_neighbour(path)
        ) from None
    except OSError as error:
        raise SettingsError(
            f"the settings file can't be read: {error.strerror}",
            where=str(path),
            mend="Check the path and its permissions.",
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the file is not UTF-8 (byte {error.start})",
            where=str(path),
            mend="Save it as UTF-8, for example: iconv -f gbk -t utf-8 OLD > NEW",
        ) from None


def _neighbour(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"The folder {folder} does not exist either."
    names = [item.name for item in folder.iterdir() if item.suffix.lower() in SUFFIXES]
    close = nearest(path.name, names)
    return f"Did you mean {folder / close}?" if close else "Ready examples stand in configs/."


def _parse_yaml(path: Path, text: str) -> tuple[Mapping[Any, Any], dict[tuple[Any, ...], int]]:
    # YAML 1.2, as ruamel reads it: `2e-4` is a number and `no` is a word. JSON is a part of it.
    try:
        document = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = re.search(r'duplicate key "(.*?)" with', str(error.problem), re.DOTALL)
        problem = f"{found.group(1) if found else 'a key'} stands twice in this file"
        raise SettingsError(problem, where=f"{path}:{line}", mend="Keep one of the two.") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise SettingsError(
            f"this is not valid {_language(path)}: {error.problem}",
            where=f"{path}:{mark.line + 1}" if mark else str(path),
            mend="Check the indentation, the colons and the quotes on this line and above it.",
        ) from None
    except YAMLError as error:
        raise SettingsError(
            f"this is not valid {_language(path)}: {str(error).splitlines()[0]}",
            where=str(path),
            mend="Take control characters out of the file.",
        ) from None
    if document is None:
        return {}, {}
    if not isinstance(document, CommentedMap):
        raise SettingsError(
            f"settings are `name: value` pairs, and this file holds {_kind(document)}",
            where=f"{path}:1",
            mend="See configs/ for ready examples.",
        )
    return document, dict(_yaml_lines(document))


def _yaml_lines(document: CommentedMap) -> list[tuple[tuple[Any, ...], int]]:
    # A key that a merge (`<<: *anchor`) brings has no line of its own, and is left out here.
    lines: list[tuple[tuple[Any, ...], int]] = []
    for key, value in document.items():
        lines += [((key,), place[0] + 1) for place in _places(document, key)]
        if isinstance(value, CommentedMap):
            lines += [
                ((key, name), place[0] + 1) for name in value for place in _places(value, name)
            ]
    return lines


def _places(mapping: CommentedMap, key: Any) -> list[list[int]]:
    place = (mapping.lc.data or {}).get(key)
    return [] if place is None else [place]


def _parse_toml(path: Path, text: str) -> tuple[Mapping[str, Any], dict[tuple[Any, ...], int]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise SettingsError(
            f"this is not valid TOML: {error}",
            where=f"{path}:{found.group(1)}" if found else str(path),
            mend="Check the quotes and brackets on this line.",
        ) from None
    # tomllib keeps no line numbers; a key's line is found by its own spelling.
    lines: dict[tuple[Any, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = tuple(header.group(1).split("."))
            lines.setdefault(section, number)
        elif pair := re.match(r"\s*\"?([\w.-]+)\"?\s*=", line):
            lines.setdefault((*section, *pair.group(1).split(".")), number)
    return document, lines


def _language(path: Path) -> str:
    return "JSON" if path.suffix.lower() == ".json" else "YAML"


def _kind(document: Any) -> str:
    return "a list" if isinstance(document, list) else f"{_plain(document)!r} alone"


def _plain(value: Any) -> Any:
    """Turn ruamel's annotated containers and numbers into Python's own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        # JSON writes a character beyond U+FFFF as a pair of escapes, which YAML reads as two.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()  # `output_dir: 2026-01-31` is a name, not a day.
    return value

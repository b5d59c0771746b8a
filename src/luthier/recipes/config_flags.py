"""Read the command line of a command that takes settings: `[CONFIG] [--name [value]] ...`.

Every setting is a flag under its own name. A bare flag means true; a setting that has no true is
refused here, before anything else is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from luthier.core.errors import SettingsError
from luthier.recipes.config_file import SUFFIXES, Entry
from luthier.recipes.config_foreign import unknown_name
from luthier.recipes.config_layout import Leaf, leaves


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What the user typed after the command's name.

    Attributes:
        config: The settings file.
        entries: Settings given as flags.
        options: The command's own flags.
        words: Words that are no flag, where the command takes several.
    """

    config: Path | None
    entries: tuple[Entry, ...]
    options: dict[str, str | bool]
    words: tuple[str, ...] = ()


def read_flags(
    args: Sequence[str], options: Sequence[str] = (), *, many_words: bool = False
) -> CommandLine:
    """Split a command line into its settings file, its settings and the command's own options.

    Args:
        args: What stands after the command's name.
        options: Names of flags that belong to the command and are no settings.
        many_words: Hand words that are no flag on as they are: a settings file may be among them.

    Raises:
        SettingsError: An unknown flag, a missing value, or two settings files.
    """
    known = leaves()
    config: Path | None = None
    entries: dict[str, Entry] = {}
    taken: dict[str, str | bool] = {}
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            if many_words:
                words.append(word)
            else:
                config = one_config(config, word)
            continue
        name, glued, value = word[2:].partition("=")
        if name == "config":
            config = one_config(config, value if glued else _next_value(rest, "--config"))
        elif name in options:
            taken[name] = value if glued else (rest.pop(0) if _is_value(rest) else True)
        elif name in known:
            leaf = known[name]
            raw = value if glued else _take_value(rest, leaf)
            entries[name] = Entry(name, _parse(raw, leaf), f"--{name}")
        else:
            raise unknown_name(name, f"--{name}", [*known, *options, "config"])
    return CommandLine(config, tuple(entries.values()), taken, tuple(words))


def drop_flags(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command line without some settings, their values included.

    Args:
        args: What stands after the command's name, as `read_flags` accepted it.
        names: Settings that are to go.
    """
    known, kept, rest = leaves(), list[str](), list(args)
    while rest:
        before = list(rest)
        word = rest.pop(0)
        name, glued, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in known and not glued:
            _take_value(rest, known[name])
        if not (word.startswith("--") and name in names):
            kept += before[: len(before) - len(rest)]
    return kept


def one_config(earlier: Path | None, word: str) -> Path:
    """Return a settings file's path.

    Raises:
        SettingsError: There is another one already.
    """
    if earlier is not None:
        raise SettingsError(
            f"two settings files are given: {earlier} and {word}",
            where="command line",
            mend="Give one. A value for a setting follows its --name.",
        )
    return Path(word)


def _is_value(rest: Sequence[str]) -> bool:
    # A negative number is a value; any other word that begins with a dash is the next flag.
    return bool(rest) and (not rest[0].startswith("-") or rest[0][1:2].isdigit())


def _next_value(rest: list[str], flag: str) -> str:
    if not _is_value(rest):
        raise SettingsError(f"{flag} needs a value", where=flag, mend=f"Write {flag} VALUE.")
    return rest.pop(0)


def _take_value(rest: list[str], leaf: Leaf) -> str | bool:
    if not leaf.accepts_bool:
        return _next_value(rest, f"--{leaf.name}")
    if not _is_value(rest) or rest[0].endswith(SUFFIXES):
        return True
    if leaf.words_of_switch and rest[0].lower() not in leaf.words_of_switch:
        return True
    return rest.pop(0)


def _parse(raw: str | bool, leaf: Leaf) -> Any:
    """Leave words to pydantic, which knows the type; only brackets and null are read here."""
    if not isinstance(raw, str):
        return raw
    if raw == "null":
        return None
    if leaf.accepts_bool and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    if leaf.accepts_collection and raw[:1] in "[{":
        try:
            return YAML(typ="safe").load(raw)
        except YAMLError as error:
            raise SettingsError(
                f"{raw!r} is not a list or mapping",
                where=f"--{leaf.name}",
                mend="Write it in quotes, as '[one, two]' or '{one: 1}'.",
            ) from error
    return raw

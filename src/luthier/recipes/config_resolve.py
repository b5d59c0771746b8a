"""Settings file + command line -> RunConfig, with where each value came from.

Later sources win: defaults, then the file, then the command line. Every error names the file and
line (or flag), the setting, its value and the nearest thing that would have been right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from luthier.contracts.settings import Settings
from luthier.core.errors import SettingsError, did_you_mean, nearest
from luthier.core.secrets import find_secret
from luthier.recipes.config_file import Entry, read_config_file
from luthier.recipes.config_flags import CommandLine
from luthier.recipes.config_foreign import unknown_name
from luthier.recipes.config_layout import (
    MOVED,
    Leaf,
    chosen_model,
    default_choice,
    leaves,
    sections,
)
from luthier.recipes.config_rules import RULES
from luthier.recipes.run_config import STAGE_DEFAULTS, RunConfig


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """The settings of a run and their provenance.

    Attributes:
        config: The validated settings.
        where: For each setting that somebody set: `file:line` or the flag.
    """

    config: RunConfig
    where: Mapping[str, str]


def resolve_command(command: CommandLine) -> ResolvedConfig:
    """Resolve what a command line says, its settings file included.

    Raises:
        SettingsError: Anything about the settings is wrong.
    """
    entries: list[Entry] = []
    if command.config is not None:
        entries = read_config_file(command.config, frozenset(sections()))
    return resolve(entries, command.entries)


def resolve_file(path: Path) -> ResolvedConfig:
    """Resolve a settings file alone."""
    return resolve(read_config_file(path, frozenset(sections())), ())


def resolve(file_entries: Iterable[Entry], flag_entries: Iterable[Entry]) -> ResolvedConfig:
    """Merge entries, check names, build the sections and check the rules over sections.

    Raises:
        SettingsError: An unknown name, a name in the wrong section or given twice, a wrong value,
            a setting that this run would not use, or one that holds a secret.
    """
    entries: dict[str, Entry] = {}
    for entry in file_entries:
        _check_name(entry)
        if entry.name in entries:
            raise SettingsError(
                f"{entry.name} is set twice, first at {entries[entry.name].where}",
                where=entry.where,
                mend="Keep one of the two.",
            )
        entries[entry.name] = entry
    entries |= {entry.name: entry for entry in flag_entries}
    for entry in entries.values():
        _refuse_secret(entry)
    given = {**_defaults_of_stage(entries), **entries}
    parts = {name: _build_section(name, given) for name in sections()}
    config = RunConfig(**parts)  # type: ignore[arg-type]
    _check_rules(config, entries)
    return ResolvedConfig(config, {name: entry.where for name, entry in entries.items()})


def _defaults_of_stage(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    stage = entries.get("stage")
    if stage is None:
        return {}
    defaults = STAGE_DEFAULTS.get(str(stage.value), {})
    return {name: replace(stage, name=name, value=value) for name, value in defaults.items()}


def _check_name(entry: Entry) -> None:
    leaf = leaves().get(entry.name)
    if leaf is None:
        raise unknown_name(entry.name, entry.where, [*leaves(), *sections()])
    if entry.section not in (None, leaf.section, MOVED.get(entry.name)):
        raise SettingsError(
            f"{entry.name} stands in the section {entry.section}",
            where=entry.where,
            mend=f"It belongs to the section {leaf.section}.",
        )


def _refuse_secret(entry: Entry) -> None:
    # Before anything else is said of a value: messages show it, and run.yaml keeps it.
    found = find_secret(entry.value)
    if found is not None:
        raise SettingsError(
            f"{entry.name} holds {found}, and settings are written to files",
            where=entry.where,
            mend="Take it out. Tokens come from the environment alone, for example HF_TOKEN.",
        )


def _build_section(section: str, entries: Mapping[str, Entry]) -> Settings:
    mine = {n: e for n, e in entries.items() if leaves()[n].section == section}
    model = _choose(section, mine)
    for name, entry in mine.items():
        _refuse_bool_for_number(leaves()[name], entry)
    try:
        return model(**{name: _as_option(leaves()[name], e.value) for name, e in mine.items()})
    except ValidationError as error:
        raise _explain(error.errors()[0], model, mine) from None


def _choose(section: str, mine: Mapping[str, Entry]) -> type[Settings]:
    choice = default_choice(section)
    if choice is None:
        return sections()[section][0]
    chooser = next(leaf for leaf in leaves().values() if leaf.section == section).discriminator
    assert chooser is not None
    if chooser in mine:
        choice = mine[chooser].value
        choices = leaves()[chooser].choices
        if choice not in choices:
            raise SettingsError(
                f"{chooser} is {_show(choice)}, and can be {' or '.join(choices)}",
                where=mine[chooser].where,
                mend=did_you_mean(str(choice), choices),
            )
    for name, entry in mine.items():
        leaf = leaves()[name]
        if leaf.choices and choice not in leaf.choices:
            raise SettingsError(
                f"{name} is not used with {chooser}: {choice}",
                where=entry.where,
                mend=f"Take it out, or set {chooser}: {' or '.join(leaf.choices)}.",
            )
    return chosen_model(section, choice)


def _refuse_bool_for_number(leaf: Leaf, entry: Entry) -> None:
    # pydantic would take true for 1.
    if isinstance(entry.value, bool) and not leaf.accepts_bool:
        raise SettingsError(
            f"{leaf.name} is {_show(entry.value)}, which is not a value of it",
            where=entry.where,
            mend=_describe(leaf),
        )


def _as_option(leaf: Leaf, value: Any) -> Any:
    if isinstance(value, str) and leaf.accepts_only_lists:
        return [part.strip() for part in value.split(",") if part.strip()]
    # A flag's value comes as a word, and pydantic takes "4" for a number but not for the option 4.
    found = [o for o in leaf.options if not isinstance(o, str) and str(o) == value]
    return found[0] if found else value


def _explain(
    detail: ErrorDetails, model: type[Settings], mine: Mapping[str, Entry]
) -> SettingsError:
    location = [part for part in detail["loc"] if isinstance(part, str)]
    name = next((part for part in location if part in model.model_fields), None)
    message = detail["msg"].removeprefix("Value error, ")
    if name is None:
        # A check over several fields: point at the first of them that the user wrote.
        named = [n for n in mine if n in message]
        return SettingsError(message, where=mine[named[0]].where if named else None)
    if detail["type"] == "missing":
        return SettingsError(
            f"{name} is not set", mend=f"Set {name} in the file, or give --{name}."
        )
    leaf = leaves()[name]
    value = mine[name].value if name in mine else detail["input"]
    where = mine[name].where if name in mine else None
    if detail["type"] == "literal_error" and leaf.options:
        options = [o if isinstance(o, str) else _show(o) for o in leaf.options]
        close = nearest(str(value), options)
        return SettingsError(
            f"{name} is {_show(value)}, and can be {' or '.join(options)}",
            where=where,
            mend=f"Did you mean {close}?" if close else _describe(leaf),
        )
    return SettingsError(
        f"{name} is {_show(value)}: {message[:1].lower()}{message[1:]}",
        where=where,
        mend=_describe(leaf),
    )


def _show(value: Any) -> str:
    """Return a value as a settings file spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _describe(leaf: Leaf) -> str:
    return f"{leaf.name}: {leaf.field.description}"


def _check_rules(config: RunConfig, entries: Mapping[str, Entry]) -> None:
    for rule in RULES:
        entry = entries.get(rule.name)
        leaf = leaves()[rule.name]
        if entry is None:
            continue
        value = getattr(getattr(config, leaf.section), rule.name)
        default = leaf.field.get_default(call_default_factory=True)
        counts = rule.even_default or value != default
        if counts and rule.broken(config):
            raise SettingsError(f"{rule.name} {rule.problem}", where=entry.where, mend=rule.mend)

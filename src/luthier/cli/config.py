"""`luthier config`: every setting, its value, where it came from, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from luthier.cli.terminal import console
from luthier.contracts.settings import Settings
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_layout import leaves, sections
from luthier.recipes.config_resolve import ResolvedConfig, resolve_command

_WIDE = 120
"""Columns that a terminal needs to show what each setting means beside its value."""


def run(args: Sequence[str]) -> None:
    """Print the resolved settings; without a settings file, the list of all settings.

    Raises:
        SettingsError: Anything about the settings is wrong.
    """
    command = read_flags(args)
    if command.config is None and not command.entries:
        console.print(_reference())
        return
    console.print(_resolved(resolve_command(command)))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        # Names and places are for copying: they are never broken over two lines.
        table.add_column(name, overflow="fold", no_wrap=name in ("setting", "from"))
    return table


def _resolved(resolved: ResolvedConfig) -> Table:
    wide = console.width >= _WIDE
    table = _table("setting", "value", "from", *(["meaning"] if wide else []))
    for section in sections():
        table.add_row(Text(section, style="bold cyan"))
        settings: Settings = getattr(resolved.config, section)
        for name in type(settings).model_fields:
            where = _place(resolved.where.get(name, "default"))
            style = "dim" if where == "default" else ""
            value = Text(_show(getattr(settings, name)), style=style or "green")
            row = [Text(f"  {name}", style=style), value, Text(where, style=style)]
            meaning = Text(leaves()[name].field.description or "", style="dim")
            table.add_row(*row, *([meaning] if wide else []))
    return table


def _reference() -> Table:
    table = _table("setting", "default", "meaning")
    for section in sections():
        table.add_row(Text(section, style="bold cyan"))
        for leaf in leaves().values():
            if leaf.section != section:
                continue
            used = f" (only with {leaf.discriminator}: {' or '.join(leaf.choices)})"
            chooses = leaf.name == leaf.discriminator
            note = used if leaf.choices and not chooses else ""
            default = "required" if leaf.field.is_required() else _show(leaf.field.default)
            meaning = Text((leaf.field.description or "") + note, style="dim")
            table.add_row(f"  {leaf.name}", default, meaning)
    return table


def _place(where: str) -> str:
    # There is one settings file at most, and its folders would leave no room for the values.
    return where if where.startswith("--") else Path(where).name


def _show(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

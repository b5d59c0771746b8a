"""Which setting lives where: the index of RunConfig's leaves.

Comes in: the RunConfig class. Leaves: for each leaf name its section, its field and, where the
section is a choice between methods, the choices that use it.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from luthier.contracts.settings import Settings
from luthier.recipes.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting.

    Attributes:
        name: The name users write, unique over all sections.
        section: The section it stands in.
        field: Its type, default and description, as pydantic holds them.
        choices: The values of the section's discriminator that use it; empty where all do.
        discriminator: The setting that chooses, for example `finetuning_type`.
    """

    name: str
    section: str
    field: FieldInfo
    choices: tuple[str, ...] = ()
    discriminator: str | None = None

    @property
    def accepts_bool(self) -> bool:
        """Whether true and false are among its values, so that a bare flag means something."""
        return bool in _flat_types(self.field.annotation) or self.name in BARE_FLAGS

    @property
    def words_of_switch(self) -> tuple[str, ...]:
        """All words that can follow its bare flag as its value; empty where any word can."""
        if bool not in _flat_types(self.field.annotation) or self.name in BARE_FLAGS:
            return ()
        named = [option for option in self.options if isinstance(option, str)]
        return ("true", "false", "null", *named)

    @property
    def options(self) -> tuple[Any, ...]:
        """The values that its type spells out; empty where it spells out none."""
        return tuple(dict.fromkeys(_literal_options(self.field.annotation)))

    @property
    def accepts_only_lists(self) -> bool:
        """Whether a single word can only be meant as a list of one, or of several by commas."""
        types = _flat_types(self.field.annotation)
        return bool({list, tuple} & types) and not {str, dict} & types

    @property
    def accepts_collection(self) -> bool:
        """Whether a value in brackets or braces can be meant."""
        return bool({list, tuple, dict} & _flat_types(self.field.annotation))


BARE_FLAGS = frozenset({"flash_attn", "packing", "resume_from_checkpoint"})
"""Settings that take a value but also mean something as a bare flag (the lecture's command)."""

MOVED = {"report_to": "run"}
"""Sections that settings stood in before; run.yaml files of older runs still have them there."""


@cache
def sections() -> dict[str, tuple[type[Settings], ...]]:
    """Return each section's settings models: one, or one for each choice."""
    found: dict[str, tuple[type[Settings], ...]] = {}
    for name, field in RunConfig.model_fields.items():
        annotation = field.annotation
        found[name] = get_args(annotation) if _is_union(annotation) else (annotation,)  # type: ignore[assignment]
    return found


@cache
def leaves() -> dict[str, Leaf]:
    """Return every setting by name.

    Raises:
        AssertionError: Two sections use one name (a mistake in luthier, held by a test).
    """
    index: dict[str, Leaf] = {}
    for section, models in sections().items():
        discriminator = RunConfig.model_fields[section].discriminator
        chooser = discriminator if isinstance(discriminator, str) else None
        for name in dict.fromkeys(name for model in models for name in model.model_fields):
            assert name not in index, f"{name} stands in {index[name].section} and in {section}"
            users = [model for model in models if name in model.model_fields]
            everywhere = len(users) == len(models) and name != chooser
            choices = () if chooser is None or everywhere else _choices(users, chooser)
            index[name] = Leaf(name, section, users[0].model_fields[name], choices, chooser)
    return index


def chosen_model(section: str, choice: object) -> type[Settings]:
    """Return the settings model of a section for one value of its discriminator."""
    models = sections()[section]
    chooser = RunConfig.model_fields[section].discriminator
    if not isinstance(chooser, str):
        return models[0]
    return next(m for m in models if m.model_fields[chooser].default == choice)


def default_choice(section: str) -> object:
    """Return the discriminator's value that a section has when nobody chooses, else None."""
    field = RunConfig.model_fields[section]
    if not isinstance(field.discriminator, str):
        return None
    return getattr(field.default, field.discriminator)


def _choices(models: list[type[Settings]], chooser: str) -> tuple[str, ...]:
    return tuple(str(model.model_fields[chooser].default) for model in models)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _flat_types(annotation: Any) -> set[Any]:
    if _is_union(annotation):
        return set().union(*(_flat_types(part) for part in get_args(annotation)))
    if get_origin(annotation) is Literal:
        return {type(option) for option in get_args(annotation)}
    return {get_origin(annotation) or annotation}


def _literal_options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [option for part in get_args(annotation) for option in _literal_options(part)]

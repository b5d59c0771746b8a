"""The base of every settings model."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from luthier.contracts.settings import Settings


class Example(Settings):
    model_name: str = "a"
    """The name's documentation."""


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValidationError, match="model_nam"):
        Example.model_validate({"model_nam": "b"})


def test_settings_are_frozen() -> None:
    settings: Any = Example()
    with pytest.raises(ValidationError, match="frozen"):
        settings.model_name = "b"


def test_the_docstring_of_a_field_is_its_description() -> None:
    assert Example.model_fields["model_name"].description == "The name's documentation."


def test_defaults_are_checked_too() -> None:
    class Wrong(Settings):
        count: int = "many"  # pyright: ignore[reportAssignmentType]

    with pytest.raises(ValidationError, match="count"):
        Wrong()

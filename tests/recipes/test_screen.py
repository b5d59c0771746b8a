"""The display and the tests' recorder have all that a recipe tells a screen, in the same words."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from luthier.cli.display import TrainScreen
from luthier.recipes.screen import Screen


def messages() -> dict[str, Callable[..., None]]:
    return {
        name: member
        for kind in inspect.getmro(Screen)
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_a_screen_is_an_observer_that_hears_more():
    assert messages().keys() == {
        *("say", "working", "notice", "corpus", "data", "model"),
        *("on_start", "on_step", "on_log", "on_evaluation", "on_samples"),
        *("on_checkpoint", "on_end"),
    }


@pytest.mark.parametrize("name", messages())
def test_a_screen_takes_what_the_protocol_says(name: str, recorder: Screen):
    expected = list(inspect.signature(messages()[name]).parameters)
    for screen in (TrainScreen, type(recorder)):
        assert list(inspect.signature(getattr(screen, name)).parameters) == expected

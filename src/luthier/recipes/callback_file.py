"""The callbacks that a setting names, each as FILE.py:NAME: found, built and checked.

The file is run because the user named it (`core/own_code.py`). What a callback may have is written
in `contracts/callback.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.contracts.callback import HOOKS
from luthier.core.errors import SettingsError, did_you_mean, nearest
from luthier.core.hashing import hash_file
from luthier.core.own_code import place_of, read_own_code, run_own_code


@dataclass(frozen=True, slots=True)
class NamedCallback:
    """A callback, and where it comes from.

    Attributes:
        name: Of its class.
        path: Its file.
        instance: What is called.
    """

    name: str
    path: Path
    instance: Any

    def hook(self, name: str) -> Any | None:
        """Return a method of the callback, or None if it has no such."""
        return getattr(self.instance, name, None)

    def place(self, hook: str, error: BaseException | None = None) -> str:
        """Return `file:line` of an error, or of a method."""
        return place_of(getattr(type(self.instance), hook), self.path, error)


def load_callbacks(names: Sequence[str]) -> tuple[NamedCallback, ...]:
    """Run the files and build the callbacks.

    Args:
        names: Each FILE.py:NAME.

    Raises:
        SettingsError: A file can't be run, has no such class, or the class is no callback.
    """
    classes = [name.rpartition(":")[2] for name in names]
    if len(set(classes)) < len(classes):
        raise SettingsError(
            "two callbacks have one name, by which checkpoints keep their states",
            where="callbacks",
            mend="Name each class once, or rename one of them.",
        )
    return tuple(_load(name) for name in names)


def describe_callbacks(callbacks: Sequence[NamedCallback]) -> list[dict[str, str]]:
    """Return what a manifest says of the callbacks: their names, files, and the files' hashes."""
    return [
        {"name": found.name, "path": str(found.path), "sha256": hash_file(found.path)}
        for found in callbacks
    ]


def _load(name: str) -> NamedCallback:
    file, colon, class_name = name.rpartition(":")
    if not colon:
        raise SettingsError(
            f"{name} names no class",
            where="callbacks",
            mend="A callback is named FILE.py:NAME, for example mine.py:EarlyBird.",
        )
    path = Path(file).expanduser().resolve()
    module = run_own_code(path, read_own_code(path, "the file of a callback"))
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise SettingsError(
            f"the file has no class {class_name}",
            where=str(path),
            mend=did_you_mean(class_name, classes) if classes else "Write a class of that name.",
        )
    _refuse_wrong_methods(found, path)
    try:
        instance = found()
    except Exception as error:  # the user's code may raise any
        raise SettingsError(
            f"the callback {class_name} can't be built: {type(error).__name__}: {error}",
            where=_place(found, path, error),
            mend="A callback is built without arguments.",
        ) from error
    return NamedCallback(class_name, path, instance)


def _refuse_wrong_methods(found: type, path: Path) -> None:
    where = _place(found, path)
    if any(_is_trainers(base) for base in found.__mro__):
        raise SettingsError(
            f"{found.__name__} is a callback of transformers' Trainer",
            where=where,
            mend="Take the base class out and write luthier's methods: on_step_end is on_step, "
            "on_evaluate is on_evaluation, on_save is on_checkpoint (docs/watching.md).",
        )
    named = [name for name in dir(found) if name.startswith("on_")]
    for name in named:
        if name not in HOOKS:
            close = nearest(name, HOOKS)
            raise SettingsError(
                f"{found.__name__}.{name} would never be called",
                where=where,
                mend=f"Did you mean {close}?" if close else f"There are {', '.join(HOOKS)}.",
            )
    if not named:
        raise SettingsError(
            f"{found.__name__} has none of the methods of a callback",
            where=where,
            mend=f"Give it one of {', '.join(HOOKS)}.",
        )
    if hasattr(found, "get_state") != hasattr(found, "set_state"):
        raise SettingsError(
            f"{found.__name__} has one of get_state and set_state",
            where=where,
            mend="Give it both, or neither.",
        )


def _is_trainers(base: type) -> bool:
    return base.__name__ == "TrainerCallback" and base.__module__.startswith("transformers.")


def _place(found: type, path: Path, error: Exception | None = None) -> str:
    """Return `file:line` of an error in a class's own code, or of the class."""
    if inspect.isfunction(found.__init__) and error is not None:
        return place_of(found.__init__, path, error)
    return f"{path}:{inspect.getsourcelines(found)[1]}"

"""The user's file of steps: its functions, and the settings that they take.

In: a path, and settings by name. Out: functions that can be steps, and values of the types that
their parameters ask for. Refused are a file that can't be run, and settings that no parameter
takes. The file is run once in each process, under a module name of its own; it imports packages
that are installed, but no file beside it, for the path of imports is left as it is.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from luthier.core.errors import SettingsError, did_you_mean
from luthier.core.own_code import place_of, read_own_code, run_own_code

Function = Callable[..., Any]
KINDS = ("row", "columns")
"""What the first parameter of a step is called: `row` makes it a filter."""


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of steps as it was when it was read.

    Attributes:
        path: Where it lies.
        functions: Those that can be steps, by name.
        sha256: Of its content.
    """

    path: Path
    functions: Mapping[str, Function]
    sha256: str


def read_own_file(path: Path) -> OwnFile:
    """Run a file, unless this process has run the same content before.

    Args:
        path: A Python file.

    Raises:
        SettingsError: The file is not there, is no Python, or raises an error when it is run.
    """
    path = path.resolve()
    return _run(path, read_own_code(path, "the file of own steps"))


def find_function(file: OwnFile, name: str) -> Function:
    """Return one function of a file.

    Raises:
        SettingsError: There is none of that name that can be a step.
    """
    if name not in file.functions:
        raise SettingsError(
            f"there is no step {name}: no function of that name takes {' or '.join(KINDS)} first",
            where=str(file.path),
            mend=did_you_mean(name, file.functions) if file.functions else "Define one.",
        )
    return file.functions[name]


def first_parameter(function: Function) -> str | None:
    """Return what a function calls its first parameter, if it takes any."""
    return next(iter(inspect.signature(function).parameters), None)


def read_settings(file: OwnFile, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as the types of a function's parameters have them.

    Args:
        file: Where the function stands.
        name: The function; its parameters after the first are its settings.
        given: Plain values by name.

    Raises:
        SettingsError: A parameter has no default, is not there, or is of another type.
    """
    function = find_function(file, name)
    parameters = _parameters(file, function)
    for setting in given:
        if setting not in parameters:
            raise SettingsError(
                f"the step {name} has no setting {setting}",
                where=f"step_settings.{name}",
                mend=did_you_mean(setting, parameters) if parameters else "It takes no settings.",
            )
    return {
        setting: _converted(parameters[setting], value, f"step_settings.{name}.{setting}")
        for setting, value in given.items()
    }


@lru_cache(maxsize=8)
def _run(path: Path, source: bytes) -> OwnFile:
    module = run_own_code(path, source)
    return OwnFile(path, _step_functions(module), hashlib.sha256(source).hexdigest())


def _step_functions(module: ModuleType) -> dict[str, Function]:
    """Return the functions that a file defines itself and that take a row or columns first."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and first_parameter(value) in KINDS
    }


def _parameters(file: OwnFile, function: Function) -> dict[str, inspect.Parameter]:
    """Return the parameters after the first, with their annotations read."""
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    except Exception as error:  # an annotation may be any expression
        raise SettingsError(
            f"the annotations of {function.__name__} can't be read: {error}",
            where=place_of(function, file.path),
            mend="Annotate its settings with types that the file knows.",
        ) from error
    for parameter in parameters:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if not named or parameter.default is parameter.empty:
            raise SettingsError(
                f"the parameter {parameter} of {function.__name__} has no default",
                where=place_of(function, file.path),
                mend="After the first parameter stand settings, each with a name and a default.",
            )
    return {parameter.name: parameter for parameter in parameters}


def _converted(parameter: inspect.Parameter, value: Any, where: str) -> Any:
    kind, default = parameter.annotation, parameter.default
    if kind is parameter.empty:
        kind = Any if default is None else type(default)
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise SettingsError(
            f"{value!r} can't be used: {error.errors()[0]['msg']}",
            where=where,
            mend=f"The default is {default!r}.",
        ) from None
    except PydanticUserError as error:
        raise SettingsError(
            f"no setting can be of the type {kind}",
            where=where,
            mend="Annotate it as a number, a text, a bool, or a list or dict of them.",
        ) from error

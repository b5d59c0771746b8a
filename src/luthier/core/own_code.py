"""A Python file of the user's, which a setting names: run it, and say where it goes wrong.

In: a path. Out: its module. Only a file that the user has named is ever run. It is run once in each
process, under a module name of its own; it imports packages that are installed, but no file beside
it, for the path of imports is left as it is.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from luthier.core.errors import SettingsError


def read_own_code(path: Path, what: str) -> bytes:
    """Return the content of a file.

    Args:
        path: A Python file.
        what: What it is to the run, for the message.

    Raises:
        SettingsError: It can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{what} can't be read: {error.strerror}", where=str(path), mend="Check the path."
        ) from None


@lru_cache(maxsize=8)
def run_own_code(path: Path, source: bytes) -> ModuleType:
    """Run a file, unless this process has run the same content before.

    Args:
        path: Where it lies, resolved.
        source: What it holds.

    Raises:
        SettingsError: It is no Python, or raises an error when it is run.
    """
    name = f"luthier_own_{hashlib.sha256(bytes(path)).hexdigest()[:12]}"
    module = module_from_spec(ModuleSpec(name, None, origin=str(path)))
    module.__file__ = str(path)
    # Dataclasses look for the module of their class there.
    sys.modules[name] = module
    try:
        # Not the loader's own way, which leaves a file of bytecode beside the user's.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise _failed(path, error) from error
    return module


def place_of(function: Callable[..., Any], path: Path, error: BaseException | None = None) -> str:
    """Return `file:line`: of the file's own code that an error went through last, or of the `def`.

    Args:
        function: Of the file.
        path: The file.
        error: What the function raised.
    """
    frames = traceback.extract_tb(error.__traceback__) if error is not None else ()
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}:{lines[-1] if lines else inspect.unwrap(function).__code__.co_firstlineno}"


def _failed(path: Path, error: Exception) -> SettingsError:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        where, what = f"{path}:{error.lineno}", f"the file is no Python: {error.msg}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        what = f"the file can't be run: {type(error).__name__}: {error}"
    return SettingsError(
        what,
        where=where,
        mend="Mend the file. It can import installed packages, no file beside it.",
    )

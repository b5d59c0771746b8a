"""The house rules that ruff, pyright and import-linter don't know.

In: a source tree (`src/luthier`, `tests`, the READMEs). Out: one line a breach, as
`file:line: rule: what is wrong; what to do`, and exit status 1, or one line that all is well.
It reads and never changes a file, and imports nothing outside the standard library.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_LINES_WARN = 400
FILE_LINES_FAIL = 600
LOOP_LINES_FAIL = 300
FUNCTION_LINES_NOTE = 40
FUNCTION_LINES_FAIL = 80
SETTINGS_FIELDS_FAIL = 15
FORBIDDEN_NAMES = frozenset(
    {"util", "utils", "helper", "helpers", "misc", "manager", "common", "v2", "legacy"}
)
UNPICKLERS = frozenset({"pickle", "_pickle", "cloudpickle", "dill"})
OPEN_MARKS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


@dataclass(frozen=True, slots=True)
class Breach:
    """One place that breaks a rule. `level` is "error", "warning" or "note"; errors fail."""

    path: Path
    line: int
    rule: str
    text: str
    level: str = "error"

    def __str__(self) -> str:
        prefix = "" if self.level == "error" else f"{self.level}: "
        return f"{self.path.as_posix()}:{self.line}: {prefix}{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed Python file; `path` is relative to the root of the repository."""

    path: Path
    lines: list[str]
    tree: ast.Module


def file_size(module: Module) -> Iterator[Breach]:
    """Files are short; the training loop is shorter still."""
    count = len(module.lines)
    is_loop = module.path.parts[-2:] == ("engine", "loop.py")
    if is_loop and count >= LOOP_LINES_FAIL:
        text = f"{count} lines, under {LOOP_LINES_FAIL} allowed; move what isn't the loop out"
        yield Breach(module.path, count, "loop-size", text)
    elif count > FILE_LINES_FAIL:
        text = f"{count} lines, {FILE_LINES_FAIL} allowed; split it by what its parts know"
        yield Breach(module.path, count, "file-size", text)
    elif count > FILE_LINES_WARN:
        text = f"{count} lines, over {FILE_LINES_WARN}; look again whether it is one thing"
        yield Breach(module.path, count, "file-size", text, "warning")


def function_size(module: Module) -> Iterator[Breach]:
    """Functions fit on a screen. Counted from `def` to the last line, docstring included."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if count > FUNCTION_LINES_NOTE:
            level = "error" if count > FUNCTION_LINES_FAIL else "note"
            text = f"{node.name} has {count} lines, {FUNCTION_LINES_FAIL} allowed; name its steps"
            yield Breach(module.path, node.lineno, "function-size", text, level)


def settings_size(module: Module) -> Iterator[Breach]:
    """A settings model stays small enough to be read as one thing."""
    if module.path.name != "settings.py":
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        names = [node.name, *(ast.unparse(base) for base in node.bases)]
        if not any(name.endswith("Settings") for name in names):
            continue
        fields = [
            statement
            for statement in node.body
            if isinstance(statement, ast.AnnAssign)
            and "ClassVar" not in ast.unparse(statement.annotation)
        ]
        if len(fields) > SETTINGS_FIELDS_FAIL:
            text = (
                f"{node.name} has {len(fields)} fields, {SETTINGS_FIELDS_FAIL} allowed; "
                "split it by what reads them"
            )
            yield Breach(module.path, node.lineno, "settings-size", text)


def module_name(module: Module) -> Iterator[Breach]:
    """A name says what is inside; `utils` says nothing. Packages and files alike."""
    for name in (*module.path.parent.parts, module.path.stem):
        if name in FORBIDDEN_NAMES or name.rsplit("_", 1)[-1] in FORBIDDEN_NAMES:
            text = f"{name!r} says nothing of what is inside; name the thing that it holds"
            yield Breach(module.path, 1, "module-name", text)


def open_marks(module: Module) -> Iterator[Breach]:
    """What is left to do is an issue, not a comment."""
    for number, line in enumerate(module.lines, start=1):
        if found := OPEN_MARKS.search(line):
            text = f"{found[0]} in the source; do it, or open an issue and remove the mark"
            yield Breach(module.path, number, "open-mark", text)


def unpickling(module: Module) -> Iterator[Breach]:
    """A pickle runs code when it is read."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.partition(".")[0] in UNPICKLERS:
                text = f"imports {name}, which runs code when it reads; use JSON or safetensors"
                yield Breach(module.path, node.lineno, "pickle", text)


def swallowed_errors(module: Module) -> Iterator[Breach]:
    """Nothing is dropped in silence, errors least of all."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else ""
        is_empty = all(_does_nothing(statement) for statement in node.body)
        if not caught:
            text = "`except:` catches even Ctrl-C; name the errors that are expected"
            yield Breach(module.path, node.lineno, "swallowed-error", text)
        elif caught in {"Exception", "BaseException"} and is_empty:
            text = f"`except {caught}` drops every error; name the expected ones and count them"
            yield Breach(module.path, node.lineno, "swallowed-error", text)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


MODULE_RULES: tuple[Callable[[Module], Iterator[Breach]], ...] = (
    file_size,
    function_size,
    settings_size,
    module_name,
    open_marks,
    unpickling,
    swallowed_errors,
)


def missing_test(root: Path, module: Module) -> Iterator[Breach]:
    """The tests mirror the package: a/b.py is tested in tests/a/test_b.py."""
    if module.path.stem in {"__init__", "__main__"}:
        return
    folder = Path("tests", *module.path.parent.parts[2:])
    test = folder / f"test_{module.path.stem.lstrip('_')}.py"
    if not (root / test).is_file():
        text = f"has no test file; write {test.as_posix()}"
        yield Breach(module.path, 1, "missing-test", text)


def readmes_apart(root: Path) -> Iterator[Breach]:
    """The two READMEs say the same, so they have the same headings at the same levels."""
    english, chinese = Path("README.md"), Path("README.zh.md")
    if not ((root / english).is_file() and (root / chinese).is_file()):
        return
    there, here = _headings(root / english), _headings(root / chinese)
    levels_there = [level for _, level in there]
    levels_here = [level for _, level in here]
    if levels_there == levels_here:
        return
    pairs = enumerate(zip(levels_there, levels_here, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(there), len(here)))
    line = here[at][0] if at < len(here) else (here[-1][0] if here else 1)
    text = (
        f"{len(here)} headings, {english} has {len(there)}; they part at heading {at + 1}: "
        "translate the change, or take it back"
    )
    yield Breach(chinese, line, "readmes-apart", text)


def _headings(path: Path) -> list[tuple[int, int]]:
    """Return (line, level) of each `#` heading outside fenced code."""
    found: list[tuple[int, int]] = []
    fence = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence and (heading := re.match(r"(#{1,6})\s", line)):
            found.append((number, len(heading[1])))
    return found


def check(root: Path) -> list[Breach]:
    """Check one repository.

    Args:
        root: Folder with `src/luthier` and `tests`.

    Returns:
        The breaches of all rules, in the order of files and lines; notes and warnings too.
    """
    breaches: list[Breach] = []
    for path in sorted((root / "src" / "luthier").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        relative = path.relative_to(root)
        try:
            module = Module(relative, source.splitlines(), ast.parse(source))
        except SyntaxError as error:
            text = f"{error.msg}; mend the syntax first"
            breaches.append(Breach(relative, error.lineno or 1, "syntax", text))
            continue
        for rule in MODULE_RULES:
            breaches.extend(rule(module))
        breaches.extend(missing_test(root, module))
    breaches.extend(readmes_apart(root))
    return sorted(breaches, key=lambda breach: (breach.path, breach.line))


def main(arguments: list[str] | None = None) -> int:
    """Print the breaches and return the exit status: 1 where there is an error."""
    parser = argparse.ArgumentParser(description="Check the house rules.")
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent
    )
    parser.add_argument(
        "--verbose", action="store_true", help=f"list functions over {FUNCTION_LINES_NOTE} lines"
    )
    options = parser.parse_args(arguments)
    breaches = check(options.root)
    for breach in breaches:
        if options.verbose or breach.level != "note":
            print(breach)
    failed = sum(breach.level == "error" for breach in breaches)
    if failed:
        print(f"{failed} {'breach' if failed == 1 else 'breaches'} of the house rules")
        return 1
    print("house rules hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())

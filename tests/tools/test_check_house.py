"""One small tree for each house rule: it fails with its message, and its clean twin passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import check_house

SCRIPT = Path(check_house.__file__)


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files below `root`; a module under src/luthier gets its (empty) test file too."""
    (root / "src" / "luthier").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        parts = Path(name).parts
        if parts[:2] == ("src", "luthier") and not path.stem.startswith("__"):
            test = root.joinpath("tests", *parts[2:-1], f"test_{path.name}")
            test.parent.mkdir(parents=True, exist_ok=True)
            test.touch()
    return root


def function(num_lines: int) -> str:
    return "def long() -> None:\n" + "    step()\n" * (num_lines - 1)


def settings(num_fields: int, head: str = "class RunSettings:") -> str:
    fields = "".join(f"    field_{i}: int = {i}\n    '''Doc.'''\n" for i in range(num_fields))
    return f"{head}\n    KIND: ClassVar[str] = 'x'\n{fields}"


BROKEN = {
    "file size": (
        {"src/luthier/core/long.py": "x = 1\n" * 601},
        "src/luthier/core/long.py:601: file-size: 601 lines, 600 allowed; split it",
    ),
    "loop size": (
        {"src/luthier/engine/loop.py": "x = 1\n" * 300},
        "src/luthier/engine/loop.py:300: loop-size: 300 lines, under 300 allowed; move",
    ),
    "function size": (
        {"src/luthier/core/files.py": "\n" + function(81)},
        "src/luthier/core/files.py:2: function-size: long has 81 lines, 80 allowed; name its",
    ),
    "method size": (
        {"src/luthier/core/files.py": "class A:\n    async def f(self):\n" + "        go()\n" * 80},
        "src/luthier/core/files.py:2: function-size: f has 81 lines",
    ),
    "settings by name": (
        {"src/luthier/engine/settings.py": settings(16)},
        "src/luthier/engine/settings.py:1: settings-size: RunSettings has 16 fields, 15 allowed",
    ),
    "settings by base": (
        {"src/luthier/engine/settings.py": settings(16, "class AdamW(base.Settings):")},
        "src/luthier/engine/settings.py:1: settings-size: AdamW has 16 fields, 15 allowed",
    ),
    "no test": (
        {"src/luthier/core/__init__.py": "", "src/luthier/__main__.py": ""},
        "src/luthier/corpus/settings.py:1: missing-test: has no test file; "
        "write tests/corpus/test_settings.py",
    ),
    "module name": (
        {"src/luthier/core/utils.py": ""},
        "src/luthier/core/utils.py:1: module-name: 'utils' says nothing",
    ),
    "package name": (
        {"src/luthier/common/__init__.py": ""},
        "src/luthier/common/__init__.py:1: module-name: 'common' says nothing",
    ),
    "name that ends so": (
        {"src/luthier/core/text_helpers.py": ""},
        "src/luthier/core/text_helpers.py:1: module-name: 'text_helpers' says nothing",
    ),
    "open mark": (
        {"src/luthier/core/files.py": "x = 1\n# TO" + "DO: more\n"},
        "src/luthier/core/files.py:2: open-mark: TO" + "DO in the source; do it",
    ),
    "import pickle": (
        {"src/luthier/core/files.py": "def f():\n    import pickle\n"},
        "src/luthier/core/files.py:2: pickle: imports pickle, which runs code",
    ),
    "from pickle": (
        {"src/luthier/core/files.py": "from pickle import loads\n"},
        "src/luthier/core/files.py:1: pickle: imports pickle, which runs code",
    ),
    "bare except": (
        {"src/luthier/core/files.py": "try:\n    go()\nexcept:\n    stop()\n"},
        "src/luthier/core/files.py:3: swallowed-error: `except:` catches even Ctrl-C; name",
    ),
    "except Exception: pass": (
        {"src/luthier/core/files.py": "try:\n    go()\nexcept Exception:\n    pass\n"},
        "src/luthier/core/files.py:3: swallowed-error: `except Exception` drops every error",
    ),
    "syntax": (
        {"src/luthier/core/files.py": "x = 1\ndef\n"},
        "src/luthier/core/files.py:2: syntax: invalid syntax; mend",
    ),
    "one heading less": (
        {"README.md": "# A\n## B\n## C\n", "README.zh.md": "# 甲\n\n## 乙\n"},
        "README.zh.md:3: readmes-apart: 2 headings, README.md has 3; they part at heading 3",
    ),
    "another level": (
        {"README.md": "# A\n## B\n", "README.zh.md": "# 甲\n### 乙\n"},
        "README.zh.md:2: readmes-apart: 2 headings, README.md has 2; they part at heading 2",
    ),
}

CLEAN = {
    "src/luthier/__init__.py": "",
    "src/luthier/__main__.py": "",
    "src/luthier/core/_files.py": "x = 1\n" * 400 + "",
    "src/luthier/core/size.py": function(80),
    "src/luthier/core/settings.py": settings(15),
    "src/luthier/core/records.py": settings(16),
    "src/luthier/corpus/common_words.py": "try:\n    go()\nexcept Exception:\n    raise\n",
    "src/luthier/corpus/mastodon.py": "try:\n    go()\nexcept OSError:\n    pass\n",
    "src/luthier/engine/loop.py": "x = 1\n" * 299,
    "README.md": "# A\n```sh\n# no heading\n```\n## B\n",
    "README.zh.md": "# 甲\n~~~~\n```\n# no heading\n~~~~\n## 乙\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_fails_with_place_and_mend(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, message = BROKEN[name]
    root = tree(tmp_path, files)
    if name == "no test":
        lonely = root / "src/luthier/corpus/settings.py"
        lonely.parent.mkdir()
        lonely.touch()

    assert check_house.main([str(root)]) == 1

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(message)
    assert printed[1:] == ["1 breach of the house rules"]


def test_a_clean_tree_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path, CLEAN)
    (root / "tests/core/test__files.py").rename(root / "tests/core/test_files.py")

    assert check_house.main([str(root)]) == 0
    assert capsys.readouterr().out == "house rules hold\n"


def test_a_long_file_is_a_warning_and_a_long_function_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path, {"src/luthier/core/files.py": function(41) + "x = 1\n" * 360})
    warning = "src/luthier/core/files.py:401: warning: file-size: 401 lines, over 400; look again"
    note = "src/luthier/core/files.py:1: note: function-size: long has 41 lines"

    assert check_house.main([str(root)]) == 0
    quiet = capsys.readouterr().out
    assert quiet.startswith(warning)
    assert "note" not in quiet

    assert check_house.main([str(root), "--verbose"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(note)
    assert second.startswith(warning)
    assert last == "house rules hold"


def test_one_readme_alone_is_no_breach(tmp_path: Path) -> None:
    assert check_house.check(tree(tmp_path, {"README.md": "# A\n"})) == []


def test_as_a_script_it_exits_as_it_says(tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), str(root)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    root = tree(tmp_path, {})
    assert (run().returncode, run().stdout) == (0, "house rules hold\n")
    tree(root, {"src/luthier/misc.py": ""})
    assert run().returncode == 1

from __future__ import annotations

import pickle
import textwrap
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.corpus_step import Columns, Drop, GlobalStep
from luthier.core.errors import DataError, SettingsError
from luthier.corpus.steps import own
from luthier.corpus.steps.own import OwnStep
from luthier.corpus.steps.own_file import read_own_file


def _columns(*answers: str) -> Columns:
    return {
        "id": [f"web#{at}" for at in range(len(answers))],
        "source": ["web-2"] * len(answers),
        "origin": [f"web.jsonl:{at + 1}" for at in range(len(answers))],
        "messages": [[{"role": "assistant", "content": answer}] for answer in answers],
    }


def _step(folder: Path, text: str, name: str = "own", **settings: Any) -> OwnStep:
    path = folder / "steps.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return OwnStep.of(read_own_file(path), name, settings)


def _body(folder: Path, body: str) -> OwnStep:
    """Return a step of columns that does this."""
    head = (
        "from luthier.contracts.corpus_step import Drop, StepResult\nimport numpy as np\n"
        "def own(columns):\n    ids = columns['id']\n"
    )
    return _step(folder, head + textwrap.indent(textwrap.dedent(body), "    "))


def test_the_examples_of_the_head_of_the_module_work(tmp_path: Path):
    lines = (own.__doc__ or "").splitlines()
    text = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    step = _step(tmp_path, text, "no_poems", max_lines=2)
    result = step(_columns("a\nb", "a\nb\nc", "a"))
    assert result.columns["id"] == ["web#0", "web#2"]
    assert result.drops == [Drop("web#1", "no_poems", "3 lines")]
    assert not _step(tmp_path, text, "no_poems")(_columns("a\nb\nc")).drops
    result = _step(tmp_path, text, "short_names")(_columns("a"))
    assert (result.columns["source"], result.drops) == (["web"], [])


def test_what_a_filter_returns(tmp_path: Path):
    text = """
        import numpy as np
        VERDICTS = {"a": None, "b": True, "c": False, "d": "too odd", "e": "", "f": np.bool_(0)}
        def own(row):
            return VERDICTS[row["messages"][0]["content"]]
    """
    result = _step(tmp_path, text)(_columns(*"abcdef"))
    assert result.columns["id"] == ["web#0", "web#1"]
    assert [(drop.reason, drop.detail) for drop in result.drops] == [
        ("own", "own returned False"),
        ("own", "too odd"),
        ("own", "own returned ''"),
        ("own", "own returned False"),
    ]


def test_a_filter_that_returns_something_else(tmp_path: Path):
    step = _step(tmp_path, "\ndef own(row):\n    return 1\n")
    with pytest.raises(
        DataError, match=r"the filter own returned 1 for the row web#0 \(web.js"
    ) as e:
        step(_columns("a"))
    assert str(tmp_path / "steps.py") + ":2: " in str(e.value)


def test_neither_kind_changes_the_rows_that_it_is_given(tmp_path: Path):
    columns = _columns("a", "b")
    _step(tmp_path, "def own(row):\n    row['messages'][0]['content'] = 'x'\n")(columns)
    changed = _body(
        tmp_path,
        """
        for turns in columns["messages"]:
            turns[0]["content"] = "x"
        return StepResult(columns)
        """,
    )(columns)
    assert columns == _columns("a", "b")
    assert changed.columns["messages"] == [[{"role": "assistant", "content": "x"}]] * 2


def test_a_step_changes_adds_and_drops(tmp_path: Path):
    step = _body(
        tmp_path,
        """
        columns["size"] = [1, 2]
        last = {name: values[1:] for name, values in columns.items()}
        return StepResult(last, [Drop(ids[0], "first", "it is the first")])
        """,
    )
    result = step(_columns("a", "b"))
    assert result.columns["size"] == [2]
    assert [drop.reason for drop in result.drops] == ["first"]
    assert step(_columns()).columns == _columns()
    assert not isinstance(step, GlobalStep)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return columns", "returned dict and not a StepResult"),
        ("return StepResult(ids)", "whose columns are no dict"),
        ("return StepResult(columns, ids)", "whose drops are no Drop"),
        ("del columns['messages']\nreturn StepResult(columns)", "lost the column messages"),
        ("del columns['id']\nreturn StepResult(columns)", "lost the column id"),
        (
            "return StepResult({**columns, 'x': np.ones(4)})",
            "returned the column x as ndarray and not a list",
        ),
        (
            "return StepResult({**columns, 'x': [1]})",
            "columns of different lengths: id has 4, x 1",
        ),
        (
            "return StepResult({**columns, 'id': [name + '!' for name in ids]})",
            "was not given, or changed ids: web#0!, web#1!, web#2! and 1 more",
        ),
        (
            "return StepResult(columns, [Drop('web#9', 'x', 'x')])",
            "returned rows that it was not given, or changed ids: web#9",
        ),
        (
            "return StepResult({n: v + v[:1] for n, v in columns.items()})",
            "returned rows twice, or kept and dropped: web#0",
        ),
        (
            "return StepResult(columns, [Drop(ids[1], 'x', 'x')])",
            "returned rows twice, or kept and dropped: web#1",
        ),
        (
            "return StepResult({n: v[1:] for n, v in columns.items()})",
            "lost rows without a Drop: web#0",
        ),
        (
            "return StepResult({n: v[::-1] for n, v in columns.items()})",
            "changed the order of the rows",
        ),
    ],
)
def test_a_step_that_breaks_its_contract(tmp_path: Path, body: str, message: str):
    with pytest.raises(DataError, match=f"the step own .*{message}") as caught:
        _body(tmp_path, body)(_columns("a", "b", "c", "d"))
    assert "steps.py:3: the step own" in str(caught.value)


def test_a_function_that_raises_names_its_line_and_the_row(tmp_path: Path):
    text = """\
        def inner(text):
            return 1 / len(text)

        def own(row):
            inner(row["messages"][0]["content"])
    """
    with pytest.raises(DataError) as caught:
        _step(tmp_path, text)(_columns("a", ""))
    assert str(caught.value).startswith(
        f"{tmp_path / 'steps.py'}:2: the step own failed on the row web#1 (web.jsonl:2): "
        "ZeroDivisionError: division by zero\n  Mend the function"
    )
    with pytest.raises(
        DataError, match=r"on a batch of 2 rows from the row web#0 \(web.jsonl:1\): "
    ) as e:
        _body(tmp_path, "return columns['texts']")(_columns("a", "b"))
    assert "steps.py:5: the step own failed" in str(e.value)
    assert "KeyError: 'texts'" in str(e.value)


def test_the_step_crosses_a_process_border(tmp_path: Path):
    step = _step(tmp_path, "def own(row, least=1):\n    return len(row['messages']) > least\n")
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(step, _columns("a")).result(timeout=60) == step(_columns("a"))


def test_a_file_that_has_changed_since_the_plan(tmp_path: Path):
    step = _step(tmp_path, "def own(row): ...\n")
    changed = _step(tmp_path, "def own(row): return False\n")
    with pytest.raises(DataError, match="the file has changed since the step own was planned"):
        step(_columns("a"))
    assert len(changed(_columns("a")).drops) == 1
    assert len(OwnStep(step.path, "own")(_columns("a")).drops) == 1


def test_settings_are_checked_when_the_step_is_built(tmp_path: Path):
    with pytest.raises(SettingsError, match="the step own has no setting lest") as caught:
        _step(tmp_path, "def own(row, least=1): ...\n", lest=2)
    assert "Did you mean least?" in str(caught.value)

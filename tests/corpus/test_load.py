from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Conversation, Corpus, Message, Origin, Record, Rejection
from luthier.core.errors import DataError, SettingsError
from luthier.corpus.load import (
    check_tasks,
    load_corpus,
    load_documents,
    load_prompts,
    write_rejected,
)
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.split import length_strata, split_rows

_DATA = Path(__file__).parents[2].parent / "shared" / "data"
_SKIP = CorpusSettings(on_bad_row="skip")


def _alpaca(number: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"q{number}", "input": "", "output": f"a{number}", **more}


def _load(
    *paths: Path, settings: CorpusSettings | None = None, **options: Any
) -> Corpus[Conversation]:
    sources = [Source(str(path), path=path) for path in paths]
    return load_corpus(sources, settings or CorpusSettings(), **options)


def test_fields_that_nothing_is_read_from_are_counted(write_rows):
    path = write_rows("a.jsonl", [_alpaca(0, id=7), _alpaca(1, id=8, sytem="s"), _alpaca(2)])
    assert _load(path).unused == {"id": 2, "sytem": 1}


def test_files_in_order_and_formats_mixed_within_a_file(write_rows):
    mixed: list[Any] = [_alpaca(0), {"question": "q1", "answer": "a1"}]
    mixed.append(
        {"conversations": [{"from": "human", "value": "q2"}, {"from": "gpt", "value": "a2"}]}
    )
    first, second = write_rows("b.jsonl", mixed), write_rows("a.json", [_alpaca(3)])
    corpus = _load(first, second)
    assert [row.messages[0].content for row in corpus.conversations] == ["q0", "q1", "q2", "q3"]
    assert [str(row.origin) for row in corpus.conversations] == [
        *(f"{first}:{line}" for line in (1, 2, 3)),
        f"{second}:2",
    ]
    assert corpus.formats == {"alpaca": 2, "question_answer": 1, "sharegpt": 1}
    assert (corpus.num_rows_read, corpus.rejections) == (4, [])


def test_each_row_that_leaves_is_counted_by_its_reason(write_bytes):
    lines = [
        json.dumps(_alpaca(0)),
        "{broken",
        json.dumps({"instruction": "q", "output": None}),
        json.dumps({"instruction": "q"}),
        json.dumps(_alpaca(1, output=" ")),
        json.dumps({"text": "x"}),
        json.dumps(_alpaca(2)),
    ]
    path = write_bytes("a.jsonl", "\n".join(lines).encode())
    corpus = _load(path, settings=_SKIP)
    assert [row.messages[0].content for row in corpus.conversations] == ["q0", "q2"]
    assert [(r.reason, r.origin.line) for r in corpus.rejections] == [
        ("not_json", 2),
        ("wrong_type", 3),
        ("missing_field", 4),
        ("short_answer", 5),
        ("unknown_format", 6),
    ]
    assert corpus.num_rows_read == 7
    assert corpus.rejections[1].content == lines[2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"a\.jsonl:2: the line is not valid JSON: .*\n.*or set on_bad_row: skip"),
        ('{"instruction": "q"}', r"a\.jsonl:2: the field output is missing .*\n.*on_bad_row: skip"),
        ('{"text": "q"}', r"a\.jsonl:2: the fields of the row .*\n.*on_bad_row: skip"),
    ],
)
def test_bad_row_ends_the_run_unless_told_otherwise(write_bytes, line: str, message: str):
    path = write_bytes("a.jsonl", f"{json.dumps(_alpaca(0))}\n{line}\n".encode())
    with pytest.raises(DataError, match=message):
        _load(path)
    assert len(_load(path, settings=_SKIP).conversations) == 1


def test_filter_drops_never_end_the_run(write_rows):
    path = write_rows("a.json", [_alpaca(0), _alpaca(1, output="long enough")])
    corpus = _load(path, settings=CorpusSettings(min_answer_chars=6))
    assert corpus.num_dropped() == {"short_answer": 1}
    assert len(corpus.conversations) == 1


@pytest.mark.parametrize("settings", [CorpusSettings(), _SKIP])
@pytest.mark.parametrize("num_rows", [1, 5, 50])
def test_file_of_no_known_format_is_an_error_whatever_becomes_of_bad_rows(
    write_rows, settings: CorpusSettings, num_rows: int
):
    good = write_rows("a.json", [_alpaca(0)])
    path = write_rows("b.jsonl", [{"text": "x", "url": "y"}] * num_rows)
    with pytest.raises(DataError, match=r"b\.jsonl:1: .*\(found: text, url\)") as caught:
        _load(good, path, settings=settings)
    assert '{"instruction": "...", "input": "...", "output": "..."}' in str(caught.value)


def test_wrong_encoding_ends_the_run_even_where_rows_are_skipped(write_bytes):
    path = write_bytes("a.jsonl", '{"instruction": "今天天气", "output": "很好"}'.encode("gbk"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: the file is not UTF-8"):
        _load(path, settings=_SKIP)


def test_nothing_left(write_rows):
    rows = [_alpaca(0, output=""), _alpaca(1, output=""), {"instruction": "q", "output": 5}]
    with pytest.raises(DataError) as caught:
        _load(write_rows("a.json", rows), settings=_SKIP)
    assert caught.value.problem == (
        "none of the 3 rows can be trained on: 2 short_answer, 1 wrong_type"
    )
    assert caught.value.mend is not None
    assert "Lower min_answer_chars" in caught.value.mend
    assert "a.json:2: the answer has 0 characters" in caught.value.mend


def test_declared_columns_and_a_drawn_share(write_rows):
    path = write_rows("a.json", [{"q": f"q{number}", "a": "x"} for number in range(20)])
    source = Source(
        "named", path, format="alpaca", columns={"prompt": "q", "response": "a"}, num_samples=5
    )
    corpus = load_corpus([source], CorpusSettings(), seed=1)
    asked = [row.messages[0].content for row in corpus.conversations]
    assert len(asked) == 5
    assert asked == sorted(asked, key=lambda text: int(text[1:]))
    assert corpus.num_dropped() == {"not_sampled": 15}
    assert corpus.num_rows_read == 20
    again = load_corpus([source], CorpusSettings(), seed=2)
    assert [row.messages[0].content for row in again.conversations] != asked
    more = Source("named", path, format="alpaca", columns=source.columns, num_samples=21)
    with pytest.raises(DataError, match="named: num_samples is 21, and there are 20 usable rows"):
        load_corpus([more], CorpusSettings())


def test_settings_for_tasks_that_would_do_nothing(write_rows):
    path = write_rows("a.json", [_alpaca(0, kind="math"), _alpaca(1, kind="code"), _alpaca(2)])

    def check(**given: Any) -> Corpus[Conversation]:
        settings = CorpusSettings(**given)
        corpus = _load(path, settings=settings)
        check_tasks(corpus, settings)
        return corpus

    corpus = check(task_column="kind", task_weights={"math": 0.5})
    assert [(row.task, row.weight) for row in corpus.conversations] == [
        ("math", 0.5),
        ("code", 1),
        (None, 1),
    ]
    check()
    with pytest.raises(SettingsError, match="task_column: no row has a field kin"):
        check(task_column="kin")
    with pytest.raises(SettingsError, match=r"no row has the task 'maths'\n  Did you mean math\?"):
        check(task_column="kind", task_weights={"maths": 0.5})


def test_category_only_where_a_split_needs_it(write_rows):
    path = write_rows("a.json", [_alpaca(0, kind="x"), _alpaca(1)])
    assert len(_load(path, settings=CorpusSettings(stratify_by="kind")).conversations) == 2
    settings = CorpusSettings(stratify_by="kind", val_size=0.5)
    with pytest.raises(DataError, match=r"the field kind \(stratify_by\) is missing"):
        _load(path, settings=settings)


def test_prompts(write_bytes):
    lines = '{"prompt": "a"}\n\n{"instruction": "b", "input": "c"}\n'
    path = write_bytes("p.jsonl", lines.encode())
    assert load_prompts(path) == [
        (Origin(str(path), 0, 1), (Message("user", "a"),)),
        (Origin(str(path), 1, 3), (Message("user", "b\nc"),)),
    ]
    with pytest.raises(DataError, match=r"q\.jsonl:2: no field holds a prompt"):
        load_prompts(write_bytes("q.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n'))
    with pytest.raises(DataError, match=r"r\.jsonl:1: the row is the number 5") as caught:
        load_prompts(write_bytes("r.jsonl", b"5\n"))
    assert "on_bad_row" not in str(caught.value)


def test_rejected_rows_are_written_whole(tmp_path: Path):
    rejections = [
        Rejection(Origin("天.jsonl", 4, 5), "nan", "NaN is bad", '{"a": NaN}'),
        Rejection(Origin("b.parquet", 0), "wrong_type", "output is null"),
    ]
    write_rejected(tmp_path / "out" / "rejected.jsonl", rejections)
    text = (tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8")
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "file": "天.jsonl",
        "line": 5,
        "row": 4,
        "reason": "nan",
        "detail": "NaN is bad",
        "content": '{"a": NaN}',
    }
    assert (second["line"], second["row"]) == (None, 0)
    write_rejected(tmp_path / "none.jsonl", [])
    assert (tmp_path / "none.jsonl").read_text() == ""


def test_reading_files_loads_nothing_heavy(write_rows):
    path = write_rows("a.jsonl", [_alpaca(0)])
    code = (
        "import sys; from pathlib import Path; from luthier.corpus.load import load_corpus; "
        "from luthier.corpus.sources import resolve_train; "
        "from luthier.corpus.settings import CorpusSettings as S; "
        "s = S(train_file=sys.argv[1]); load_corpus(resolve_train(s), s); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _documents(
    path: Path, settings: CorpusSettings | None = None, **options: Any
) -> Corpus[Record]:
    source = Source(str(path), path=path, **options)
    return load_documents([source], settings or CorpusSettings())


def test_documents_of_each_kind_of_file(write_rows, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ["one\ntwo", "  three ", "狗"]
    pq.write_table(pa.table({"text": texts, "url": ["a", "b", "c"]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('text,url\n"one\ntwo",a\n  three ,b\n狗,c\n', "utf-8")
    (tmp_path / "a.txt").write_text("one\n\n  three \n狗", "utf-8")
    jsonl = write_rows("a.jsonl", [{"text": text, "url": "u"} for text in texts])
    for path in (jsonl, tmp_path / "a.csv", tmp_path / "a.parquet"):
        corpus = _documents(path)
        assert [row.text for row in corpus.conversations] == texts
        assert corpus.unused == {"url": 3}
        assert corpus.formats == {"text": 3}
    lines = _documents(tmp_path / "a.txt")
    assert [row.text for row in lines.conversations] == ["one", "  three ", "狗"]
    assert [row.origin.line for row in lines.conversations] == [1, 3, 4]


def test_the_field_of_a_document_can_be_declared(write_rows):
    path = write_rows("a.jsonl", [{"body": "a", "text": "b"}, {"body": "c"}])
    assert [row.text for row in _documents(path, columns={"text": "body"}).conversations] == [
        *("a", "c")
    ]
    with pytest.raises(DataError, match=r"a\.jsonl:2: the field body is missing"):
        _documents(write_rows("a.jsonl", [{"body": "a"}, {"x": "c"}]), columns={"text": "body"})


def test_blank_documents_are_dropped_and_counted(write_rows):
    rows = [{"text": text} for text in ("", "a", " \n\t ", "　")]
    corpus = _documents(write_rows("a.jsonl", rows))
    assert corpus.num_dropped() == {"empty_text": 3}
    assert (corpus.num_rows_read, len(corpus.conversations)) == (4, 1)
    with pytest.raises(DataError, match=r"none of the 2 rows can be trained on: 2 empty_text"):
        _documents(write_rows("b.jsonl", [{"text": ""}, {"text": " "}]))


def test_rows_without_a_document_are_refused_or_counted(write_rows):
    rows = [_alpaca(0), {"text": "a"}, {"text": 3}, {"body": "b"}]
    path = write_rows("a.jsonl", rows)
    message = (
        r"a\.jsonl:1: the row holds no document .*\(found: instruction, input, output\)"
        r"\n.*columns: \{text: FIELD\}.*stage: sft"
    )
    with pytest.raises(DataError, match=message):
        _documents(path)
    skipped = _documents(path, _SKIP)
    assert [row.text for row in skipped.conversations] == ["a"]
    assert skipped.num_dropped() == {"unknown_format": 2, "wrong_type": 1}
    with pytest.raises(DataError, match="the row holds no document"):
        _documents(write_rows("b.jsonl", [_alpaca(0)] * 11), _SKIP)


def test_documents_of_broken_files(tmp_path: Path):
    for name, content, message in (
        ("empty.txt", b"", "empty"),
        ("blank.txt", b" \n\t\n\n", "nothing but blank lines"),
        ("latin.txt", "caf\xe9 au lait\n".encode("latin-1") * 9, "UTF-8"),
        ("half.jsonl", b'{"text": "a"}\n{"text": "b', "cut off"),
        ("surrogate.jsonl", b'{"text": "\\ud83d"}\n', "surrogate"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            _documents(path)


@pytest.mark.skipif(not _DATA.is_dir(), reason="the real data are not on this machine")
def test_real_documents():
    assert len(_documents(_DATA / "wiki_demo.txt").conversations) == 30
    assert len(_documents(_DATA / "c4_demo.jsonl").conversations) == 300


@pytest.mark.skipif(not _DATA.is_dir(), reason="the real data are not on this machine")
@pytest.mark.parametrize(
    ("name", "num_rows", "num_short"),
    [
        ("alpaca_en_demo.json", 999, 5),
        ("alpaca_zh_demo.json", 1000, 5),
        ("gpteacher_roleplay.json", 3146, 0),
        ("gsm8k_test.jsonl", 1319, 0),
    ],
)
def test_real_data(name: str, num_rows: int, num_short: int):
    settings = CorpusSettings(min_answer_chars=6)  # the lecture's filter
    corpus = _load(_DATA / name, settings=settings)
    assert corpus.num_rows_read == num_rows
    assert corpus.num_dropped() == ({"short_answer": num_short} if num_short else {})
    keys = [row.key() for row in corpus.conversations]
    split = split_rows(keys, length_strata([len(key) for key in keys]), 0.02, 42)
    assert len(split.val) == int(len(keys) * 0.02 + 0.5)
    assert not {keys[row] for row in split.val} & {keys[row] for row in split.train}


@pytest.mark.skipif(not _DATA.is_dir(), reason="the real data are not on this machine")
def test_real_data_of_other_stages():
    with pytest.raises(DataError, match=r"c4_demo\.jsonl:1: .*\(found: text\)"):
        _load(_DATA / "c4_demo.jsonl")
    with pytest.raises(DataError, match=r"dpo_en_demo\.json:2: .* chosen and rejected"):
        _load(_DATA / "dpo_en_demo.json")

"""Every fault of a data file against every reader, through every way in.

The tables say all: what is wrong, and what becomes of it in each kind of file. `READ` means that
all rows are read as they were meant; anything else is a pattern of the answer that the user gets,
which begins with the line that it names. A place and a mend are asked of each answer.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import LuthierError
from luthier.corpus.bad_rows import MENDS
from luthier.corpus.load import load_corpus
from luthier.corpus.read import read_batches
from luthier.corpus.readers.dispatch import READERS
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import Source, resolve_train, resolve_val

READ = "all rows are read"
ABSENT = "this fault can't be in such a file"
LEFT_OUT = "the row is left out and counted, whatever `on_bad_row` says; "

# A file of two rows; the second one is where the fault goes.
FRAMES = {
    ".json": '[\n{"text": "one"},\n{"text": "VALUE"}\n]\n',
    ".jsonl": '{"text": "one"}\n{"text": "VALUE"}\n',
    ".ndjson": '{"text": "one"}\n{"text": "VALUE"}\n',
    ".csv": "text\none\nVALUE\n",
    ".txt": "one\nVALUE\n",
}
LINE = {".json": 3, ".jsonl": 2, ".ndjson": 2, ".csv": 3, ".txt": 2}
PACKINGS = ("", ".gz", ".zst")
WAYS_IN = ("train_file", "val_file", "dataset_info", "sources")

CHINESE = "请把下面的句子翻译成英文：今天的天气很好"
TRADITIONAL = "請把下面的句子翻譯成英文：今天的天氣很好"
LONG = "0123456789天" * (30 << 20 >> 4)
DEEP = "[" * 100_000 + "]" * 100_000

Make = Callable[[str], str | bytes]


def put(value: str) -> Make:
    """Return what puts a value into the second row."""
    return lambda kind: FRAMES[kind].replace("VALUE", value)


def row(value: str) -> Make:
    """Return what puts something in place of the second row of a JSON file."""
    return lambda kind: FRAMES[kind].replace('{"text": "VALUE"}', value)


def encoded(codec: str, text: str = CHINESE) -> Make:
    return lambda kind: FRAMES[kind].replace("VALUE", text).encode(codec)


def spoiled(change: Callable[[str], str | bytes]) -> Make:
    return lambda kind: change(FRAMES[kind].replace("VALUE", "天"))


def cut(kind: str) -> str:
    """Return a file that ends in the middle of the second value."""
    return FRAMES[kind].partition("LUE")[0]


# Fault: (how it is made, {kind of file: what becomes of it}); `*` stands for the other kinds.
# @ stands for the line of the second row.
BYTES: dict[str, tuple[Make, dict[str, str]]] = {
    "GBK": (encoded("gbk"), {"*": r"@: the file is not UTF-8 \(.*\), it is probably GBK"}),
    "Big5": (encoded("big5", TRADITIONAL), {"*": r"@: .*, it is probably BIG5"}),
    "UTF-16": (encoded("utf-16"), {"*": "1: the file is not UTF-8, it is probably UTF-16$"}),
    "UTF-16LE": (encoded("utf-16le"), {"*": "1: the file is not UTF-8, .* UTF-16LE$"}),
    "UTF-16BE": (encoded("utf-16be"), {"*": "1: the file is not UTF-8, .* UTF-16BE$"}),
    "UTF-32": (encoded("utf-32"), {"*": "1: the file is not UTF-8, .* UTF-32$"}),
    "byte order mark": (spoiled(lambda text: "\ufeff" + text), {"*": READ}),
    "CRLF": (spoiled(lambda text: text.replace("\n", "\r\n")), {"*": READ}),
    "bare CR": (
        spoiled(lambda text: text.replace("\n", "\r")),
        {
            ".json": READ,
            ".csv": "1: the header is not valid csv",
            ".txt": "1: the lines end in bare carriage returns",
            "*": "1: text after the end of the object",
        },
    ),
    "no line end at the end": (spoiled(str.rstrip), {"*": READ}),
    "blank lines": (
        spoiled(lambda text: text.replace("\n", "\n\n\r\n")),
        {"*": READ},
    ),
    "cut in a character": (
        spoiled(lambda text: text.encode()[: text.encode().index("天".encode()) + 2]),
        {"*": "@: the file ends in the middle of "},
    ),
    # Plain text that is cut is plain text: nothing in the file tells it.
    "cut in a row": (
        cut,
        {".csv": READ, ".txt": READ, "*": "@: the file ends in the middle of "},
    ),
    "zero byte": (put("x\0y"), {"*": "@: zero bytes at byte "}),
    "half a surrogate pair": (
        spoiled(lambda text: text.replace("天", "\ud83d").encode("utf-8", "surrogatepass")),
        {"*": "@: .*not UTF-8"},
    ),
    "half a pair, escaped": (
        put(r"\ud83d"),
        {".csv": READ, ".txt": READ, "*": "@: half of a surrogate pair"},
    ),
    "one line of 30 MB": (put(LONG), {"*": READ}),
    "empty": (lambda _: b"", {"*": "None: the file (is empty|holds n)"}),
    "white space": (
        lambda _: " \n\t\r\n\n",
        {
            ".json": "None: the file is empty",
            ".csv": "1: column 1 has no name",
            "*": "None: the file holds nothing but blank lines",
        },
    ),
    "a byte order mark alone": (
        lambda _: b"\xef\xbb\xbf",
        {"*": "None: the file (is empty|holds)"},
    ),
}
ROWS: dict[str, tuple[Make, dict[str, str]]] = {
    "same key twice": (
        row('{"text": "a", "text": "b"}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: the field text stands 2 times in one object"},
    ),
    "same column twice": (
        lambda _: "text,text\na,b\n",
        {".csv": "1: the column 'text' stands twice", "*": ABSENT},
    ),
    "a number for a row": (
        row("5"),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: the row is the number 5, not an object"},
    ),
    "text for a row": (row('"x"'), {".csv": ABSENT, ".txt": ABSENT, "*": "@: the row is text"}),
    "null for a row": (row("null"), {".csv": ABSENT, ".txt": ABSENT, "*": "@: the row is null"}),
    "a list for a row": (row("[]"), {".csv": ABSENT, ".txt": ABSENT, "*": "@: the row is a list"}),
    "a list of texts": (
        row('{"text": ["a"]}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: text is a list, text is needed"},
    ),
    "a number for text": (
        row('{"text": 5}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: text is the number 5, text is needed"},
    ),
    "null for text": (
        row('{"text": null}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: text is null, text is needed"},
    ),
    "NaN": (
        row('{"text": NaN}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: NaN is not a JSON value"},
    ),
    "a missing field": (
        row('{"txt": "x"}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: the fields of the row are those of no format"},
    ),
    "a missing value": (
        lambda _: "text,b\none,1\ntwo\n",
        {".csv": "@: 1 values for 2 columns", "*": ABSENT},
    ),
    "a value too many": (
        lambda _: "text\none\ntwo,3\n",
        {".csv": "@: 2 values for 1 columns", "*": ABSENT},
    ),
    "an open quote": (
        lambda _: 'text\none\n"two\n',
        {".csv": "@: a quote that opens .* is never closed", "*": ABSENT},
    ),
    "an extra field": (
        row('{"text": "VALUE", "note": {"a": [1, null]}}'),
        {".csv": ABSENT, ".txt": ABSENT, "*": READ},
    ),
    "nested 100,000 deep": (
        row('{"text": ' + DEEP + "}"),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: .* is not valid JSON: "},
    ),
    "nested 100,000 deep, never closed": (
        row('{"text": ' + "[" * 100_000),
        {".csv": ABSENT, ".txt": ABSENT, "*": "@: .*(is not valid JSON: |ends in the middle)"},
    ),
    "blank text": (put("  "), {".txt": ABSENT, "*": f"{LEFT_OUT}@: the text is blank"}),
}
"""Faults of one row. What is JSON in a JSON file is text in a table and in a plain text."""


def name_of(kind: str, packing: str = "") -> str:
    return f"a{kind}{packing}"


def pack(data: bytes, packing: str) -> bytes:
    if packing == ".gz":
        return gzip.compress(data, 9)
    if packing == ".zst":
        zstandard = pytest.importorskip("zstandard")
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


def sources_of(path: Path, way_in: str, on_bad_row: str) -> tuple[list[Source], CorpusSettings]:
    """Return the sources of a file, named in one of the ways in which a user can name it."""
    shared: dict[str, Any] = {"on_bad_row": on_bad_row, "min_answer_chars": 0}
    if way_in == "dataset_info":
        info = {"rows": {"file_name": path.name}}
        (path.parent / "dataset_info.json").write_text(json.dumps(info))
        settings = CorpusSettings(dataset="rows", dataset_dir=str(path.parent), **shared)
        return resolve_train(settings, any_kind=True), settings
    if way_in == "val_file":
        good = path.parent / "good.jsonl"
        good.write_text('{"text": "good"}\n')
        settings = CorpusSettings(train_file=str(good), val_file=str(path), **shared)
        return resolve_val(settings, any_kind=True), settings
    named = {"sources": [{"path": str(path)}]} if way_in == "sources" else {"train_file": str(path)}
    settings = CorpusSettings.model_validate({**named, **shared})
    return resolve_train(settings, any_kind=True), settings


def outcome(
    path: Path, way_in: str = "train_file", on_bad_row: str = "skip"
) -> tuple[list[Any], list[str]]:
    """Return the texts that were read, and `line: what` of all that was not.

    Each answer must name the file and a mend.
    """
    texts: list[Any] = []
    answers: list[str] = []
    ended: LuthierError | None = None
    try:
        sources, settings = sources_of(path, way_in, on_bad_row)
        for result, came in read_batches(sources, settings, seed=0):
            texts += result.columns["text"]
            origins = dict(zip(came["id"], came["origin"], strict=True))
            for drop in result.drops:
                assert MENDS[drop.reason]
                answers.append(f"{_line(origins[drop.id], path)}: {drop.detail}")
    except LuthierError as error:
        ended = error
    if ended is not None and not ended.problem.startswith("none of the "):
        assert ended.mend
        answers.append(f"{_line(ended.where or ended.problem, path)}: {ended.problem}")
    return texts, answers


def _line(where: str, path: Path) -> str | None:
    """Return the line that a place names; the place must be in the file."""
    assert path.name in where or path.parent.name in where, where
    found = re.search(rf"{re.escape(path.name)}:(\d+)$", where)
    return found[1] if found else None


def expectation(becomes: dict[str, str], kind: str) -> str:
    return becomes.get(kind, becomes["*"]).replace("@", str(LINE[kind]))


def check(path: Path, expected: str, way_in: str = "train_file") -> None:
    """Read a file with both policies, and compare with what the table says."""
    texts, answers = outcome(path, way_in)
    if expected == READ:
        assert answers == []
        assert len(texts) == 2
        return
    is_left_out, expected = expected.startswith(LEFT_OUT), expected.removeprefix(LEFT_OUT)
    assert len(answers) == 1, (texts, answers)
    assert re.match(expected, answers[0], re.DOTALL), answers
    texts, answers = outcome(path, way_in, "error")
    assert texts == (["one"] if is_left_out else []), "else the run ends before its first batch"
    assert re.match(expected, answers[0], re.DOTALL), answers


def test_the_tables_have_every_reader():
    assert {*FRAMES, ".parquet"} == set(READERS)
    for _, becomes in (*BYTES.values(), *ROWS.values()):
        assert all(kind in becomes or "*" in becomes for kind in FRAMES)
        assert set(becomes) <= {*FRAMES, "*"}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("fault", BYTES)
def test_bytes(tmp_path: Path, fault: str, kind: str, packing: str):
    make, becomes = BYTES[fault]
    data = make(kind)
    path = tmp_path / name_of(kind, packing)
    path.write_bytes(pack(data if isinstance(data, bytes) else data.encode(), packing))
    check(path, expectation(becomes, kind))


POSSIBLE = [
    (fault, kind)
    for fault, (_, becomes) in ROWS.items()
    for kind in FRAMES
    if expectation(becomes, kind) != ABSENT
]


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize(("fault", "kind"), POSSIBLE)
def test_rows(tmp_path: Path, fault: str, kind: str, way_in: str):
    make, becomes = ROWS[fault]
    path = tmp_path / name_of(kind)
    path.write_text(str(make(kind)))
    check(path, expectation(becomes, kind), way_in)


@pytest.mark.parametrize("way_in", WAYS_IN[1:])
@pytest.mark.parametrize("fault", ["GBK", "UTF-16", "zero byte", "cut in a character", "empty"])
def test_bytes_by_every_way_in(tmp_path: Path, fault: str, way_in: str):
    make, becomes = BYTES[fault]
    for kind in FRAMES:
        data = make(kind)
        path = tmp_path / name_of(kind)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        check(path, expectation(becomes, kind), way_in)


def unreadable(path: Path) -> None:
    path.write_text(FRAMES[".jsonl"])
    path.chmod(0)


PLACES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (os.mkfifo, "None: this is a pipe or a device, not an ordinary file"),
    "a folder": (Path.mkdir, "None: the folder holds no data file"),
    "nothing": (lambda path: None, "None: no such file or folder"),
    "a link to nothing": (
        lambda path: path.symlink_to(path.with_name("gone")),
        "None: this is a link to .*gone, which is not there",
    ),
    "a link in a circle": (
        lambda path: path.symlink_to(path),
        "None: this is a link to .*, which is not there",
    ),
    "a device": (
        lambda path: path.symlink_to("/dev/zero"),
        "None: this is a pipe or a device, not an ordinary file",
    ),
    "a closed file": (unreadable, "None: the file can't be read: Permission denied"),
}


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("kind", [*FRAMES, ".parquet", ".jsonl.gz", ".csv.zst"])
@pytest.mark.parametrize("place", PLACES)
def test_places(tmp_path: Path, place: str, kind: str, way_in: str):
    if place == "a closed file" and os.geteuid() == 0:
        pytest.skip("the superuser may read what modes forbid")
    if place == "a device" and way_in == "dataset_info":
        pytest.skip("dataset_info.json can't name it: see test_security_floor.py")
    make, expected = PLACES[place]
    path = tmp_path / name_of(kind)
    make(path)
    check(path, expected, way_in)


PACKED: dict[str, tuple[Callable[[bytes, str], bytes], str]] = {
    "cut": (lambda packed, _: packed[:-9], r"\d+: the \w+ data ends early: the file was cut off"),
    "half of it": (lambda packed, _: packed[: len(packed) // 2], r"\d+: the \w+ data ends early"),
    "its first bytes": (lambda packed, _: packed[:4], r"\d+: the \w+ data ends early"),
    "not packed": (lambda packed, _: b"x" * 99, r"None: the file is not \w+, though its name"),
    "empty": (lambda packed, _: b"", "None: the file is empty"),
    "nothing in it": (lambda packed, packing: pack(b"", packing), "None: the (file|list) "),
    "noise within": (
        lambda packed, _: packed[:20] + bytes(255 - byte for byte in packed[20:40]) + packed[40:],
        r"\d+: (the \w+ data is damaged|the file is not UTF-8|.*)",
    ),
    "a bomb": (
        lambda _, packing: pack((b" " * (1 << 20) + b"\n") * 600, packing),
        r"\d+: [\d,]+ packed bytes have become [\d,]+: more than 500 times as many",
    ),
    "a bomb of one line": (
        lambda _, packing: pack(b'{"text": "' + b"x" * (600 << 20), packing),
        r"\d+: ([\d,]+ packed bytes have become [\d,]+|.* is longer than 268,435,456 bytes)",
    ),
}


@pytest.mark.parametrize("packing", PACKINGS[1:])
@pytest.mark.parametrize("fault", PACKED)
def test_packed_files(tmp_path: Path, fault: str, packing: str):
    spoil, expected = PACKED[fault]
    for kind in [".jsonl"] if "bomb" in fault else FRAMES:
        if fault == "nothing in it" and kind == ".csv":
            continue
        rows = put("".join(map(chr, range(0x4E00, 0x5000))))(kind)
        assert isinstance(rows, str)
        path = tmp_path / name_of(kind, packing)
        path.write_bytes(spoil(pack(rows.encode(), packing), packing))
        check(path, expected)


@pytest.mark.parametrize(
    ("suffix", "mend"),
    [
        (".tsv", "Known: .json, .jsonl"),
        (".arrow", "Known: .json, .jsonl"),
        (".md", "Known: .json, .jsonl"),
        (".xlsx", "Known: .json, .jsonl"),
        ("", "Known: .json, .jsonl"),
        (".jsonl.bz2", "Unpack it first"),
        (".jsonl.xz", "Unpack it first"),
        (".zip", "Unpack it first"),
        (".parquet.gz", "Unpack it first"),
        (".gz", r"Name it by what it holds, such as a\.jsonl\.gz"),
    ],
)
def test_kinds_that_are_not_read(tmp_path: Path, suffix: str, mend: str):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bz2.compress(FRAMES[".jsonl"].encode()))
    for way_in in WAYS_IN:
        with pytest.raises(LuthierError, match=r"files of the kind .* can't be read") as caught:
            sources_of(path, way_in, "error")
        assert re.match(mend, str(caught.value.mend))


class TestParquet:
    """A table has types, and no lines: what can be wrong is other."""

    def write(self, path: Path, columns: dict[str, Any]) -> Path:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table(columns), path)
        return path

    @pytest.mark.parametrize("way_in", WAYS_IN)
    def test_values(self, tmp_path: Path, way_in: str):
        path = self.write(tmp_path / "a.parquet", {"text": ["one\r\n", LONG]})
        check(path, READ, way_in)
        path = self.write(tmp_path / "a.parquet", {"text": ["one", None]})
        check(path, "None: text is null, text is needed", way_in)
        for columns in ({"text": [1, 2]}, {"text": [["a"], ["b"]]}, {"text": [0.5, float("nan")]}):
            path = self.write(tmp_path / "a.parquet", columns)
            assert all("text is needed" in said for said in outcome(path, way_in)[1])
            assert outcome(path, way_in)[0] == []

    def test_spoiled_files(self, tmp_path: Path):
        path = self.write(tmp_path / "a.parquet", {"text": ["one", "x" * 999]})
        whole = path.read_bytes()
        for spoiled in (
            whole[:-9],
            whole[9:],
            whole[: len(whole) // 2],
            b"PAR1" * 9,
            LONG.encode(),
        ):
            path.write_bytes(spoiled)
            check(path, "None: the file can't be read as parquet")
        path.write_bytes(b"")
        check(path, "None: the file is empty")

    def test_no_rows_and_columns_of_nothing(self, tmp_path: Path):
        pa = pytest.importorskip("pyarrow")
        path = self.write(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
        check(path, "None: the table has no rows")
        path = self.write(tmp_path / "a.parquet", {"txt": ["a", "b"]})
        check(path, "None: the fields of the row are those of no format")


def turns(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


USER, ANSWER = ("user", "q"), ("assistant", "a")

CHATS: dict[str, tuple[dict[str, Any], str]] = {
    "a good row": (turns(USER, ANSWER), READ),
    "an unknown role": (turns(USER, ("robot", "a")), "messages[1].role is 'robot' (known: "),
    "no role": ({"messages": [{"content": "q"}]}, "messages[0] has no role (found: content)"),
    "a role that is a number": (turns(USER, (3, "a")), "messages[1].role is the number 3, text"),
    "answer first": (turns(ANSWER, USER), "message 0 is from assistant, after the beginning"),
    "two questions": (turns(USER, USER, ANSWER), "message 1 is from user, after a user message"),
    "two answers": (turns(USER, ANSWER, ANSWER), "message 2 is from assistant, after a assistant"),
    "system in the middle": (turns(USER, ANSWER, ("system", "s"), USER, ANSWER), "message 2 is "),
    "two systems": (turns(("system", "s"), ("system", "s"), USER, ANSWER), "message 1 is from sys"),
    "no answer": (turns(USER), "there is no answer"),
    "ends with the user": (turns(USER, ANSWER, USER), "the last message is from user"),
    "no turns": ({"messages": []}, "there is no user message"),
    "turns that are text": ({"messages": "q"}, "messages is text, a list is needed"),
    "a turn that is text": ({"messages": ["q", "a"]}, "messages[0] is text, an object is needed"),
    "a blank question": (turns(("user", " "), ANSWER), "message 0 (user) is blank"),
    "a blank answer": (turns(USER, ("assistant", " \n")), "the answer has 0 characters"),
    "a blank answer within": (
        turns(USER, ("assistant", ""), USER, ANSWER),
        "message 1 (assistant)",
    ),
    "null for an answer": (turns(USER, ("assistant", None)), "messages[1].content is null, text"),
    "a number for an answer": (turns(USER, ("assistant", 4)), "messages[1].content is the number"),
    "parts of an image": (turns(("user", [{"type": "image"}]), ANSWER), "messages[0].content is a"),
    "another field for text": ({"messages": [{"role": "user", "text": "q"}]}, "messages[0] has no"),
    "no output": ({"instruction": "q"}, "the field output is missing (found: instruction)"),
    "no instruction": ({"output": "a"}, "the field instruction is missing (found: output)"),
    "null for the output": ({"instruction": "q", "output": None}, "output is null, text is needed"),
    "a number then": ({"instruction": "q", "output": 7}, "output is the number 7, text is needed"),
    "a list then": ({"instruction": "q", "output": ["a"]}, "output is a list, text is needed"),
    "an empty prompt": ({"instruction": "", "output": "a"}, "message 0 (user) is blank"),
    "an image beside": (
        {"instruction": "q", "output": "a", "images": ["x.png"]},
        "the field images would be left out of what the model sees",
    ),
    "a weight below 0": (
        {"instruction": "q", "output": "a", "weight": -1},
        "weight is the number -1, a number from 0 up is needed",
    ),
    "one of a pair": ({"prompt": "q", "chosen": "a"}, "the field response or completion or answer"),
}
IN_A_TABLE = {
    "no output": "output is null, text is needed",
    "no instruction": "instruction is null, text is needed",
    "one of a pair": "instruction is null, text is needed",
}
"""A table has each column in each row."""


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".ndjson", ".parquet"])
@pytest.mark.parametrize("fault", CHATS)
def test_chats(tmp_path: Path, fault: str, kind: str):
    bad, expected = CHATS[fault]
    path = tmp_path / name_of(kind)
    rows = [{"instruction": "q", "output": "a"}, bad]
    write_chats(path, rows)
    settings = CorpusSettings(train_file=str(path), on_bad_row="skip")
    corpus = load_corpus(resolve_train(settings), settings)
    if expected == READ:
        assert len(corpus.conversations) == 2
        return
    assert len(corpus.conversations) == 1
    (rejection,) = corpus.rejections
    expected = IN_A_TABLE.get(fault, expected) if kind == ".parquet" else expected
    assert rejection.detail.startswith(expected)
    assert rejection.reason in MENDS
    assert (rejection.origin.row, rejection.origin.file) == (1, str(path))
    assert (rejection.origin.line is None) == (kind == ".parquet")
    strict = CorpusSettings(train_file=str(path))
    if fault == "a blank answer":  # `min_answer_chars` has its own say
        assert load_corpus(resolve_train(strict), strict).num_dropped() == {"short_answer": 1}
        return
    with pytest.raises(LuthierError) as caught:
        load_corpus(resolve_train(strict), strict)
    place = " row 1" if kind == ".parquet" else f":{rejection.origin.line}"
    assert caught.value.where == f"{path}{place}"
    assert caught.value.mend


def write_chats(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps(row) for row in rows]
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        try:
            table = pa.Table.from_pylist(rows, pa.schema(pa.Table.from_pylist(rows[1:]).schema))
            first = pa.Table.from_pylist(rows[:1])
            table = pa.concat_tables([first, table.slice(1)], promote_options="permissive")
        except (pa.ArrowException, ValueError):
            pytest.skip("Arrow has no type for such rows: the fault can't be in a table")
        pq.write_table(table, path)
    elif path.suffix == ".json":
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    else:
        path.write_text("\n".join(lines) + "\n")


COMMANDS = {
    "GBK": (".jsonl", b'{"text": "' + CHINESE.encode("gbk") + b'"}\n'),
    "a pipe": (".jsonl", None),
    "deep": (".json", f'[{{"text": {DEEP}}}]'.encode()),
    "a cut gzip": (".jsonl.gz", gzip.compress(b'{"text": "x"}\n')[:-5]),
    "noise": (".parquet", bytes(range(256)) * 9),
}


@pytest.mark.parametrize("fault", COMMANDS)
def test_the_command_says_it_without_a_traceback(tmp_path: Path, fault: str):
    suffix, data = COMMANDS[fault]
    path = tmp_path / f"a{suffix}"
    if data is None:
        os.mkfifo(path)
    else:
        path.write_bytes(data)
    command = [sys.executable, "-m", "luthier", "prepare", str(path), "--out", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 3, said
    assert "Traceback" not in said
    assert path.name in said
    assert not (tmp_path / "out").exists()
    assert stat.S_IFMT(path.lstat().st_mode), "the file is as it was"

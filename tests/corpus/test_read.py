from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Origin, Record
from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.errors import DataError
from luthier.corpus import read as reading
from luthier.corpus.load import load_corpus
from luthier.corpus.read import read_batches
from luthier.corpus.readers.source import Source
from luthier.corpus.record import columns_of, records_of, to_table
from luthier.corpus.settings import CorpusSettings

_DATA = Path(__file__).parents[2].parent / "shared" / "data"
_SKIP = CorpusSettings(on_bad_row="skip")


def _alpaca(number: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"q{number}", "input": "", "output": f"a{number}", **more}


def _source(path: Path, **declared: Any) -> Source:
    return replace(Source(path.name, path=path), **declared)


class _Read:
    """All batches, joined."""

    def __init__(
        self,
        *sources: Source,
        settings: CorpusSettings = _SKIP,
        seed: int = 0,
        batch_rows: int = 1000,
    ) -> None:
        self.batches = list(read_batches(sources, settings, seed=seed, batch_rows=batch_rows))
        self.kept, self.came = self._join(0), self._join(1)
        self.drops: list[Drop] = [drop for result, _ in self.batches for drop in result.drops]
        self.formats = sum((result.counts for result, _ in self.batches), Counter[str]())

    def _join(self, side: int) -> Columns:
        joined: Columns = {}
        for result, came in self.batches:
            for name, values in (came if side else result.columns).items():
                joined.setdefault(name, []).extend(values)
        return joined


def test_rows_of_every_kind_in_the_order_of_the_names(write_rows):
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    judged = {"prompt": "q", "completion": "a", "label": True}
    b = _source(write_rows("b.jsonl", [_alpaca(0), pair, judged]))
    a = _source(write_rows("a.jsonl", [{"text": "x"}, _alpaca(1)]))
    read = _Read(b, a, settings=CorpusSettings())
    assert read.kept["id"] == ["a.jsonl#0", "a.jsonl#1", "b.jsonl#0", "b.jsonl#1", "b.jsonl#2"]
    assert read.kept["source"] == ["a.jsonl"] * 2 + ["b.jsonl"] * 3
    assert read.kept["origin"][0] == f"{a.path}:1"
    assert read.kept["text"] == ["x", None, None, None, None]
    assert read.kept["label"] == [None] * 4 + [True]
    assert [side and side[0]["content"] for side in read.kept["rejected"]] == [
        *(None, None, None, "b", None)
    ]
    assert read.formats == {
        "format_text@a.jsonl": 1,
        "format_alpaca@a.jsonl": 1,
        "format_alpaca@b.jsonl": 1,
        "format_prompt_response_preference@b.jsonl": 1,
        "format_prompt_response_kto@b.jsonl": 1,
    }
    assert read.drops == []
    assert _Read(a, b).kept == read.kept


def test_fields_that_nothing_is_read_from_are_counted(write_rows):
    a = _source(write_rows("a.jsonl", [_alpaca(0, id=7, note=""), _alpaca(1, id=8, note="x")]))
    b = _source(write_rows("b.jsonl", [{"text": "x", "id": 3}]))
    found = _Read(a, b)
    unused = {name: num for name, num in found.formats.items() if name.startswith("unused_")}
    assert unused == {"unused_id@a.jsonl": 2, "unused_note@a.jsonl": 1, "unused_id@b.jsonl": 1}


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 1000])
def test_batches_have_a_size_and_no_say(write_rows, batch_rows: int):
    sources = [
        _source(write_rows("b.jsonl", [_alpaca(n) for n in range(4)])),
        _source(write_rows("a.jsonl", [_alpaca(n, output=n % 2 * "x") for n in range(3)])),
    ]
    read = _Read(*sources, batch_rows=batch_rows)
    sizes = [len(came["id"]) for _, came in read.batches]
    assert sum(sizes) == 7
    assert set(sizes[:-1]) <= {batch_rows}
    whole = _Read(*sources)
    assert (read.kept, read.came, read.drops) == (whole.kept, whole.came, whole.drops)


def test_a_batch_of_long_rows_ends_early(write_rows, monkeypatch):
    rows: list[Any] = [_alpaca(0), {"text": "x" * 99}, _alpaca(1), {"prompt": "x" * 50}]
    rows[3] |= {"chosen": "y" * 50, "rejected": "z"}
    source = _source(write_rows("a.jsonl", [*rows, _alpaca(2)]))
    whole = _Read(source)
    monkeypatch.setattr(reading, "BATCH_CHARS", 99)
    found = _Read(source)
    assert [len(came["id"]) for _, came in found.batches] == [2, 2, 1]
    assert (found.kept, found.came, found.drops) == (whole.kept, whole.came, whole.drops)


def test_rows_that_are_left_out_are_kept_with_what_they_say(write_bytes):
    lines = [
        "{broken",
        json.dumps(_alpaca(0, output=" ")),
        json.dumps({"instruction": "q", "output": 5}),
        json.dumps(_alpaca(1)),
    ]
    read = _Read(_source(write_bytes("a.jsonl", "\n".join(lines).encode())))
    assert [(drop.id, drop.reason) for drop in read.drops] == [
        ("a.jsonl#0", "not_json"),
        ("a.jsonl#1", "short_answer"),
        ("a.jsonl#2", "wrong_type"),
    ]
    assert read.kept["id"] == ["a.jsonl#3"]
    assert read.came["id"] == [f"a.jsonl#{number}" for number in range(4)]
    assert read.came["text"] == [lines[0], None, lines[2], None]
    assert read.came["messages"][1][0]["content"] == "q0"
    assert read.formats == {"format_alpaca@a.jsonl": 1}
    for result, came in read.batches:
        to_table(result.columns)
        to_table(came)


def test_drawn_rows_are_those_that_training_draws(write_rows):
    rows = [_alpaca(number, output="x" * (number % 3)) for number in range(60)]
    source = _source(write_rows("a.jsonl", rows), num_samples=7)
    read = _Read(source, seed=3)
    corpus = load_corpus([source], _SKIP, seed=3)
    asked = [row.messages[0].content for row in corpus.conversations]
    assert [row.messages[0].content for row in records_of(read.kept)] == asked
    assert len(asked) == 7
    assert Counter(drop.reason for drop in read.drops) == corpus.num_dropped()
    assert Counter(drop.reason for drop in read.drops)["not_sampled"] == 33
    assert _Read(source, seed=4).kept != read.kept


def test_too_few_rows_to_draw_from(write_rows):
    source = _source(write_rows("a.jsonl", [_alpaca(0), {"text": 5}]), num_samples=2)
    with pytest.raises(DataError, match=r"a\.jsonl: num_samples is 2, and there are 1 usable"):
        _Read(source)


def test_prepared_rows_keep_their_origin_and_get_a_new_id(tmp_path: Path):
    import pyarrow.parquet as pq

    records = [
        Record(Origin("raw/x.jsonl", 7, 8), text="one", task="t", category="c"),
        Record(Origin("raw/y.parquet", 7), text="two", language="en", weight=0.5),
    ]
    path = tmp_path / "part-00000.parquet"
    pq.write_table(to_table(columns_of(records, ["x", "y"])), path)
    read = _Read(_source(path, name="out/train/part-00000.parquet", format="record"))
    assert read.kept["id"] == [f"out/train/part-00000.parquet#{row}" for row in (0, 1)]
    assert read.kept["origin"] == ["raw/x.jsonl:8", "raw/y.parquet row 7"]
    columns = ("text", "task", "category", "language", "weight")
    assert [read.kept[name] for name in columns] == [
        *(["one", "two"], ["t", None], ["c", None], [None, "en"], [1.0, 0.5])
    ]
    assert read.formats == {"format_record@out/train/part-00000.parquet": 2}


def test_files_of_one_name_have_ids_of_their_own(write_rows):
    sources = [
        _source(write_rows(f"{name}.jsonl", [_alpaca(0)]), name="web", part=f"{name}.jsonl")
        for name in "ba"
    ]
    read = _Read(*sources)
    assert read.kept["id"] == ["web/a.jsonl#0", "web/b.jsonl#0"]
    assert read.kept["source"] == ["web", "web"]


def test_what_is_declared_of_a_source(write_rows):
    rows = [{"q": "x", "r": "y", "topic": "z"}]
    columns = {"prompt": "q", "response": "r", "category": "topic"}
    path = write_rows("a.jsonl", rows)
    assert _Read(_source(path, columns=columns)).kept["category"] == ["z"]
    read = _Read(_source(path, columns={"text": "q"}, category="web", format="text"))
    assert (read.kept["category"], read.kept["text"]) == (["web"], ["x"])


def test_declared_field_that_no_row_has(write_rows):
    columns = {"prompt": "q", "response": "r", "system": "sytem"}
    a = _source(write_rows("a.jsonl", [{"q": "x", "r": "y", "system": "s"}]), columns=columns)
    message = r"a\.jsonl: columns: system is declared as 'sytem', and no row has .*\n.*system\?"
    with pytest.raises(DataError, match=message):
        _Read(a)
    # What is declared of a folder holds for all of its files together.
    b = _source(write_rows("b.jsonl", [{"q": "x", "r": "y", "sytem": "s"}]), columns=columns)
    assert len(_Read(a, b).kept["id"]) == 2


def test_bad_row_ends_it_where_the_user_wants_that(write_rows):
    path = write_rows("a.jsonl", [_alpaca(0), {"text": 5}])
    with pytest.raises(DataError, match=r"a\.jsonl:2: text is the number 5"):
        _Read(_source(path), settings=CorpusSettings())


def test_nothing_left(write_rows):
    rows = [_alpaca(0, output=""), _alpaca(1, output=""), {"text": " "}]
    sources = [_source(write_rows(name, rows)) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(DataError) as caught:
        _Read(*sources)
    assert caught.value.problem == (
        "none of the 6 rows can be trained on: 4 short_answer, 2 empty_text"
    )
    assert caught.value.where == f"{sources[0].path}, {sources[1].path}"
    assert caught.value.mend is not None
    assert "a.jsonl:1: the answer has 0 characters" in caught.value.mend
    assert _Read(sources[0], _source(write_rows("c.jsonl", [_alpaca(0)]))).kept["id"] == [
        "c.jsonl#0"
    ]


def test_memory_is_bounded_by_the_batch_and_not_by_the_file(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as stream:
        for number in range(4_000):
            stream.write(json.dumps(_alpaca(number, output=f"{number:08}" * 256)) + "\n")
    assert path.stat().st_size > 8e6
    for source in (_source(path), _source(path, num_samples=50)):
        num_rows = 0
        tracemalloc.start()
        for _, came in read_batches([source], _SKIP, seed=0, batch_rows=50):
            num_rows += len(came["id"])
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert num_rows == 4_000
        assert peak_bytes < 2e6


@pytest.mark.skipif(not _DATA.is_dir(), reason="the real data are not on this machine")
@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("dpo_en_demo.json", {"format_sharegpt_preference": 300}),
        ("c4_demo.jsonl", {"format_text": 300}),
        ("wiki_demo.txt", {"format_text": 30}),
        ("alpaca_en_demo.json", {"format_alpaca": 999}),
    ],
)
def test_real_data_of_every_kind(name: str, formats: dict[str, int]):
    read = _Read(_source(_DATA / name), settings=CorpusSettings())
    assert read.formats == {f"{found}@{name}": count for found, count in formats.items()}
    to_table(read.kept)

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.corpus.lengths import TokenRate
from luthier.corpus.parts import write_part
from luthier.corpus.runners import InProcess
from luthier.corpus.sides import SKETCHES, SideChoice, audit_sides, choose_sides
from luthier.corpus.steps.exact import ExactDuplicates
from luthier.corpus.steps.groups import GroupSettings
from luthier.corpus.steps.near import NearDuplicates

WORDS = [f"word{number}" for number in range(3000)]
TWIN = "the quick brown fox jumps over the lazy dog and runs far away into the dark forest "


def sentence(draw: random.Random, num_words: int = 30) -> str:
    return " ".join(draw.choices(WORDS, k=num_words))


def made(draw: random.Random, num_rows: int) -> list[tuple[str, str]]:
    return [(sentence(draw), sentence(draw)) for _ in range(num_rows)]


def parts_of(folder: Path, columns: dict[str, list[Any]], size: int = 40) -> list[Path]:
    folder.mkdir()
    paths: list[Path] = []
    for start in range(0, len(columns["id"]), size):
        paths.append(folder / f"part-{start:05}.parquet")
        part = {name: values[start : start + size] for name, values in columns.items()}
        write_part(part, paths[-1])
    return paths


def choose(parts: list[Path], val_size: float = 0.2, seed: int = 0) -> SideChoice:
    return choose_sides(parts, val_size, seed, GroupSettings(), TokenRate(), InProcess())


def test_every_row_has_a_side_and_relatives_share_it(make_columns: Any, tmp_path: Path):
    draw = random.Random(0)
    rows = made(draw, 200)
    twins = [(TWIN + sentence(draw, 3), TWIN + sentence(draw, 3)) for _ in range(8)]
    choice = choose(parts_of(tmp_path / "a", make_columns(rows + twins)))
    assert len(choice.is_val) == 208
    assert len(set(choice.is_val[200:])) == 1
    assert choice.account["audit"] == {"share": 0.0, "num_relatives": 0, "examples": []}
    assert choice.account["val"]["rows"] == sum(choice.is_val)
    assert choice.account["train"]["rows"] == 208 - sum(choice.is_val)
    assert 15 < sum(choice.is_val) < 75


def test_a_row_keeps_its_side_when_others_come(make_columns: Any, tmp_path: Path):
    rows = made(random.Random(1), 120)
    few = choose(parts_of(tmp_path / "a", make_columns(rows[:60])))
    many = choose(parts_of(tmp_path / "b", make_columns(rows)))
    assert many.is_val[:60] == few.is_val


def test_the_spread_over_parts_does_not_matter(make_columns: Any, tmp_path: Path):
    columns = make_columns(made(random.Random(2), 100))
    one = choose(parts_of(tmp_path / "a", columns, 100))
    other = choose(parts_of(tmp_path / "b", columns, 7))
    assert one == other


def test_strata_are_told_by_length_and_category(make_columns: Any, tmp_path: Path):
    draw = random.Random(3)
    rows = made(draw, 50) + [(sentence(draw, 400), sentence(draw, 400)) for _ in range(50)]
    columns = make_columns(rows, category=["short"] * 50 + ["long"] * 50)
    account = choose(parts_of(tmp_path / "a", columns)).account
    for strata in account["strata"].values():
        assert sum(stratum["rows"] for stratum in strata.values()) == 100
        assert sum(stratum["val"] for stratum in strata.values()) == account["val"]["rows"]
    assert set(account["strata"]["category"]) == {"short", "long"}
    assert list(account["strata"]["length"]) == ["65 to 128", "129 to 256", "1025 to 2048"]


def test_a_validation_file_is_audited_against_training(make_columns: Any, tmp_path: Path):
    draw = random.Random(4)
    rows = made(draw, 60)
    train = parts_of(tmp_path / "a", make_columns(rows))
    val = parts_of(tmp_path / "b", make_columns([*made(draw, 3), rows[7]], source="val.jsonl"))
    account = audit_sides(train, val, GroupSettings(), TokenRate(), InProcess())
    assert account["by"] == "val_file"
    assert account["audit"]["share"] == 0.25
    assert account["audit"]["examples"] == [
        {"val": "val.jsonl#3", "train": "a.jsonl#7", "score": 1.0}
    ]


def test_too_few_rows(make_columns: Any, tmp_path: Path):
    parts = parts_of(tmp_path / "a", make_columns([("a b c d e f g h", "i j k l m n o p q")]))
    with pytest.raises(SettingsError, match="there are 1 rows in all"):
        choose(parts)


def test_sketches_that_are_known_make_no_difference(make_columns: Any, tmp_path: Path):
    draw = random.Random(5)
    columns = make_columns([*made(draw, 60), *[(TWIN + sentence(draw, 3), TWIN)] * 4])
    parts = parts_of(tmp_path / "a", columns)
    known = {
        name: dict(zip(columns["id"], step.sketch(columns)[name], strict=True))
        for name, step in zip(SKETCHES, (ExactDuplicates(), NearDuplicates()), strict=True)
    }
    options = 0.2, 0, GroupSettings(), TokenRate(), InProcess()
    found = choose(parts)
    for some in (known, {name: known[name] for name in SKETCHES[:1]}):
        assert choose_sides(parts, *options, some) == found
    # They are not made again: other keys draw other rows.
    other = {id_: f"other {id_}" for id_ in columns["id"]}
    assert choose_sides(parts, *options, {**known, SKETCHES[0]: other}).is_val != found.is_val

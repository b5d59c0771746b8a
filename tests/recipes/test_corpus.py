"""From settings to a prepared corpus, and to the same one whatever the way to it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from luthier.core.errors import DataError, LuthierError, RunError, SettingsError
from luthier.corpus.ray_runner import RayData
from luthier.corpus.runners import InProcess, Processes, Runner
from luthier.recipes.config_flags import read_flags
from luthier.recipes.corpus import PreparedCorpus, prepare_corpus, refuse_foreign
from luthier.recipes.corpus_command import look_at_sample, resolve_prepare

WORDS = [f"word{number}" for number in range(2000)]
Prepare = Callable[..., PreparedCorpus]


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=25)) + "."


def made_rows(num_rows: int = 60, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)
    return [{"instruction": sentence(draw), "output": sentence(draw)} for _ in range(num_rows)]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files with a duplicate, a near-duplicate, an address and an empty answer."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "raw"
    folder.mkdir()
    rows = made_rows()
    near = rows[3]["output"].replace("word1", "word2", 1)
    b = [
        {**rows[0], "instruction": rows[0]["instruction"].upper()},
        {**rows[3], "output": near + " So."},
        {"instruction": "Where do I write to?", "output": "To anna.lee@mail-example.org, please."},
        {"instruction": "What is left?", "output": " "},
    ]
    write(folder / "a.jsonl", rows)
    write(folder / "b.jsonl", b)
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def prepare(raw: Path, tmp_path: Path) -> Prepare:
    def run(*flags: str, out: str | None = "out", runner: Runner | None = None) -> PreparedCorpus:
        files = [str(path) for path in sorted(raw.iterdir())]
        flags = ("--min_answer_chars", "0", *flags)
        plan = resolve_prepare(read_flags([*files, *flags], many_words=True)).plan
        folder = None if out is None else tmp_path / out
        return prepare_corpus(plan, folder, runner or InProcess(), lambda *_: None)

    return run


def dropped(corpus: PreparedCorpus) -> list[tuple[str, str, str]]:
    rows = pq.read_table(corpus.folder / "dropped.parquet").to_pylist()
    return sorted((row["step"], row["reason"], row["id"]) for row in rows)


def test_every_row_is_kept_or_dropped_with_its_reason(prepare: Prepare):
    corpus = prepare("--val_size", "0.2")
    assert dropped(corpus) == [
        ("exact", "dup_exact", "b.jsonl#0"),
        ("near", "dup_near", "a.jsonl#3"),
        ("schema", "empty_turn", "b.jsonl#3"),
    ]
    statistics, split = corpus.manifest["statistics"], corpus.manifest["split"]
    assert (statistics["before"]["rows"], statistics["after"]["rows"]) == (64, 61)
    assert split["train"]["rows"] + split["val"]["rows"] == 61
    assert split["audit"]["share"] == 0
    sides = [pq.read_table(corpus.folder / side).num_rows for side in ("train", "val")]
    assert sides == [split["train"]["rows"], split["val"]["rows"]]


def test_personal_data_is_replaced_and_counted(prepare: Prepare):
    corpus = prepare()
    (pii,) = [step for step in corpus.manifest["steps"] if step["name"] == "pii"]
    assert pii["counts"] == {"redacted_email": 1}
    rows = pq.read_table(corpus.folder / "train").to_pylist()
    (row,) = [row for row in rows if row["id"] == "b.jsonl#2"]
    assert row["messages"][1]["content"] == "To <EMAIL_1>, please."
    for path in (corpus.folder / "data.html", corpus.folder / "data.md"):
        assert "anna.lee" not in path.read_text(encoding="utf-8")


def test_the_data_version_is_the_same_for_any_way_to_it(
    prepare: Prepare, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one = prepare("--val_size", "0.2")
    versions = [one.manifest["data_version"]]
    for number, runner in enumerate((InProcess(), Processes(2), Processes(4))):
        monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / f"cache{number}"))
        again = prepare("--val_size", "0.2", out=f"again{number}", runner=runner)
        versions.append(again.manifest["data_version"])
    moved = raw.rename(tmp_path / "elsewhere")
    files = [str(moved / "b.jsonl"), str(moved / "a.jsonl")]
    flags = ["--min_answer_chars", "0", "--val_size", "0.2"]
    plan = resolve_prepare(read_flags([*files, *flags], many_words=True)).plan
    other = prepare_corpus(plan, tmp_path / "moved", InProcess(), lambda *_: None)
    versions.append(other.manifest["data_version"])
    assert len(set(versions)) == 1


def test_on_ray_the_data_version_is_the_same(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    local = prepare("--val_size", "0.2")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "ray-cache"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        on_ray = prepare("--val_size", "0.2", out="ray", runner=RayData())
    finally:
        ray.shutdown()
    assert not any(step["from_cache"] for step in on_ray.manifest["steps"])
    assert on_ray.manifest["data_version"] == local.manifest["data_version"]
    assert dropped(on_ray) == dropped(local)


def test_other_rows_settings_or_seeds_are_another_version(prepare: Prepare, raw: Path):
    versions = [
        prepare(*flags, out=f"out{number}").manifest["data_version"]
        for number, flags in enumerate(
            ([], ["--near_threshold", "0.9"], ["--val_size", "0.2"], ["--steps", "exact"])
        )
    ]
    write(raw / "c.jsonl", made_rows(2, seed=9))
    versions.append(prepare(out="more").manifest["data_version"])
    assert len(set(versions)) == 5


def test_what_is_there_is_found(prepare: Prepare):
    first = prepare()
    assert not first.from_cache
    second = prepare()
    assert second.from_cache
    assert second.manifest == first.manifest
    assert prepare("--near_threshold", "0.9").from_cache is False


def test_a_damaged_corpus_is_made_again(prepare: Prepare):
    first = prepare()
    part = first.folder / "train/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    second = prepare()
    assert not second.from_cache
    assert second.manifest["rows_sha256"] == first.manifest["rows_sha256"]


def test_only_what_changed_is_done_again(prepare: Prepare):
    prepare()
    steps = prepare("--near_threshold", "0.9", out="other").manifest["steps"]
    assert [step["name"] for step in steps if not step["from_cache"]] == ["near"]


def test_without_a_folder_it_lies_in_the_cache(prepare: Prepare, tmp_path: Path):
    corpus = prepare(out=None)
    assert corpus.folder.parent == tmp_path / "cache/corpus"


def test_a_validation_file_is_cleaned_audited_and_not_in_training(
    prepare: Prepare, raw: Path, tmp_path: Path
):
    val = tmp_path / "val.jsonl"
    rows = made_rows()
    write(val, [rows[5], *made_rows(3, seed=7), {"instruction": "empty", "output": ""}])
    steps = "schema,exact,decontaminate"
    corpus = prepare("--val_file", str(val), "--steps", steps)
    assert ("decontaminate", "leaked", "a.jsonl#5") in dropped(corpus)
    assert corpus.manifest["split"]["by"] == "val_file"
    assert corpus.manifest["split"]["val"]["rows"] == 4
    assert corpus.manifest["split"]["audit"]["num_relatives"] == 0
    unclean = prepare("--val_file", str(val), "--steps", "schema", out="unclean")
    assert unclean.manifest["split"]["audit"]["num_relatives"] == 1
    (warning,) = unclean.manifest["warnings"]
    assert "near-twin" in warning["reason"]


def test_a_step_that_drops_much_is_a_warning(prepare: Prepare, raw: Path):
    rows = made_rows(20)
    write(raw / "c.jsonl", [{**row, "category": str(n)} for n in range(3) for row in rows])
    warnings = prepare("--steps", "exact").manifest["warnings"]
    assert [warning["setting"] for warning in warnings] == ["exact"]
    assert "of 124 rows" in warnings[0]["reason"]


def test_a_mixture_by_the_weights_of_sources(raw: Path, tmp_path: Path):
    write(raw / "c.jsonl", made_rows(30, seed=5))
    config = tmp_path / "data.yaml"
    config.write_text(
        f"sources:\n  - {{path: {raw}/a.jsonl, weight: 1}}\n"
        f"  - {{path: {raw}/c.jsonl, weight: 2}}\n",
        encoding="utf-8",
    )
    plan = resolve_prepare(read_flags([str(config)], many_words=True)).plan
    assert plan.preparation.steps[-1] == "sample"
    corpus = prepare_corpus(plan, tmp_path / "out", InProcess(), lambda *_: None)
    left = {source["name"]: source["rows_left"] for source in corpus.manifest["sources"]}
    assert left == {"a.jsonl": 15, "c.jsonl": 30}


def test_weights_without_the_step_that_uses_them(raw: Path, tmp_path: Path):
    config = tmp_path / "data.yaml"
    config.write_text(
        f"steps: [exact]\nsources: [{{path: {raw}/a.jsonl, weight: 1}}]\n", encoding="utf-8"
    )
    plan = resolve_prepare(read_flags([str(config)], many_words=True)).plan
    with pytest.raises(SettingsError, match=r"steps: sources have a weight(.|\n)*Add sample"):
        prepare_corpus(plan, tmp_path / "out", InProcess(), lambda *_: None)


def test_an_own_step(prepare: Prepare, tmp_path: Path):
    own = tmp_path / "mine.py"
    own.write_text(
        "def no_questions(row):\n    return not row['messages'][0]['content'].endswith('?')\n",
        encoding="utf-8",
    )
    corpus = prepare("--steps", "no_questions", "--step_file", str(own))
    assert [drop[2] for drop in dropped(corpus)] == ["b.jsonl#2", "b.jsonl#3"]


def test_a_bad_row_ends_it_or_is_counted(prepare: Prepare, raw: Path, tmp_path: Path):
    with (raw / "b.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"instruction": "cut')
    with pytest.raises(DataError, match=r"b\.jsonl:5: the file ends in the middle"):
        prepare()
    assert not (tmp_path / "out").exists()
    assert ("read", "truncated", "b.jsonl#4") in dropped(prepare("--on_bad_row", "skip"))


def test_another_folder_is_never_replaced(tmp_path: Path):
    refuse_foreign(tmp_path / "new")
    refuse_foreign(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunError, match=r"is no corpus that luthier prepared(.|\n)*--out"):
        refuse_foreign(tmp_path)
    with pytest.raises(RunError, match="is no corpus"):
        refuse_foreign(tmp_path / "thesis.txt")


def test_a_full_disk_leaves_nothing_half_written(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fill(*_arguments: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("luthier.recipes.corpus.write_corpus", fill)
    with pytest.raises(LuthierError, match=r"the disk is full: the corpus(.|\n)*--out"):
        prepare()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".staging*"))


def test_a_look_at_a_sample_leaves_nothing(prepare: Prepare, raw: Path, tmp_path: Path):
    files = [str(path) for path in sorted(raw.iterdir())]
    command = read_flags([*files, "--min_answer_chars", "0"], many_words=True)
    look = look_at_sample(resolve_prepare(command).plan, 50, lambda *_: None)
    assert look.steps[0]["rows_in"] == 54
    assert look.samples.keys() == {"dup_exact", "dup_near", "empty_turn"}
    (near,) = look.samples["dup_near"]
    assert near["matched_id"] == "b.jsonl#1"
    assert near["text"] != near["matched_text"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["own.yaml", "own.json"])
def test_a_settings_file_is_told_from_data(raw: Path, tmp_path: Path, name: str):
    config = tmp_path / name
    config.write_text(json.dumps({"train_file": "gone.jsonl", "val_size": 0.1}), encoding="utf-8")
    command = read_flags([str(config), str(raw / "a.jsonl")], many_words=True)
    plan = resolve_prepare(command).plan
    assert plan.data.train_file == [str(raw / "a.jsonl")]
    assert plan.data.val_size == 0.1


def test_two_settings_files(tmp_path: Path):
    with pytest.raises(SettingsError, match="two settings files"):
        resolve_prepare(read_flags(["a.yaml", "b.yaml"], many_words=True))


def test_preparing_loads_no_torch():
    code = (
        "import sys\nimport luthier.cli.prepare, luthier.recipes.corpus\n"
        "import luthier.recipes.corpus_command\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

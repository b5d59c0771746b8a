"""What a preparation depends on: all that can change a row, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier import __version__
from luthier.core.errors import SettingsError
from luthier.corpus.readers.source import Source
from luthier.corpus.sources import resolve_val
from luthier.corpus.steps.registry import STEPS
from luthier.recipes import corpus_plan
from luthier.recipes.config_flags import read_flags
from luthier.recipes.corpus_command import resolve_prepare
from luthier.recipes.corpus_plan import (
    CorpusPlan,
    deciding_versions,
    describe,
    planned,
    reading_key,
    train_sources,
    unused_weights,
)

ROWS = [{"instruction": f"Say {n}.", "output": f"{n}."} for n in range(3)]
Plan = Callable[..., CorpusPlan]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of two files."""
    write(tmp_path / "raw/a.jsonl", ROWS)
    write(tmp_path / "raw/b.jsonl", ROWS[:1])
    return tmp_path / "raw"


@pytest.fixture
def plan(raw: Path) -> Plan:
    def make(*flags: str, files: list[Path] | None = None) -> CorpusPlan:
        words = [str(file) for file in files or [raw / "a.jsonl", raw / "b.jsonl"]]
        return resolve_prepare(read_flags([*words, *flags], many_words=True)).plan

    return make


def work_of(plan: CorpusPlan, val: list[Source] | None = None) -> dict[str, Any]:
    train, val = train_sources(plan), val or []
    return describe(plan, train, val, planned(plan, train, val))


def test_a_plan_takes_its_settings_from_a_run(plan: Plan):
    made = plan("--steps", "near", "--near_threshold", "0.9", "--seed", "5", "--val_size", "0.2")
    assert made.steps.keys() == STEPS.keys()
    assert {name: type(settings) for name, settings in made.steps.items()} == {
        name: kind.settings for name, kind in STEPS.items()
    }
    assert made.steps["near"].model_dump()["near_threshold"] == 0.9
    assert (made.seed, made.data.val_size, made.preparation.steps) == (5, 0.2, ["near"])


def test_steps_are_planned_in_their_order(plan: Plan):
    made = plan("--steps", "near,schema,exact")
    steps = planned(made, train_sources(made), [])
    assert [step.step.name for step in steps] == ["near", "schema", "exact"]


def test_a_step_that_there_is_not(plan: Plan):
    made = plan("--steps", "schema,exakt")
    with pytest.raises(SettingsError, match=r"there is no step exakt\n  Did you mean exact\?"):
        planned(made, train_sources(made), [])


def test_a_validation_file_is_what_training_rows_may_not_give_away(plan: Plan, tmp_path: Path):
    val = write(tmp_path / "val.jsonl", [{"instruction": "one", "output": "two"}])
    made = plan("--steps", "decontaminate", "--val_file", str(val))
    (step,) = planned(made, train_sources(made), resolve_val(made.data, any_kind=True))
    write(val, [{"instruction": "one", "output": "three"}])
    (changed,) = planned(made, train_sources(made), resolve_val(made.data, any_kind=True))
    assert step.settings != changed.settings
    with pytest.raises(SettingsError, match="no evaluation set to look for"):
        planned(made, train_sources(made), [])


def weighted(raw: Path, tmp_path: Path, *lines: str, weight: str = "weight: 2") -> CorpusPlan:
    config = tmp_path / "data.yaml"
    sources = f"sources:\n  - {{path: {raw}/a.jsonl, {weight}}}\n  - {{path: {raw}/b.jsonl}}\n"
    config.write_text(sources + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return resolve_prepare(read_flags([str(config)], many_words=True)).plan


def test_weights_of_sources_are_those_of_the_mixture(raw: Path, tmp_path: Path):
    made = weighted(raw, tmp_path, "steps: [sample]")
    (sample,) = planned(made, train_sources(made), [])
    assert sample.settings["sample_weights"] == {"a.jsonl": 2.0}


def test_weights_that_no_step_uses(raw: Path, tmp_path: Path):
    made = weighted(raw, tmp_path, "steps: [schema]")
    with pytest.raises(SettingsError, match="no step draws the mixture") as caught:
        planned(made, train_sources(made), [])
    assert str(caught.value) == str(unused_weights())


def test_weights_in_two_places(raw: Path, tmp_path: Path):
    lines = ("steps: [sample]", "sample_weights: {a.jsonl: 3}")
    made = weighted(raw, tmp_path, *lines)
    with pytest.raises(SettingsError, match=r"sample_weights: sources have a weight(.|\n)*in one"):
        planned(made, train_sources(made), [])
    made = weighted(raw, tmp_path, *lines, weight="category: x")
    (sample,) = planned(made, train_sources(made), [])
    assert sample.settings["sample_weights"] == {"a.jsonl": 3.0}


def test_the_same_plan_is_the_same_work_and_plain_json(plan: Plan):
    work = work_of(plan())
    assert work == work_of(plan())
    assert json.loads(json.dumps(work)) == work


def test_neither_the_order_of_files_nor_their_place_is_part_of_it(
    plan: Plan, raw: Path, tmp_path: Path
):
    files = [raw / "a.jsonl", raw / "b.jsonl"]
    work = work_of(plan(files=files))
    assert work_of(plan(files=files[::-1])) == work
    moved = raw.rename(tmp_path / "elsewhere")
    assert work_of(plan(files=[moved / "a.jsonl", moved / "b.jsonl"])) == work
    assert work_of(plan(files=[moved])) == work


def test_where_files_of_steps_lie_is_no_part_of_it(plan: Plan, tmp_path: Path):
    works: list[dict[str, Any]] = []
    for folder, word in (("one", "secret"), ("two", "secret"), ("three", "other")):
        words = tmp_path / folder / "words.txt"
        words.parent.mkdir()
        words.write_text(word + "\n", encoding="utf-8")
        works.append(work_of(plan("--steps", "quality", "--quality_word_list", str(words))))
    assert works[0] == works[1] != works[2]


def test_content_and_name_of_a_file_are_part_of_it(plan: Plan, raw: Path):
    works = [work_of(plan())]
    write(raw / "b.jsonl", ROWS[1:2])
    works.append(work_of(plan()))
    works.append(work_of(plan(files=[raw / "a.jsonl"])))
    (raw / "b.jsonl").rename(raw / "c.jsonl")
    works.append(work_of(plan(files=[raw / "a.jsonl", raw / "c.jsonl"])))
    assert len({json.dumps(work, sort_keys=True) for work in works}) == len(works)


def test_the_side_of_a_file_is_part_of_it(plan: Plan, raw: Path):
    made = plan(files=[raw / "a.jsonl"])
    work = work_of(made, [Source("b.jsonl", raw / "b.jsonl")])
    assert [source["name"] for source in work["inputs"]["val"]] == ["b.jsonl"]
    assert work != work_of(made)


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "7"),
        ("--val_size", "0.4"),
        ("--split_likeness", "0.9"),
        ("--min_answer_chars", "6"),
        ("--on_bad_row", "skip"),
        ("--stratify_by", "category"),
        ("--task_column", "task", "--task_weights", "{sums: 2}"),
        ("--task_column", "task", "--task_weights", "{sums: 3}"),
        ("--task_column", "kind", "--task_weights", "{sums: 2}"),
        ("--steps", "exact,schema"),
        ("--steps", "schema"),
    ],
)
def test_settings_of_reading_and_splitting_change_it(plan: Plan, flags: tuple[str, ...]):
    base = ("--steps", "schema,exact", "--val_size", "0.5")
    tasks = ("--task_column", "task", "--task_weights", "{sums: 1}")
    work = work_of(plan(*base, *(tasks if "--task_column" in flags else ())))
    assert work_of(plan(*base, *flags)) != work


CHANGED: Mapping[str, Any] = {
    "repair_encoding": "false",
    "repair_controls": "false",
    "repair_invisible": "false",
    "repair_entities": "false",
    "repair_accents": "false",
    "schema_action": "report",
    "schema_tool_calls": "false",
    "quality_min_answer_chars": "2",
    "quality_min_text_chars": "21",
    "quality_max_chars": "null",
    "quality_max_run": "50",
    "quality_max_repeated_words": "0.6",
    "quality_max_repeated_lines": "0.6",
    "quality_max_symbols": "0.7",
    "quality_word_list": "FILE",
    "quality_report_only": "[refusal]",
    "languages": "[zh]",
    "language_detector": "lite",
    "language_min_score": "0.6",
    "pii_action": "mask",
    "pii_kinds": "[email]",
    "pii_phone_regions": "[CN]",
    "pii_private_ips": "false",
    "pii_allow": "[support@luthier.example]",
    "exact_source_priority": "[b.jsonl]",
    "near_threshold": "0.7",
    "near_scope_threshold": "0.5",
    "near_group_floor": "0.5",
    "near_template_share": "0.02",
    "near_template_min_rows": "21",
    "near_quality_column": "score",
    "decontaminate_files": "[FILE]",
    "decontaminate_threshold": "0.3",
    "decontaminate_short_threshold": "0.7",
    "sample_weights": "{a.jsonl: 2}",
    "sample_size": "2",
    "sample_max_per_source": "2",
    "sample_max_per_category": "2",
    "sample_seed": "1",
}
"""Another value for each setting of a step; `semantic` needs a model, and has its own test."""


def test_every_setting_of_a_step_is_tried():
    settings = [
        name
        for step, kind in STEPS.items()
        if step != "semantic"
        for name in kind.settings.model_fields
    ]
    assert settings == list(CHANGED)


@pytest.mark.parametrize("name", CHANGED)
def test_every_setting_of_a_step_changes_it(plan: Plan, raw: Path, tmp_path: Path, name: str):
    (step,) = (step for step, kind in STEPS.items() if name in kind.settings.model_fields)
    other = write(tmp_path / "other.jsonl", [{"q": "What is the name of the longest river?"}])
    base = ["--steps", step]
    if step == "decontaminate" and name != "decontaminate_files":
        base += ["--decontaminate_files", f"[{other}]"]
    if name == "decontaminate_files":
        base += ["--val_file", str(raw / "b.jsonl")]
    made = plan(*base, files=[raw / "a.jsonl"])
    changed = plan(
        *base, f"--{name}", CHANGED[name].replace("FILE", str(other)), files=[raw / "a.jsonl"]
    )
    val = resolve_val(made.data, any_kind=True)
    assert work_of(changed, val) != work_of(made, val)


def test_the_settings_and_the_model_of_semantic_change_it(plan: Plan, tmp_path: Path):
    model = tmp_path / "model"
    write(model / "config.json", [{}])
    kind = STEPS["semantic"]
    flags = ("--steps", "semantic", "--semantic_model", str(model))
    made = [
        plan(*flags, *more).steps["semantic"]
        for more in ((), ("--semantic_threshold", "0.8"), ("--semantic_scope", "prompt"))
    ]
    facts = [kind.facts(settings) for settings in made]
    write(model / "config.json", [{"dim": 16}])
    facts.append(kind.facts(made[0]))
    assert len({json.dumps(found, sort_keys=True) for found in facts}) == 4


def test_what_changes_no_row_is_no_part_of_it(plan: Plan, tmp_path: Path):
    work = work_of(plan("--steps", "schema"))
    flags = ("--corpus_dir", str(tmp_path / "x"), "--preprocessing_num_workers", "7")
    assert work_of(plan("--steps", "schema", *flags)) == work
    # Of a step that does not run, no setting counts.
    made = plan("--steps", "schema")
    near = made.steps["near"].model_copy(update={"near_threshold": 0.9})
    assert work_of(replace(made, steps={**made.steps, "near": near})) == work


def key_of(plan: CorpusPlan, side: str = "train") -> str:
    sources = train_sources(plan)
    return reading_key(describe(plan, sources, sources, []), side, sources)


def test_the_place_of_files_is_part_of_what_reading_gives(plan: Plan, raw: Path, tmp_path: Path):
    files = [raw / "a.jsonl", raw / "b.jsonl"]
    key = key_of(plan(files=files))
    assert key_of(plan(files=files[::-1])) == key
    moved = raw.rename(tmp_path / "elsewhere")
    assert key_of(plan(files=[moved / "a.jsonl", moved / "b.jsonl"])) != key


def test_what_reading_gives_does_not_depend_on_steps(plan: Plan):
    base = ("--steps", "schema,near", "--val_size", "0.5")
    key = key_of(plan(*base))
    assert key_of(plan(*base, "--near_threshold", "0.9")) == key
    assert key_of(plan("--steps", "exact", "--val_size", "0.5")) == key
    assert key_of(plan(*base, "--split_likeness", "0.9")) == key
    others = [
        key_of(plan(*base, *flags))
        for flags in (("--min_answer_chars", "6"), ("--seed", "7"), ("--on_bad_row", "skip"))
    ]
    assert len({key, *others}) == 4


def test_each_side_is_read_by_itself(plan: Plan, raw: Path, tmp_path: Path):
    made = plan(files=[raw / "a.jsonl"])
    train = train_sources(made)
    keys: list[tuple[str, str]] = []
    for rows in (ROWS[:1], ROWS[:2]):
        val = [Source("val.jsonl", write(tmp_path / "val.jsonl", rows))]
        work = describe(made, train, val, [])
        keys.append((reading_key(work, "train", train), reading_key(work, "val", val)))
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]


def test_versions_of_what_decides_are_part_of_both(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    made = replace(plan(), steps={})
    versions = describe(made, [], [], [])["packages"]
    assert versions["luthier"] == __version__
    assert {"ftfy", "phonenumbers", "rensa"} <= versions.keys()
    assert versions == deciding_versions()
    key = key_of(plan())
    installed = corpus_plan.installed_version
    newer = {"rensa": "99.0"}
    monkeypatch.setattr(
        corpus_plan, "installed_version", lambda name: newer.get(name) or installed(name)
    )
    assert describe(made, [], [], [])["packages"] == versions | newer
    assert key_of(plan()) != key


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus_plan, "installed_version", lambda _name: None)
    assert deciding_versions() == {"luthier": __version__}


def test_sources_are_ordered_by_name(plan: Plan, raw: Path):
    made = plan(files=[raw / "b.jsonl", raw / "a.jsonl"])
    assert [source.name for source in train_sources(made)] == ["a.jsonl", "b.jsonl"]


def test_without_training_data_there_is_no_plan():
    made = resolve_prepare(read_flags([], many_words=True)).plan
    with pytest.raises(SettingsError, match="there is no training data"):
        train_sources(made)

"""What `luthier prepare` makes of its words: settings, default steps, workers, a look at rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import LuthierError, SettingsError
from luthier.corpus.ray_runner import RayData
from luthier.corpus.runners import InProcess, Processes
from luthier.corpus.steps.registry import STANDARD
from luthier.recipes.config_flags import read_flags
from luthier.recipes.corpus_command import (
    MAX_SETTINGS_BYTES,
    PrepareCommand,
    choose_runner,
    is_settings_file,
    look_at_sample,
    resolve_prepare,
    with_token_rate,
)

ROWS = [{"instruction": f"Say {n}, please.", "output": f"{n} it is."} for n in range(40)]


def resolved(*words: object) -> PrepareCommand:
    return resolve_prepare(read_flags([str(word) for word in words], many_words=True))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "a.jsonl", ROWS)


@pytest.fixture
def told() -> list[str]:
    return []


def silent(_name: str, _done: int, _total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "content", "is_settings"),
    [
        ("own.yaml", "anything", True),
        ("own.yml", "anything", True),
        ("OWN.YAML", "anything", True),
        ("own.toml", "anything", True),
        ("own.json", '{"train_file": "a.jsonl"}', True),
        ("own.json", '{"data": {"train_file": "a.jsonl"}}', True),
        ("own.json", '{"near": null, "steps": "near"}', True),
        ("rows.json", '[{"train_file": "a"}]', False),
        ("rows.json", '{"instruction": "a", "output": "b"}', False),
        ("rows.json", '{"version": 1, "data": [{"train_file": "a"}]}', False),
        ("rows.json", '{"train_file": ', False),
        ("rows.json", "", False),
        ("rows.json", "3", False),
        ("rows.jsonl", '{"train_file": "a.jsonl"}', False),
        ("rows.csv", "train_file", False),
    ],
)
def test_a_settings_file_is_told_from_data(
    tmp_path: Path, name: str, content: str, is_settings: bool
):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert is_settings_file(path) is is_settings


def test_a_file_that_is_not_there_is_told_by_its_suffix(tmp_path: Path):
    assert is_settings_file(tmp_path / "gone.yaml")
    assert not is_settings_file(tmp_path / "gone.json")
    assert not is_settings_file(tmp_path / "gone")


def test_json_that_is_long_or_nested_without_end_is_data(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    assert not is_settings_file(path)
    settings = '{"train_file": "a.jsonl"}'
    path.write_text(settings + " " * (MAX_SETTINGS_BYTES - len(settings)))
    assert is_settings_file(path)
    path.write_text(settings + " " * (MAX_SETTINGS_BYTES + 1 - len(settings)))
    assert not is_settings_file(path)


def test_json_in_another_encoding_is_data(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_bytes('[{"instruction": "é"}]'.encode("latin-1"))
    assert not is_settings_file(path)


def test_without_a_choice_the_standard_steps_run(data: Path):
    assert resolved(data).plan.preparation.steps == list(STANDARD)


@pytest.mark.parametrize(
    ("flags", "added"),
    [
        (("--val_file", "v.jsonl"), ["decontaminate"]),
        (("--decontaminate_files", "[mmlu.csv]"), ["decontaminate"]),
        (("--sample_size", "3"), ["sample"]),
        (("--sample_max_per_source", "3"), ["sample"]),
        (("--sample_weights", "{a.jsonl: 2}"), ["sample"]),
        (("--val_file", "v.jsonl", "--sample_size", "3"), ["decontaminate", "sample"]),
        (("--val_size", "0.1", "--near_threshold", "0.9"), []),
    ],
)
def test_a_setting_brings_the_step_that_uses_it(
    data: Path, flags: tuple[str, ...], added: list[str]
):
    assert resolved(data, *flags).plan.preparation.steps == [*STANDARD, *added]


@pytest.mark.parametrize(("fact", "added"), [("weight: 2", ["sample"]), ("category: x", [])])
def test_weights_of_sources_bring_the_step_sample(
    data: Path, tmp_path: Path, fact: str, added: list[str]
):
    config = tmp_path / "own.yaml"
    config.write_text(f"sources:\n  - path: {data}\n    {fact}\n", encoding="utf-8")
    assert resolved(config).plan.preparation.steps == [*STANDARD, *added]
    # Files on the command line take the place of the sources, and of their weights.
    assert resolved(config, data).plan.preparation.steps == list(STANDARD)


def test_steps_that_are_chosen_stay_as_they_are(data: Path, tmp_path: Path):
    flags = ("--steps", "near,sample,exact", "--sample_size", "3", "--val_file", "v.jsonl")
    assert resolved(data, *flags).plan.preparation.steps == ["near", "sample", "exact"]
    config = tmp_path / "own.yaml"
    config.write_text("steps: []\nval_file: v.jsonl\n", encoding="utf-8")
    assert resolved(config, data).plan.preparation.steps == []


@pytest.mark.parametrize("value", ["5", "true", "some.jsonl", "{path: a.jsonl}"])
def test_sources_that_are_no_list_have_their_place_in_the_message(tmp_path: Path, value: str):
    config = tmp_path / "own.yaml"
    config.write_text(f"sources: {value}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"own\.yaml:1: sources is"):
        resolved(config)


@pytest.mark.parametrize("key", ["train_file: gone.jsonl", "dataset: gone"])
def test_files_of_the_command_line_take_the_place_of_those_of_the_file(
    data: Path, tmp_path: Path, key: str
):
    config = tmp_path / "own.yaml"
    config.write_text(f"{key}\nseed: 7\n", encoding="utf-8")
    other = write(tmp_path / "b.jsonl", ROWS)
    plan = resolved(data, config, other).plan
    assert plan.data.train_file == [str(data), str(other)]
    assert (plan.data.dataset, plan.seed) == (None, 7)


@pytest.mark.parametrize("is_first", [True, False])
def test_files_are_named_in_one_way(data: Path, tmp_path: Path, is_first: bool):
    flag = ["--train_file", str(data)]
    words = [*flag, "b.jsonl"] if is_first else ["b.jsonl", *flag]
    with pytest.raises(
        SettingsError, match=r"--train_file is given, and beside it b\.jsonl(.|\n)*once"
    ):
        resolved(*words)
    with pytest.raises(SettingsError, match="two names for the same thing"):
        resolved("b.jsonl", "--dataset", "own")


def test_a_model_is_welcome_and_not_needed(data: Path):
    assert resolved(data).model == ""
    assert resolved(data, "--model_name_or_path", "people/model").model == "people/model"
    assert resolved(data).num_workers is None
    assert resolved(data, "--preprocessing_num_workers", "3").num_workers == 3


def test_little_data_is_done_in_this_process(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    plan = resolved(data).plan
    assert choose_runner(plan, None) == InProcess()
    assert choose_runner(plan, None, ray=False) == InProcess()


def test_much_data_is_done_by_a_process_for_each_core(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    big = tmp_path / "big.jsonl"
    with big.open("wb") as stream:
        stream.truncate(16 * 2**20 - data.stat().st_size)
    assert choose_runner(resolved(big).plan, None) == InProcess()
    # All files count together.
    assert choose_runner(resolved(big, data).plan, None) == Processes(3)


def test_a_number_of_workers_is_what_is_asked_for(data: Path):
    plan = resolved(data).plan
    assert choose_runner(plan, 4) == Processes(4)
    assert choose_runner(plan, 1) == InProcess()


@pytest.mark.parametrize(
    ("ray", "address"), [(True, None), ("ray://head:10001", "ray://head:10001")]
)
def test_ray_where_it_is_asked_for(
    data: Path, monkeypatch: pytest.MonkeyPatch, ray: str | bool, address: str | None
):
    joined: list[str | None] = []
    monkeypatch.setattr("luthier.corpus.ray_runner.started", joined.append)
    assert choose_runner(resolved(data).plan, 4, ray) == RayData(address)
    assert joined == [address]


def test_a_cluster_that_is_not_there_is_told_before_any_work(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_address: str | None) -> None:
        raise LuthierError("there is no Ray cluster to join")

    monkeypatch.setattr("luthier.corpus.ray_runner.started", refuse)
    with pytest.raises(LuthierError, match="no Ray cluster"):
        choose_runner(resolved(data).plan, None, "nowhere")


def test_without_a_model_the_rate_is_that_of_common_tokenizers(data: Path, told: list[str]):
    plan = resolved(data).plan
    assert with_token_rate(plan, "", lambda name, *_: told.append(name)) is plan
    assert told == []


def test_the_rate_is_learnt_from_the_model(
    tmp_path: Path, tokenizer_folders: dict[str, Path], tiny_tokenizer: Any, told: list[str]
):
    text = "The quick brown fox jumps over the lazy dog. "
    rows = [
        {"instruction": text * n, "output": "琴师用云杉和枫木做琴。" * (5 - n)} for n in range(1, 5)
    ]
    plan = resolved(write(tmp_path / "a.jsonl", rows)).plan
    model = str(tokenizer_folders["chatml"])
    rate = with_token_rate(plan, model, lambda name, *_: told.append(name)).rate
    assert rate.tokenizer == "chatml"
    assert told == ["counting tokens of a sample"]
    for row in rows:
        whole = "\n".join((row["instruction"].strip(), row["output"]))
        num_tokens = len(tiny_tokenizer(whole, add_special_tokens=False)["input_ids"])
        assert rate.tokens(whole) == pytest.approx(num_tokens, rel=0.1)
        # The rates of common tokenizers are far off for this small one.
        assert plan.rate.tokens(whole) != pytest.approx(num_tokens, rel=0.1)


def test_the_rate_of_rows_that_can_t_be_used_is_not_learnt(
    tmp_path: Path, tokenizer_folders: dict[str, Path]
):
    empty = write(tmp_path / "a.jsonl", [{"instruction": "Well?", "output": ""}] * 3)
    plan = resolved(empty).plan
    assert with_token_rate(plan, str(tokenizer_folders["chatml"]), silent).rate == plan.rate


@pytest.mark.parametrize("num_rows", [1, 7, 40, 100])
def test_a_look_is_at_so_many_rows_of_each_source(data: Path, tmp_path: Path, num_rows: int):
    other = write(tmp_path / "b.jsonl", ROWS[:5])
    look = look_at_sample(resolved(data, other, "--steps", "schema").plan, num_rows, silent)
    expected = min(num_rows, 40) + min(num_rows, 5)
    assert [step["rows_in"] for step in look.steps] == [expected, expected]


def test_a_look_at_more_rows_than_a_batch_has(tmp_path: Path):
    many = write(
        tmp_path / "a.jsonl", [{"instruction": f"{n}?", "output": "Yes."} for n in range(2500)]
    )
    look = look_at_sample(resolved(many, "--steps", "schema").plan, 1500, silent)
    assert look.steps[0]["rows_in"] == 1500
    assert look.steps[0]["counts"] == {"format_alpaca": 1500}


def test_a_look_shows_what_would_be_dropped_and_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    copies = write(tmp_path / "b.jsonl", ROWS[2:4])
    reports: list[str] = []
    look = look_at_sample(
        resolved(data, copies, "--steps", "exact").plan, 3, lambda name, *_: reports.append(name)
    )
    assert [step["name"] for step in look.steps] == ["read", "exact"]
    assert look.steps[1]["dropped"] == {"dup_exact": 1}
    (sample,) = look.samples["dup_exact"]
    assert (sample["id"], sample["matched_id"]) == ("b.jsonl#0", "a.jsonl#2")
    assert "exact" in reports
    assert list(scratch.iterdir()) == []


def test_a_look_refuses_what_the_preparation_would(data: Path):
    with pytest.raises(SettingsError, match="there is no step exakt"):
        look_at_sample(resolved(data, "--steps", "exakt").plan, 3, silent)


def test_a_bound_for_training_is_not_passed_over():
    with pytest.raises(SettingsError, match=r"max_samples: .*keeps all(.|\n)*--sample_size"):
        resolve_prepare(read_flags(["rows.jsonl", "--max_samples", "5"], many_words=True))

"""From a run's settings to prepared rows, and the tokenizer that made them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError, ModelError, SettingsError
from luthier.corpus.runners import InProcess
from luthier.recipes.config_flags import read_flags
from luthier.recipes.corpus import prepare_corpus
from luthier.recipes.corpus_command import resolve_prepare
from luthier.recipes.data import PreparedRun, prepare_data


def test_rows_tokenizer_and_stop_tokens(small_run: Any, recorder: Any):
    data = prepare_data(small_run.config(), recorder)
    assert recorder.prepared is data.prepared
    assert len(data.prepared.train) == 13
    assert data.prepared.val is not None
    assert len(data.prepared.val) == 3
    assert data.stop_token_ids == (data.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    row = data.prepared.train[0]
    assert data.tokenizer.decode(row["input_ids"]).startswith("<|im_start|>user\nName 0 colours.")
    taught = [token for token in row["labels"] if token != -100]
    assert data.tokenizer.decode(taught) == "Red,<|im_end|>"
    assert recorder.work[0][0] == "reading"


def test_the_named_template_is_the_one_that_is_trained(small_run: Any, recorder: Any):
    data = prepare_data(small_run.config("--template", "alpaca"), recorder)
    text = data.tokenizer.decode(data.prepared.train[0]["input_ids"])
    assert "### Response:" in text
    assert "<|im_start|>" not in text


def test_new_tokens_are_in_the_rows_and_in_their_key(small_run: Any, recorder: Any):
    plain = prepare_data(small_run.config(), recorder)
    flags = ("--new_special_tokens", "<call>,<|im_end|>", "--add_tokens", "Name")
    data = prepare_data(small_run.config(*flags), recorder)
    size = len(plain.tokenizer)
    assert plain.new_token_ids == ()
    assert data.new_token_ids == (size, size + 1)
    assert data.tokenizer.convert_ids_to_tokens([size, size + 1]) == ["<call>", "Name"]
    assert size + 1 in data.prepared.train[0]["input_ids"]
    assert data.prepared.manifest["key"] != plain.prepared.manifest["key"]
    assert "<|im_end|> is in the vocabulary already" in str(data.notices[0])


def test_a_model_that_was_resized_before(small_run: Any, recorder: Any):
    settings = {"add_tokens": "<|im_end|>", "resize_vocab": True}
    with pytest.raises(SettingsError, match="all new tokens are in the vocabulary already"):
        prepare_data(small_run.config(**settings), recorder)
    data = prepare_data(small_run.config(add_tokens="<|im_end|>"), recorder)
    assert data.new_token_ids == ()


def test_the_runs_seed_draws_the_split(small_run: Any, recorder: Any):
    def origins(seed: str) -> list[str]:
        config = small_run.config("--seed", seed, "--val_size", "4", val_file=None)
        return prepare_data(config, recorder).prepared.train["input_ids"][:]

    assert len(origins("1")) == 9
    assert origins("1") == origins("1")
    assert origins("1") != origins("2")


def test_no_training_data(small_run: Any, recorder: Any):
    message = r"^train_file: there is no training data\n  Set train_file .*--train_file"
    with pytest.raises(SettingsError, match=message):
        prepare_data(small_run.config(train_file=None), recorder)


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--train_file", "gone.json"], DataError, r"gone\.json"),
        (["--template", "lama3"], SettingsError, r"lama3(.|\n)*llama3"),
        (["--dataset", "gone", "--train_file", "null"], DataError, r"dataset_info\.json"),
    ],
)
def test_what_can_not_be_prepared(
    small_run: Any, recorder: Any, flags: list[str], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        prepare_data(small_run.config(*flags), recorder)


def test_a_model_without_tokenizer(small_run: Any, recorder: Any):
    for file in small_run.model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        prepare_data(small_run.config(), recorder)


def made_rows(num_rows: int) -> list[dict[str, str]]:
    draw = random.Random(0)
    words = [f"word{number}" for number in range(500)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(2 * num_rows)]
    return [{"instruction": a, "output": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]


@pytest.fixture
def unclean(small_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a run on 24 rows with two that repeat and one whose answer is empty."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    rows = made_rows(24)
    rows += [rows[0], {**rows[1], "output": rows[1]["output"].upper()}]
    rows.append({"instruction": "leave this out", "output": " "})
    path = tmp_path / "unclean.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "train_file": str(path),
        "val_file": None,
        "val_size": 0.25,
        "steps": ["schema", "exact"],
        "min_answer_chars": 0,
    }


def texts(data: PreparedRun, rows: Any) -> list[str]:
    return [data.tokenizer.decode(rows[index]["input_ids"]).lower() for index in range(len(rows))]


def ids(folder: Path, side: str) -> list[str]:
    from luthier.corpus.folder import side_files
    from luthier.corpus.parts import read_part

    return [id_ for path in side_files(folder, side) for id_ in read_part(path)["id"]]


def test_a_corpus_is_prepared_on_the_way(
    small_run: Any, recorder: Any, unclean: dict[str, Any], tmp_path: Path
):
    data = prepare_data(small_run.config(**unclean), recorder)
    (corpus,) = recorder.corpora
    assert not corpus.from_cache
    assert corpus.folder.parent == tmp_path / "cache/corpus"
    assert [step["name"] for step in corpus.manifest["steps"]][1:] == ["schema", "exact"]
    names = {name for name, _, _ in recorder.work}
    assert {"read", "schema", "exact", "writing"} <= names

    assert data.prepared.val is not None
    train, val = (texts(data, rows) for rows in (data.prepared.train, data.prepared.val))
    assert len(train) + len(val) == len({*train, *val}) == 24
    assert not any("leave this out" in text for text in (*train, *val))


def test_validation_rows_are_those_of_the_split_without_twins(
    small_run: Any, recorder: Any, unclean: dict[str, Any]
):
    path = Path(unclean["train_file"])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    twins = [{**row, "output": row["output"] + " so"} for row in rows[:12]]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *twins]), encoding="utf-8")
    data = prepare_data(small_run.config(**unclean), recorder)
    (corpus,) = recorder.corpora
    assert corpus.manifest["split"]["audit"]["num_relatives"] == 0
    split = corpus.manifest["split"]
    assert data.prepared.val is not None
    assert len(data.prepared.val) == split["val"]["rows"] > 0
    assert len(data.prepared.train) == split["train"]["rows"]
    train, val = (texts(data, rows) for rows in (data.prepared.train, data.prepared.val))
    prompts = [
        {row["instruction"] for row in rows if any(row["instruction"] in text for text in side)}
        for side in (train, val)
    ]
    assert len(prompts[0] | prompts[1]) >= 24
    assert not prompts[0] & prompts[1]
    assert len(ids(corpus.folder, "val")) == len(val)


def test_what_is_prepared_is_found_again(small_run: Any, recorder: Any, unclean: dict[str, Any]):
    first = prepare_data(small_run.config(**unclean), recorder)
    second = prepare_data(small_run.config("--learning_rate", "1e-3", **unclean), recorder)
    assert [corpus.from_cache for corpus in recorder.corpora] == [False, True]
    assert second.prepared.folder == first.prepared.folder
    prepare_data(small_run.config("--seed", "8", **unclean), recorder)
    assert [corpus.from_cache for corpus in recorder.corpora] == [False, True, False]


def test_without_a_split_there_are_no_validation_rows(
    small_run: Any, recorder: Any, unclean: dict[str, Any]
):
    data = prepare_data(small_run.config(**{**unclean, "val_size": None}), recorder)
    assert data.prepared.val is None
    assert len(data.prepared.train) == 24


def test_a_validation_file_goes_through_the_steps_that_look_at_one_row(
    small_run: Any, recorder: Any, unclean: dict[str, Any], tmp_path: Path
):
    val = tmp_path / "own.jsonl"
    held_out = [{"instruction": "Held out?", "output": "Yes."}] * 2
    rows = [*held_out, {"instruction": "leave this out", "output": ""}]
    val.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = small_run.config(**{**unclean, "val_size": None, "val_file": str(val)})
    data = prepare_data(config, recorder)
    assert data.prepared.val is not None
    assert [text.count("held out?") for text in texts(data, data.prepared.val)] == [1, 1]
    assert len(data.prepared.train) == 24


@pytest.fixture
def corpus_folder(unclean: dict[str, Any], tmp_path: Path) -> Path:
    """A folder that `luthier prepare` wrote, with validation rows."""
    flags = ["--steps", "schema,exact", "--min_answer_chars", "0", "--val_size", "0.25"]
    command = read_flags([unclean["train_file"], *flags], many_words=True)
    plan = resolve_prepare(command).plan
    return prepare_corpus(plan, tmp_path / "corpus", InProcess(), lambda *_: None).folder


def test_a_prepared_folder_brings_its_validation_rows(
    small_run: Any, recorder: Any, corpus_folder: Path
):
    settings = {"train_file": str(corpus_folder), "val_file": None}
    # The rules of the settings know that there will be validation rows.
    config = small_run.config("--eval_steps", "2", "--eval_strategy", "steps", **settings)
    data = prepare_data(config, recorder)
    assert recorder.corpora == []
    assert data.prepared.val is not None
    assert len(data.prepared.train) == len(ids(corpus_folder, "train"))
    assert len(data.prepared.val) == len(ids(corpus_folder, "val")) > 0
    train, val = (texts(data, rows) for rows in (data.prepared.train, data.prepared.val))
    assert not {*train} & {*val}


def test_a_prepared_folder_without_validation_rows_brings_none(
    small_run: Any, unclean: dict[str, Any], tmp_path: Path
):
    command = read_flags([unclean["train_file"], "--steps", "exact"], many_words=True)
    plan = resolve_prepare(command).plan
    folder = prepare_corpus(plan, tmp_path / "bare", InProcess(), lambda *_: None).folder
    with pytest.raises(SettingsError, match=r"eval_steps is set, and there are no validation rows"):
        small_run.config("--eval_steps", "2", train_file=str(folder), val_file=None)


@pytest.mark.parametrize("steps", [None, ["exact"]])
def test_weights_that_no_step_uses(
    small_run: Any, recorder: Any, unclean: dict[str, Any], steps: list[str] | None
):
    source = {"path": unclean["train_file"], "weight": 2.0}
    settings = {"train_file": None, "val_file": None, "sources": [source], "steps": steps}
    with pytest.raises(SettingsError, match=r"^steps: sources have a weight.*\n  Add sample to"):
        prepare_data(small_run.config(**settings), recorder)
    assert recorder.prepared is None

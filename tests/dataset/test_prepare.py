from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.notice import Notice
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError, LuthierError, SettingsError
from luthier.corpus.settings import CorpusSettings
from luthier.dataset.judged import PAIRS, VERDICTS
from luthier.dataset.prepare import prepare, tokenizer_threads
from luthier.dataset.prepared import Prepared
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import CONVERSATIONS, RowKind
from luthier.dataset.templates import resolve_template


def rows_of(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Question {i}?",
            "input": "",
            "output": f"Answer {i}. " * (i % 7 + 1),
            **more,
        }
        for i in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path, load_tiny):
    """Prepare rows.jsonl with changed settings; settings are told apart by their names."""

    def call(
        rows: list[dict[str, Any]] | None = None,
        *,
        tokenizer: Any = None,
        template: str = "auto",
        seed: int = 1,
        kind: RowKind = CONVERSATIONS,
        **settings: Any,
    ) -> Prepared:
        if rows is not None:
            write(tmp_path / "rows.jsonl", rows)
        of_corpus = {k: v for k, v in settings.items() if k in CorpusSettings.model_fields}
        of_dataset = {k: v for k, v in settings.items() if k not in of_corpus}
        loaded, notices = resolve_template(tokenizer or load_tiny("chatml"), template)
        return prepare(
            CorpusSettings.model_validate(
                {"train_file": str(tmp_path / "rows.jsonl"), **of_corpus}
            ),
            DatasetSettings.model_validate(
                {"prepared_dir": str(tmp_path / "prepared"), **of_dataset}
            ),
            loaded,
            seed=seed,
            notices=notices,
            kind=kind,
        )

    return call


def test_rows_on_disk_are_what_rendering_gives(run, load_tiny):
    made = run(rows_of(10))
    assert not made.from_cache
    assert made.val is None
    assert made.train.column_names == ["input_ids", "labels", "length", "num_supervised", "origin"]
    tokenizer = load_tiny("chatml")
    row = made.train[3]
    assert tokenizer.decode(row["input_ids"]) == (
        "<|im_start|>user\nQuestion 3?<|im_end|>\n<|im_start|>assistant\n"
        "Answer 3. Answer 3. Answer 3. Answer 3.<|im_end|>\n"
    )
    taught = [label for label in row["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(taught) == "Answer 3. Answer 3. Answer 3. Answer 3.<|im_end|>"
    assert (row["length"], row["num_supervised"]) == (len(row["input_ids"]), len(taught))
    assert [origin.rpartition(":")[2] for origin in made.train["origin"]] == [
        str(line) for line in range(1, 11)
    ]


def test_the_manifest_accounts_for_every_row(run):
    rows = [*rows_of(20), {"instruction": "Long", "input": "", "output": "the dog " * 200}]
    rows += [{"instruction": "Short", "input": "", "output": "No"}]
    made = run(rows, cutoff_len=128, val_size=0.25, min_answer_chars=3)
    manifest = made.manifest
    counts, splits = manifest["counts"], manifest["splits"]
    assert counts["rows_read"] == 22
    assert counts["dropped"] == {"short_answer": 1}
    assert counts["conversations"] == 21
    assert counts["truncated_rows"] == 1
    assert counts["truncated_tokens"] > 100
    assert made.val is not None
    assert splits["train"]["rows"] == len(made.train) == 16
    assert splits["val"]["rows"] == len(made.val) == 5
    assert splits["train"]["tokens"] == sum(made.train["length"])
    assert splits["train"]["supervised_tokens"] == sum(made.train["num_supervised"])
    assert max(splits[name]["max_length"] for name in splits) <= 128
    assert sum(n for _, n in splits["train"]["length_histogram"]) == 16
    (source,) = manifest["inputs"]["train"]
    assert source["file"] == "rows.jsonl"
    assert source["name"] == "rows.jsonl"
    assert source["bytes"] > 0
    assert manifest["settings"]["cutoff_len"] == 128
    rejected = [json.loads(line) for line in (made.folder / "rejected.jsonl").open()]
    assert [line["reason"] for line in rejected] == ["short_answer"]


def test_the_same_inputs_are_prepared_once(run, tmp_path):
    first = run(rows_of(10))

    def load(*_, **__):
        raise AssertionError("the rows are read again")

    again = run(preprocessing_num_workers=1, kind=replace(CONVERSATIONS, load=load))
    assert again.from_cache
    assert again.folder == first.folder
    assert again.manifest == first.manifest
    assert again.train[:] == first.train[:]
    forced = run(overwrite_cache=True)
    assert not forced.from_cache
    assert forced.train[:] == first.train[:]
    assert run().from_cache


def test_other_inputs_never_reuse_it(run, load_tiny):
    rows = rows_of(10)
    first = run(rows, val_size=2)
    one_byte = [*rows[:-1], {**rows[-1], "output": rows[-1]["output"].replace("A", "B", 1)}]
    others = [
        run(one_byte, val_size=2),
        run(rows, val_size=2, template="lecture"),
        run(rows, val_size=2, seed=2),
        run(rows, val_size=2, cutoff_len=100),
        run(rows, val_size=3),
        run(rows, val_size=2, tokenizer=load_tiny("llama3"), template="chatml"),
    ]
    assert not any(other.from_cache for other in others)
    assert len({first.folder, *(other.folder for other in others)}) == len(others) + 1
    assert run(rows, val_size=2).from_cache


def test_damaged_data_is_prepared_anew(run):
    first = run(rows_of(10))
    expected = first.train[:]
    (arrow,) = (first.folder / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-9])
    again = run()
    assert not again.from_cache
    assert again.train[:] == expected


def test_two_at_once_do_the_work_once(run, tmp_path):
    write(tmp_path / "rows.jsonl", rows_of(300))
    results: list[Prepared] = []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = results
    assert sorted([first.from_cache, second.from_cache]) == [False, True]
    assert first.train[:] == second.train[:]


def test_the_split_is_drawn_by_seed_and_parts_no_conversation(run, load_tiny):
    turns = [
        {"role": role, "content": f"{role} {i}"} for i in range(2) for role in ("user", "assistant")
    ]
    rows = [
        {"messages": [{**turn, "content": f"{turn['content']} of {n}"} for turn in turns]}
        for n in range(20)
    ]
    thinking = str(Path(__file__).parent / "templates_data" / "qwen3.jinja")
    made = run(rows, val_size=0.25, template=thinking)
    assert made.val is not None
    assert (len(made.train), len(made.val)) == (30, 10)
    assert not {*made.train["origin"]} & {*made.val["origin"]}
    assert made.manifest["counts"]["turn_by_turn_rows"] == 40
    assert any(notice.setting == "turn_by_turn" for notice in made.notices)
    other = run(val_size=0.25, template=thinking, seed=2)
    assert other.val is not None
    assert {*made.val["origin"]} != {*other.val["origin"]}


def test_a_split_by_a_column_keeps_its_shares(run):
    rows = [*rows_of(40, kind="a"), *rows_of(8, kind="b")]
    for number, row in enumerate(rows):
        row["instruction"] += f" ({number})"
    made = run(rows, val_size=0.25, stratify_by="kind")
    assert made.val is not None
    lines = [int(origin.rpartition(":")[2]) for origin in made.val["origin"]]
    assert sum(line > 40 for line in lines) == 2
    assert len(lines) == 12


def test_a_validation_file_is_read_and_its_copies_are_found(run, tmp_path):
    val = write(tmp_path / "val.jsonl", [*rows_of(3), {"instruction": "New?", "output": "Yes."}])
    made = run(rows_of(10), val_file=str(val))
    assert made.val is not None
    assert (len(made.train), len(made.val)) == (10, 4)
    assert made.manifest["counts"]["train_val_overlap"] == 3
    (notice,) = [n for n in made.notices if n.setting == "train_val_overlap"]
    assert "3 of 4" in notice.reason
    assert run(val_file=str(val)).notices == made.notices, "warnings come back with the data"


def test_max_samples_draws_training_rows_by_seed(run):
    made = run(rows_of(50), max_samples=10)
    assert len(made.train) == 10
    assert made.manifest["counts"]["dropped"] == {"not_sampled": 40}
    other = run(max_samples=10, seed=2)
    assert {*made.train["origin"]} != {*other.train["origin"]}
    assert len(run(max_samples=100).train) == 50


def test_weights_are_kept_where_a_row_has_one(run):
    rows = rows_of(4, task="b")
    rows[0]["task"] = "a"
    made = run(rows, task_column="task", task_weights={"a": 0.5})
    weights, labels = made.train["loss_weights"], made.train["labels"]
    for row, wanted in enumerate([0.5, 1.0, 1.0, 1.0]):
        taught = {w for w, label in zip(weights[row], labels[row], strict=True) if label != -100}
        assert taught == {wanted}
    with pytest.raises(SettingsError, match="no row has the task 'c'"):
        run(task_column="task", task_weights={"c": 0.5})


def test_notices_of_the_template_are_handed_on(run, load_tiny):
    made = run(rows_of(3), tokenizer=load_tiny("llama2"), template="chatml")
    assert isinstance(made.notices[0], Notice)
    assert made.notices[0].used == "chatml with </s>"


def test_no_rows_left_is_an_error(run):
    with pytest.raises(DataError, match=r"none of the 5 rows is left to train on: 5 too_long\n"):
        run(rows_of(5), cutoff_len=8, on_long_row="drop")


def test_no_data_is_an_error(run):
    with pytest.raises(SettingsError, match="there is no training data"):
        run(train_file=None)


def test_a_refused_row_follows_on_bad_row(run, load_tiny):
    gemma = str(Path(__file__).parent / "templates_data" / "gemma.jinja")
    rows = [*rows_of(3), {**rows_of(1)[0], "system": "Be kind."}]
    with pytest.raises(DataError, match=r"rows\.jsonl:4: .*System role not supported"):
        run(rows, template=gemma)
    made = run(rows, template=gemma, on_bad_row="skip")
    assert len(made.train) == 3
    assert made.manifest["counts"]["dropped"] == {"template_refused": 1}


def test_a_full_disk_leaves_no_data_that_is_taken_for_whole(run, monkeypatch):
    import datasets

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(datasets.Dataset, "save_to_disk", full)
        with pytest.raises(LuthierError, match="the disk is full"):
            run(rows_of(10))
    assert not run().from_cache


def test_a_place_that_is_no_folder_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LuthierError, match=r"prepared data can't be written(.|\n)*prepared_dir"):
        run(rows_of(3), prepared_dir=str(tmp_path / "file" / "sub"))


def test_progress_is_told(tmp_path, load_tiny):
    path = write(tmp_path / "rows.jsonl", rows_of(300))
    seen: list[tuple[str, int, int]] = []
    prepare(
        CorpusSettings(train_file=str(path)),
        DatasetSettings(prepared_dir=str(tmp_path / "p")),
        load_tiny("chatml"),
        seed=1,
        progress=lambda *state: seen.append(state),
    )
    assert ("tokenising", 256, 300) in seen
    assert seen[-1] == ("writing", 1, 1)


def test_threads_of_the_tokenizer_are_set_for_the_time_being(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    with tokenizer_threads(3):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
        assert os.environ["RAYON_NUM_THREADS"] == "3"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert "RAYON_NUM_THREADS" not in os.environ
    with tokenizer_threads(None):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    with tokenizer_threads(1):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def pairs_of(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": f"No. {i}", **more}
        for i in range(count)
    ]


def test_pairs_on_disk(run, load_tiny):
    rows = pairs_of(10)
    rows[3]["rejected"] = rows[3]["chosen"]
    rows[4]["weight"] = 0.5
    made = run(rows, kind=PAIRS, val_size=3)
    assert made.manifest["rows"] == "pairs"
    assert made.manifest["counts"]["dropped"] == {"equal_sides": 1}
    assert (len(made.train), len(made.val)) == (6, 3)
    assert made.train.column_names == [
        *("input_ids", "labels", "prompt_length", "chosen_length", "weight"),
        *("length", "num_supervised", "origin"),
    ]
    decode = load_tiny("chatml").decode
    for row in made.train:
        ids, prompt = row["input_ids"], row["prompt_length"]
        number = decode(ids[:prompt]).partition("Question ")[2].partition("?")[0]
        assert decode(ids[:prompt]).endswith("<|im_start|>assistant\n")
        chosen = decode(ids[prompt : prompt + row["chosen_length"]])
        assert chosen == f"Yes, {number}.<|im_end|>\n"
        assert decode(ids[prompt + row["chosen_length"] :]) == f"No. {number}<|im_end|>\n"
        assert row["weight"] == (0.5 if number == "4" else 1.0)
        assert row["length"] == len(ids)


def test_verdicts_on_disk_stand_with_an_answer_of_their_own_split(run, load_tiny):
    rows = [
        {"prompt": f"Question {i}?", "completion": f"Answer {i}.", "label": i % 3 == 0}
        for i in range(12)
    ]
    made = run(rows, kind=VERDICTS, val_size=4)
    decode = load_tiny("chatml").decode
    told: list[set[str]] = []
    for split in (made.train, made.val):
        told.append(set())
        numbers = [decode(row["input_ids"]).split("Question ")[1][:2] for row in split]
        for row in split:
            prompt, ids = row["prompt_length"], row["input_ids"]
            number = decode(ids[:prompt]).partition("Question ")[2].partition("?")[0]
            other = decode(ids[prompt + row["chosen_length"] :]).partition("Answer ")[2]
            assert row["desirable"] == (int(number) % 3 == 0)
            assert other.partition(".")[0] != number
            assert any(other.startswith(n.strip("?")) for n in numbers)
            told[-1].add(number)
    assert len(told[0]) + len(told[1]) == 12
    wanted = [made.manifest["splits"][name]["desirable"] for name in ("train", "val")]
    assert sum(wanted) == 4


def test_the_kind_of_rows_is_part_of_the_key(run):
    rows = [{**row, "response": row["chosen"], "label": i > 2} for i, row in enumerate(pairs_of(6))]
    pairs = run(rows, kind=PAIRS)
    assert run(kind=PAIRS).from_cache
    with pytest.raises(DataError, match="chosen and rejected"):
        run()
    assert run(rows_of(5)).folder != pairs.folder
    assert "rows" not in run().manifest, "data that was prepared before is found again"


def test_verdicts_of_one_kind_teach_nothing(run):
    with pytest.raises(DataError, match="all 3 answers are wanted"):
        run(
            [{"prompt": f"q{i}", "completion": "a", "label": True} for i in range(3)],
            kind=VERDICTS,
        )

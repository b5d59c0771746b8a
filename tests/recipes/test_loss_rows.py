"""A few rows with their tokens' losses, before training and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.contracts.notice import Notice
from luthier.contracts.rows import IGNORE_INDEX
from luthier.recipes import loss_rows
from luthier.recipes.job import Job, build_job
from luthier.recipes.loss_rows import MOST_ROWS, measure_after, measure_before


@pytest.fixture
def job(small_run: Any, recorder: Any) -> Job:
    folder = small_run.folder / "out"
    folder.mkdir()
    return build_job(small_run.config(), folder, None, recorder)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "shown_rows.json").read_text(encoding="utf-8"))


def told(notice: Notice) -> None:
    raise AssertionError(notice)


def test_before_and_after_a_run(small_run: Any):
    found = read(small_run.train().folder)
    assert (found["step"], found["has_before"]) == (8, True)
    assert [row["side"] for row in found["rows"]] == ["val"] * 3
    assert {row["origin"].partition(":")[0] for row in found["rows"]} == {"val.jsonl"}
    pieces = [piece for row in found["rows"] for piece in row["pieces"]]
    taught = [piece for piece in pieces if piece["taught"]]
    assert "Red" in "".join(piece["text"] for piece in taught)
    assert all(piece["before"] > 0 and piece["after"] > 0 for piece in taught)
    assert sum(p["after"] for p in taught) < sum(p["before"] for p in taught)
    assert all(piece["before"] is None for piece in pieces if not piece["taught"])


def test_the_losses_are_those_of_the_model_and_it_is_left_as_it_was(job: Job):
    job.model.train()
    measure_before(job, told)
    assert job.model.training
    assert job.data.prepared.val is not None
    row = job.data.prepared.val[0]
    shown = next(r for r in read(job.folder)["rows"] if r["origin"] == Path(row["origin"]).name)
    job.model.eval()
    with torch.no_grad():
        logits = job.model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
    labels = torch.tensor(row["labels"])
    losses = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="none")
    mine = [piece["before"] for piece in shown["pieces"] if piece["taught"]]
    assert mine[0] == pytest.approx(float(losses[labels[1:] != IGNORE_INDEX][0]), rel=1e-4)


def test_without_validation_they_are_training_rows(small_run: Any, recorder: Any):
    (small_run.folder / "out").mkdir()
    config = small_run.config(val_file=None)
    job = build_job(config, small_run.folder / "out", None, recorder)
    measure_after(job, 5, told)
    found = read(job.folder)
    assert (found["step"], found["has_before"]) == (5, False)
    assert [row["side"] for row in found["rows"]] == ["train"] * MOST_ROWS


def test_long_rows_are_cut(job: Job, monkeypatch: pytest.MonkeyPatch):
    assert job.data.prepared.val is not None
    labels = job.data.prepared.val[0]["labels"]
    first_taught = next(at for at, label in enumerate(labels) if label != IGNORE_INDEX)
    monkeypatch.setattr(loss_rows, "MOST_TOKENS", first_taught + 1)
    measure_before(job, told)
    taught = [[p for p in row["pieces"] if p["taught"]] for row in read(job.folder)["rows"]]
    assert [len(pieces) for pieces in taught] == [1] * 3
    # Nothing taught is left to look at.
    (job.folder / "shown_rows.json").unlink()
    monkeypatch.setattr(loss_rows, "MOST_TOKENS", first_taught)
    measure_before(job, told)
    assert not (job.folder / "shown_rows.json").exists()


def test_rows_that_are_others_after_a_change_have_no_before(job: Job):
    measure_before(job, told)
    found = read(job.folder)
    found["rows"][0]["pieces"][0]["text"] = "another row"
    (job.folder / "shown_rows.json").write_text(json.dumps(found), encoding="utf-8")
    measure_after(job, 8, told)
    assert read(job.folder)["has_before"] is False


def test_pairs_show_both_answers(small_run: Any, recorder: Any, write_file: Any):
    pair = {"prompt": "Name a colour.", "chosen": "Red", "rejected": "A dog"}
    rows = write_file(
        "pairs.jsonl", "".join(json.dumps(pair | {"prompt": f"{i}?"}) + "\n" for i in range(6))
    )
    config = small_run.config(stage="dpo", train_file=str(rows), val_file=None)
    (small_run.folder / "out").mkdir()
    job = build_job(config, small_run.folder / "out", None, recorder)
    measure_before(job, told)
    assert [row["judgement"] for row in read(job.folder)["rows"]] == ["better", "worse"] * 2


def test_a_reward_model_has_no_losses_of_tokens(small_run: Any, recorder: Any, write_file: Any):
    pair = {"prompt": "Name a colour.", "chosen": "Red", "rejected": "A dog"}
    rows = write_file(
        "pairs.jsonl", "".join(json.dumps(pair | {"prompt": f"{i}?"}) + "\n" for i in range(6))
    )
    config = small_run.config(stage="rm", train_file=str(rows), val_file=None)
    (small_run.folder / "out").mkdir()
    job = build_job(config, small_run.folder / "out", None, recorder)
    measure_before(job, told)
    measure_after(job, 8, told)
    assert not (job.folder / "shown_rows.json").exists()


def test_too_little_memory_is_told_and_stops_nothing(job: Job, monkeypatch: pytest.MonkeyPatch):
    notices: list[Notice] = []

    def no_memory(*args: Any, **kwargs: Any):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loss_rows, "token_losses", no_memory)
    measure_before(job, notices.append)
    assert "memory is too short" in notices[0].reason
    assert not (job.folder / "shown_rows.json").exists()


def test_another_error_is_raised(job: Job, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: Any, **kwargs: Any):
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(loss_rows, "token_losses", broken)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        measure_before(job, told)

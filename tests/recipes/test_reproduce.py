"""A tiny run is repeated bit for bit, and everything that stands in the way has its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import DataError, ModelError, RunError, SettingsError
from luthier.core.hashing import hash_file
from luthier.recipes.reproduce import (
    EarlierRun,
    check_run,
    open_run,
    refuse_other_data,
    refuse_unfinished,
    refuse_used_folder,
    reproduce,
    verify,
)
from luthier.recipes.run_comparison import Comparison


class NeverStop:
    """Asks for nothing; implements `StopRequest`."""

    requested = False
    has_work = False

    def take_checkpoint_request(self) -> bool:
        return False


def again(run: EarlierRun, screen: Any) -> Comparison:
    result = reproduce(run, ["luthier", "reproduce"], screen, NeverStop())
    return verify(run, result)


def edit_manifest(folder: Path, *path: str, value: Any) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    place = manifest
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    file.write_text(json.dumps(manifest), encoding="utf-8")


def titles(run: EarlierRun) -> list[str]:
    return [found.title for found in check_run(run).today.differences]


def test_a_run_is_repeated_bit_for_bit(small_run: Any, recorder: Any):
    first = small_run.train("--lora_dropout", "0.1", "--eval_steps", "3", "--seed", "7")
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    run = open_run(first.folder)
    checked = check_run(run)
    assert checked.today.differences == ()
    assert checked.today.unrecorded == ()
    assert checked.today.num_same > 20
    refuse_other_data(run, checked, allow_changed=False)
    refuse_used_folder(run)
    refuse_unfinished(run)
    found = again(run, recorder)
    assert found.identical
    assert found.now == first.manifest()["outcome"]["weights_sha256"]
    assert (found.num_records, found.num_alone) == (len(first.metrics()), 0)
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before
    beside = first.folder.with_name("out-again")
    manifest = json.loads((beside / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["command"] == ["luthier", "reproduce"]
    assert manifest["outcome"]["weights_sha256"] == found.now
    with pytest.raises(RunError, match=r"out-again: this folder holds a run .*\n.*--output_dir"):
        refuse_used_folder(run)
    refuse_used_folder(open_run(first.folder, str(small_run.folder / "third")))


def test_the_outcome_is_in_the_manifest(small_run: Any):
    trained = small_run.train("--max_steps", "2")
    outcome, progress = trained.manifest()["outcome"], trained.result.progress
    assert outcome["steps"] == 2
    assert outcome["loss"] == trained.losses()[-1]
    assert outcome["tokens_seen"] == progress.num_tokens_seen > 0
    assert outcome["eval"] == trained.result.last_eval
    assert len(outcome["weights_sha256"]) == 64


def test_a_run_that_went_on_is_repeated_in_one_piece(small_run: Any, recorder: Any):
    small_run.train("--lora_dropout", "0.1", stop_after=3)
    first = small_run.train("--lora_dropout", "0.1", "--resume_from_checkpoint")
    assert first.manifest()["earlier"]
    run = open_run(first.folder)
    assert again(run, recorder).identical
    assert recorder.started_at == 0
    assert "repeated in one piece" in recorder.said[0]


def test_it_computes_on_as_many_threads_as_the_run(small_run: Any, recorder: Any):
    first = small_run.train("--max_steps", "2")
    torch.set_num_threads(2)
    run = open_run(first.folder)
    (found,) = check_run(run).today.differences
    assert (found.title, found.then, found.now) == ("torch threads", "1", "2")
    assert again(run, recorder).identical
    assert torch.get_num_threads() == 1
    assert str(recorder.notices[0]) == "threads: 2 -> 1 (as many as the run had)"


def test_micro_batches_are_cut_as_the_run_cut_them(small_run: Any, recorder: Any):
    auto = {"per_device_train_batch_size": "auto", "gradient_accumulation_steps": None}
    first = small_run.train("--max_steps", "2", train_batch_size=4, **auto)
    assert first.manifest()["outcome"]["max_positions"] > 0
    edit_manifest(first.folder, "outcome", "max_positions", value=33)
    again(open_run(first.folder), recorder)
    (notice,) = [n for n in recorder.notices if n.setting == "per_device_train_batch_size"]
    assert str(notice) == (
        "per_device_train_batch_size: auto -> at most 33 tokens at once "
        "(the size of the run that is gone on with or repeated)"
    )


def test_another_seed_in_run_yaml_is_found_as_another_outcome(small_run: Any, recorder: Any):
    first = small_run.train("--max_steps", "3", "--seed", "7")
    file = first.folder / "run.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count("seed: 7") == 1
    file.write_text(text.replace("seed: 7", "seed: 8"), encoding="utf-8")
    run = open_run(first.folder)
    assert titles(run) == ["settings"]
    found = again(run, recorder)
    assert not found.identical
    assert found.tensors
    assert found.first_loss is not None
    assert found.first_loss.step == 1


def test_changed_data_is_refused_with_both_hashes(small_run: Any, recorder: Any, write_file: Any):
    first = small_run.train("--max_steps", "2", "--save_strategy", "no")
    file = Path(small_run.values["train_file"])
    then = hash_file(file)
    rows = json.loads(file.read_text(encoding="utf-8"))
    rows[0]["output"] = "Green and blue."
    file.write_text(json.dumps(rows), encoding="utf-8")
    run = open_run(first.folder)
    checked = check_run(run)
    (found,) = checked.today.changed_data
    assert (found.title, found.effect) == ("data train: rows.json", "the data")
    message = (
        rf"out: the data of the run has changed: train: rows\.json was {then[:16]}, "
        rf"and is {hash_file(file)[:16]}\n.*--allow_changed_data"
    )
    with pytest.raises(DataError, match=message):
        refuse_other_data(run, checked, allow_changed=False)
    refuse_other_data(run, checked, allow_changed=True)
    assert not again(run, recorder).identical


def test_missing_data_is_named_and_found_where_it_is_now(
    small_run: Any, recorder: Any, tmp_path: Path
):
    first = small_run.train("--max_steps", "2")
    file = Path(small_run.values["train_file"])
    sha = hash_file(file)
    moved = tmp_path / "elsewhere" / file.name
    moved.parent.mkdir()
    shutil.move(file, moved)
    run = open_run(first.folder)
    checked = check_run(run)
    assert {one.now for one in checked.today.changed_data} == {"not read"}
    message = rf"the data of the run can't be read: .*rows\.json\n.*{sha[:16]}.*--train_file"
    for allow in (False, True):
        with pytest.raises(DataError, match=message):
            refuse_other_data(run, checked, allow_changed=allow)

    run = open_run(first.folder, moved={"train_file": str(moved)})
    checked = check_run(run)
    assert checked.today.differences == ()
    refuse_other_data(run, checked, allow_changed=False)
    assert again(run, recorder).identical


def test_where_the_run_was_started_is_said_of_missing_data(small_run: Any):
    first = small_run.train("--max_steps", "1")
    Path(small_run.values["val_file"]).unlink()
    edit_manifest(first.folder, "working_folder", value="/somewhere/else")
    edit_manifest(first.folder, "data", "inputs", "train", value=[{"name": "x", "sha256": "0"}] * 4)
    run = open_run(first.folder)
    with pytest.raises(DataError, match=r"and 2 more\. .*started in /somewhere/else: its rel"):
        refuse_other_data(run, check_run(run), allow_changed=True)


def test_another_file_beside_the_first_is_other_data(small_run: Any, write_file: Any):
    folder = write_file("many/a.json", Path(small_run.values["train_file"]).read_bytes()).parent
    first = small_run.train("--max_steps", "1", train_file=str(folder))
    write_file("many/b.json", '[{"instruction": "Say b.", "output": "b"}]')
    run = open_run(first.folder)
    with pytest.raises(DataError, match=r"train: .*b\.json was not there"):
        refuse_other_data(run, check_run(run), allow_changed=False)
    (folder / "a.json").unlink()
    with pytest.raises(DataError, match=r"a\.json was [0-9a-f]{16}, and is not there"):
        refuse_other_data(run, check_run(run), allow_changed=False)


def test_a_run_with_corpus_steps_is_held_against_its_raw_files(small_run: Any, recorder: Any):
    first = small_run.train("--steps", "schema,exact", "--max_steps", "2", "--val_size", "2",
                            val_file=None)  # fmt: skip
    recorded = first.manifest()["corpus"]
    assert recorded["inputs"]["train"][0]["sha256"] == hash_file(
        Path(small_run.values["train_file"])
    )
    run = open_run(first.folder)
    assert check_run(run).today.differences == ()
    assert again(run, recorder).identical
    Path(small_run.values["train_file"]).write_bytes(b"[]")
    assert titles(run) == ["data train: rows.json"]


def test_other_versions_and_machines_are_reported(small_run: Any):
    first = small_run.train("--max_steps", "1")
    edit_manifest(first.folder, "packages", "torch", value="2.10.0")
    edit_manifest(first.folder, "packages", "luthier-no-such-package", value="1.0")
    edit_manifest(first.folder, "machine", "gpus", value=[{"name": "NVIDIA X"}])
    edit_manifest(first.folder, "luthier", "source_sha256", value="0" * 64)
    edit_manifest(first.folder, "environment", "MKL_CBWR", value="COMPATIBLE")
    run = open_run(first.folder)
    assert titles(run) == [
        "luthier source",
        "package luthier-no-such-package",
        "package torch",
        "gpu 0",
        "variable MKL_CBWR",
    ]
    found = check_run(run).today.differences
    assert (found[1].then, found[1].now) == ("1.0", "not installed")
    assert found[2].now == torch.__version__


def test_another_model_in_the_same_folder_is_found(small_run: Any):
    first = small_run.train("--max_steps", "1")
    weights = small_run.model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    run = open_run(first.folder)
    assert titles(run) == ["model model.safetensors"]
    weights.parent.rename(weights.parent.with_name("moved"))
    with pytest.raises(ModelError, match="no such model folder"):
        check_run(run)


def test_an_unfinished_run_is_repeated_and_not_compared(small_run: Any, recorder: Any):
    first = small_run.train("--max_steps", "4", stop_after=2)
    run = open_run(first.folder)
    with pytest.raises(
        RunError, match=r"out: this run did not come to its end.*\n.*leave --verify"
    ):
        refuse_unfinished(run)
    result = reproduce(run, [], recorder, NeverStop())
    assert result.finished
    assert result.progress.step == 4


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", "there is no such folder\n.*luthier reproduce output"),
        ("run.yaml", "this folder holds no run: run.yaml is missing\n"),
        ("manifest.json", "this folder holds no run: manifest.json is missing\n"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, missing: str, message: str):
    folder = tmp_path / "run"
    if missing:
        folder.mkdir()
        for name in {"run.yaml", "manifest.json"} - {missing}:
            (folder / name).write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=rf"run: {message}"):
        open_run(folder)


@pytest.mark.parametrize("text", ['{"a": ', "[1]"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str):
    (tmp_path / "run.yaml").write_text("model_name_or_path: m\n", encoding="utf-8")
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"manifest\.json: the manifest is damaged\n.*luthier train"):
        open_run(tmp_path)


def test_a_run_yaml_that_this_luthier_does_not_know_is_refused(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("model_name_or_path: m\nnew_one: 1\n", encoding="utf-8")
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SettingsError, match="no setting is named new_one"):
        open_run(tmp_path)

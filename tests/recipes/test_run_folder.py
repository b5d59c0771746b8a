"""The folder of a run: opened, protected, cleared, and its settings written to be read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luthier.core.errors import RunError
from luthier.core.lock import LOCK
from luthier.recipes import run_folder
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve, resolve_file
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import (
    LR_FIND,
    clear_earlier_run,
    open_run_folder,
    remove_unfinished,
    replaces_earlier_run,
    settings_of,
    write_run_yaml,
)


def config_of(**values: object) -> RunConfig:
    values = {"model_name_or_path": "m", **values}
    return resolve((), [Entry(name, value, "test") for name, value in values.items()]).config


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_run_yaml(folder, config_of(output_dir=str(folder)))
    (folder / "checkpoints" / "step-000001").mkdir(parents=True)
    return folder


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path):
    folder = open_run_folder(config_of(output_dir=str(tmp_path / "a" / "b")))
    assert folder == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []
    assert open_run_folder(config_of(output_dir=str(folder))) == folder


def test_the_home_folder_has_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_run_folder(config_of(output_dir="~/out")) == tmp_path / "out"


def test_a_range_test_is_no_run_and_stays(tmp_path: Path):
    kept = tmp_path / "out" / LR_FIND / "lr_find.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}", encoding="utf-8")
    folder = open_run_folder(config_of(output_dir=str(tmp_path / "out")))
    make_run(folder)
    clear_earlier_run(folder)
    assert list(folder.iterdir()) == [kept.parent]
    assert kept.is_file()


def test_a_run_is_protected(tmp_path: Path):
    folder = make_run(tmp_path / "out")
    with pytest.raises(
        RunError, match=r"out: output_dir holds a run already\n  Go on .*resume_from"
    ):
        open_run_folder(config_of(output_dir=str(folder)))


@pytest.mark.parametrize("flags", [{}, {"overwrite_output_dir": True}])
def test_other_files_are_protected_even_from_overwriting(tmp_path: Path, flags: dict[str, bool]):
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match=r"not empty, and what is in it is no run of luthier's\n"):
        open_run_folder(config_of(output_dir=str(tmp_path), **flags))
    assert (tmp_path / "thesis.tex").exists()


def test_what_a_process_left_before_it_had_begun_a_run_is_in_nobodys_way(tmp_path: Path):
    for name in (".luthier-lock", ".staging-write-test-7", ".staging-run.yaml-7"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert open_run_folder(config_of(output_dir=str(tmp_path))) == tmp_path


def test_opening_removes_nothing_and_clearing_all_but_the_folder(tmp_path: Path):
    folder = make_run(tmp_path / "out")
    config = config_of(output_dir=str(folder), overwrite_output_dir=True)
    assert open_run_folder(config) == folder
    assert (folder / "checkpoints" / "step-000001").is_dir()
    assert replaces_earlier_run(folder, config.checkpoints)
    clear_earlier_run(folder)
    assert list(folder.iterdir()) == []
    assert not replaces_earlier_run(folder, config.checkpoints)


def test_a_link_to_another_disk_stays_a_link(tmp_path: Path):
    disk = make_run(tmp_path / "disk")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (disk / "link").symlink_to(outside)
    folder = tmp_path / "out"
    folder.symlink_to(disk)
    clear_earlier_run(folder)
    assert folder.is_symlink()
    assert list(disk.iterdir()) == []
    assert (outside / "kept").exists()


def test_what_marks_a_run_is_removed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_run(tmp_path / "out")
    (folder / "zzz").touch()

    def broken(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(run_folder.shutil, "rmtree", broken)
    message = r"checkpoints: the earlier run can't be removed: Permission denied\n  Choose another"
    with pytest.raises(RunError, match=message):
        clear_earlier_run(folder)
    assert (folder / "run.yaml").exists()


def test_going_on_takes_the_folder_over(tmp_path: Path):
    folder = make_run(tmp_path / "out")
    for resume in (True, str(folder / "checkpoints" / "step-000001"), str(folder)):
        config = config_of(
            output_dir=str(folder), resume_from_checkpoint=resume, overwrite_output_dir=True
        )
        assert open_run_folder(config) == folder
        assert not replaces_earlier_run(folder, config.checkpoints)


def test_a_checkpoint_elsewhere_does_not_open_a_used_folder(tmp_path: Path):
    folder, other = make_run(tmp_path / "out"), make_run(tmp_path / "other")
    resume = str(other / "checkpoints" / "step-000001")
    with pytest.raises(RunError, match="output_dir holds a run already"):
        open_run_folder(config_of(output_dir=str(folder), resume_from_checkpoint=resume))
    config = config_of(
        output_dir=str(folder), resume_from_checkpoint=resume, overwrite_output_dir=True
    )
    assert replaces_earlier_run(open_run_folder(config), config.checkpoints)


@pytest.mark.parametrize("name", ["model_name_or_path", "adapter_name_or_path"])
def test_a_run_does_not_remove_its_own_model(tmp_path: Path, name: str):
    folder = make_run(tmp_path / "out")
    inside = str(folder / "checkpoints" / ".." / "checkpoints" / "step-000001")
    config = config_of(output_dir=str(folder), overwrite_output_dir=True, **{name: inside})
    with pytest.raises(
        RunError, match=rf"{name} lies in output_dir, which --overwrite.*\n  Choose"
    ):
        open_run_folder(config)


def test_a_folder_that_can_not_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"output_dir can't be written: Not a directory\n.*another"):
        open_run_folder(config_of(output_dir=str(tmp_path / "file" / "out")))


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path: Path):
    folder = make_run(tmp_path / "out")
    (folder / "checkpoints" / ".staging-step-000002-abc").mkdir()
    (folder / ".staging-files-1234").mkdir()
    (folder / ".staging-files-1234" / "model.safetensors").touch()
    (folder / ".staging-manifest.json-77").touch()
    remove_unfinished(folder)
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000001"]
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "run.yaml"]


def test_a_lock_alone_is_no_use_of_a_folder(tmp_path: Path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LOCK).touch()
    assert open_run_folder(config_of(output_dir=str(folder))) == folder
    clear_earlier_run(folder)
    assert (folder / LOCK).exists(), "the lock is held while an earlier run is removed"


@pytest.mark.parametrize("name", ["latest", "best"])
def test_a_run_goes_on_in_its_folder_by_name_too(tmp_path: Path, name: str):
    folder = make_run(tmp_path / "out")
    assert open_run_folder(config_of(output_dir=str(folder), resume_from_checkpoint=name)) == folder


def test_run_yaml_says_what_it_is_and_leaves_out_what_is_done_once(tmp_path: Path):
    config = config_of(overwrite_output_dir=True, resume_from_checkpoint="x", learning_rate=2e-4)
    write_run_yaml(tmp_path, config)
    text = (tmp_path / "run.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Every setting of this run. `luthier train` takes this file")
    assert "overwrite_output_dir" not in text
    assert "resume_from_checkpoint" not in text
    again = resolve_file(tmp_path / "run.yaml").config
    assert again.schedule.learning_rate == 2e-4
    assert settings_of(again) == settings_of(config)


def test_a_failed_write_leaves_the_old_run_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_run_yaml(tmp_path, config_of(seed=1))
    before = (tmp_path / "run.yaml").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_run_yaml(tmp_path, config_of(seed=2))
    assert (tmp_path / "run.yaml").read_bytes() == before


# YAML has no spelling for surrogates; the rest of Unicode goes through.
@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(text="one\r\ntwo\rthree")
@example(text="a\x85b\u2028c\u2029d\ufeffe")
@example(text="  - not: [a list]  # no comment\n\n  indented\t\n")
@example(text="null")
@example(text="2e-4")
@example(text="word " * 60)
def test_any_text_comes_back_from_run_yaml(text: str, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("yaml")
    config = config_of(default_system=text, lora_target=["a", text], task_column="t",
                       task_weights={text: 0.1})  # fmt: skip
    write_run_yaml(folder, config)
    assert settings_of(resolve_file(folder / "run.yaml").config) == settings_of(config)


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(min_value=1e-300, max_value=1e300))
def test_any_number_comes_back_from_run_yaml(rate: float, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("yaml")
    write_run_yaml(folder, config_of(learning_rate=rate))
    assert resolve_file(folder / "run.yaml").config.schedule.learning_rate == rate

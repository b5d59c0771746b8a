"""Damaged checkpoints: found, named, passed over for the one before; the run ends the same."""

from __future__ import annotations

import random
import shutil

import pytest

from fault_injection.report import Report
from fault_injection.scenarios import (
    Damage,
    corruptions,
    cut,
    damage_and_go_on,
    flip_bit,
    judge,
    newest_folder,
)
from fault_injection.workshop import Workshop
from luthier.checkpoints.listing import inspect_checkpoints


def test_every_damage_to_every_file_is_found(workshop: Workshop):

    whole = workshop.whole()
    run = workshop.copy_of(whole.run)
    newest = newest_folder(run)
    pristine = newest.with_name("pristine")
    shutil.copytree(newest, pristine)
    num_tried = 0
    for seed, (name, damage) in enumerate(corruptions(whole, None, seed=0)):
        what = damage(newest / name, random.Random(seed))
        found = inspect_checkpoints(run.folder)
        assert [checkpoint.problem is None for checkpoint in found] == [True, False], what
        shutil.rmtree(newest)
        shutil.copytree(pristine, newest)
        num_tried += 1
    assert num_tried >= 40


@pytest.mark.parametrize(
    ("name", "damage"), [("optimizer.safetensors", flip_bit), ("manifest.json", cut)]
)
def test_the_checkpoint_before_is_used_and_the_bad_one_named(
    workshop: Workshop, name: str, damage: Damage, report: Report
):
    trial = damage_and_go_on(workshop, workshop.whole(), name, damage, seed=0)
    assert not trial.problems, trial
    assert trial.line("Passed over")
    report("a file of a checkpoint damaged", trial.line("Passed over"))


@pytest.mark.slow
def test_two_hundred_random_damages(workshop: Workshop, report: Report):
    whole = workshop.whole()
    trials = [
        damage_and_go_on(workshop, whole, name, damage, seed)
        for seed, (name, damage) in enumerate(corruptions(whole, 200, seed=2))
    ]
    assert len(trials) == 200
    assert [trial for trial in trials if trial.problems] == []
    report("a file of a checkpoint damaged", trials[0].line("Passed over"), tries=200)


def test_all_checkpoints_damaged(workshop: Workshop):

    run = workshop.copy_of(workshop.whole().run)
    for found in inspect_checkpoints(run.folder):
        flip_bit(found.path / "state.json", random.Random(0))
    assert run.train("--resume_from_checkpoint") == 5
    assert "there is no good checkpoint to go on from" in run.said()
    for found in inspect_checkpoints(run.folder):
        assert f"{found.path.name}: the content of state.json has changed" in run.said()


def test_a_file_that_was_added_is_named_and_does_no_harm(workshop: Workshop):
    whole = workshop.whole()
    run = workshop.copy_of(whole.run)
    (newest_folder(run) / "model" / "notes.txt").write_text("mine", encoding="utf-8")
    assert run.start(command="checkpoints").wait() == 0, run.said()
    assert "not luthier's: model/notes.txt" in run.said()
    run.go_on()
    assert judge(run, whole) == ()

"""SIGINT and SIGTERM at any moment: a checkpoint, exit code 75, a command that goes on exactly."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from fault_injection.report import Report
from fault_injection.scenarios import ENDED_AT_ONCE, STOPPED, judge, send, stop_at_times
from fault_injection.workshop import VARIANTS, Workshop
from luthier.checkpoints.listing import inspect_checkpoints
from luthier.engine.metrics_file import read_metrics


def at_call(function: str, call: int, what: str) -> dict[str, Any]:
    return {"function": function, "call": call, "do": what}


def newest_name(run: Any) -> str:
    return inspect_checkpoints(run.folder)[-1].path.name


def at_times(
    workshop: Workshop, tries: int, settings: dict[str, Any], number: signal.Signals
) -> tuple[str, str]:
    """Stop runs at random times; return what was printed and what was measured."""
    tried = list(stop_at_times(workshop, tries, 1, settings, number))
    assert [trial for trial, _ in tried if trial.problems] == []
    assert len(tried) == tries
    whole = workshop.whole(**settings).run
    records = read_metrics(whole.folder / "metrics.jsonl")
    step_s = max(record["seconds_per_step"] for record in records if record["kind"] == "train")
    note = (
        f"longest time to exit {max(seconds for _, seconds in tried):.2f} s, "
        f"with {step_s / 4:.3f} s for a micro-batch "
        f"and {whole.children[-1].longest_save_s():.2f} s for a checkpoint"
    )
    return tried[0][0].line("writing a checkpoint"), note


def test_at_random_times(workshop: Workshop, report: Report):
    seen, note = at_times(workshop, 1, {}, signal.SIGTERM)
    report("SIGTERM at a random time", seen, note=note)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("variant", VARIANTS)
def test_at_twenty_random_times(
    workshop: Workshop, variant: str, number: signal.Signals, report: Report
):
    seen, note = at_times(workshop, 20, VARIANTS[variant], number)
    report(f"{number.name} at a random time", seen, tries=20, note=f"{variant}: {note}")


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("lora", "SIGTERM"),
        ("freeze", "SIGINT"),
        *(
            pytest.param(variant, name, marks=pytest.mark.slow)
            for variant in VARIANTS
            for name in ("SIGTERM", "SIGINT")
            if (variant, name) not in (("lora", "SIGTERM"), ("freeze", "SIGINT"))
        ),
    ],
)
def test_in_the_middle_of_a_step(workshop: Workshop, variant: str, name: str, report: Report):
    settings = VARIANTS[variant]
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    # The 18th micro-batch is the second of step 5.
    assert run.train(faults=[at_call("Precision.backward", 18, name)]) == STOPPED, run.said()
    assert newest_name(run) == "step-000004-part-0002"
    seen = run.children[-1].line(f"{name}: writing a checkpoint after this micro-batch")
    assert seen
    run.follow_advice()
    assert judge(run, whole) == ()
    report(f"{name} in the middle of a step", seen)


@pytest.mark.slow
def test_twice_inside_of_one_step(workshop: Workshop):
    whole = workshop.whole()
    run = workshop.run()
    assert run.train(faults=[at_call("Precision.backward", 13, "SIGTERM")]) == STOPPED
    assert newest_name(run) == "step-000003-part-0001"
    again = [at_call("Precision.backward", 2, "SIGTERM")]
    assert run.train("--resume_from_checkpoint", faults=again) == STOPPED, run.said()
    assert newest_name(run) == "step-000003-part-0003"
    run.follow_advice()
    assert judge(run, whole) == ()


def test_inside_of_an_evaluation(workshop: Workshop, report: Report):
    whole = workshop.whole()
    run = workshop.run()
    # The first evaluation is of the untrained model; the second is due after step 3.
    assert run.train(faults=[at_call("ValidationLoss.__call__", 2, "SIGTERM")]) == STOPPED
    assert newest_name(run) == "step-000003"
    steps = [record["step"] for record in run.outcome()["metrics"] if record["kind"] == "eval"]
    assert steps == [0]
    seen = run.children[-1].line("go on   luthier train")
    run.follow_advice()
    assert judge(run, whole) == ()
    report("SIGTERM in an evaluation", seen)


def test_ctrl_c_on_a_terminal_reaches_the_loader_workers_too(workshop: Workshop, report: Report):
    """A terminal sends SIGINT to every process of the session."""
    settings = VARIANTS["workers"]
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    child = run.start(faults=[at_call("Precision.backward", 18, "SIGSTOP")])
    child.wait_for("step     3 ")
    send(child.pid, signal.SIGINT, to_group=True)
    send(child.pid, signal.SIGCONT)
    assert child.wait() == STOPPED, child.text()
    assert child.text().count("SIGINT: writing a checkpoint") == 1
    run.follow_advice()
    assert judge(run, whole) == ()
    report("Ctrl-C on a terminal, with loader workers", child.line("SIGINT: writing"))


@pytest.mark.slow
def test_before_there_is_anything_to_save(workshop: Workshop):
    whole = workshop.whole()
    run = workshop.run()
    assert run.train(faults=[at_call("build_optimizer", 1, "SIGINT")]) == ENDED_AT_ONCE
    assert "Stopped." in run.said()
    run.go_on()
    assert judge(run, whole) == ()


def test_a_second_signal_stops_at_once(workshop: Workshop, report: Report):
    whole = workshop.whole()
    run = workshop.run()
    twice = [
        at_call("Precision.backward", 18, "SIGTERM"),
        # The third checkpoint, of the first signal: its weights are written and not sealed.
        at_call("seal", 3, "SIGTERM"),
    ]
    assert run.train(faults=twice) == ENDED_AT_ONCE, run.said()
    assert newest_name(run) == "step-000004"
    assert run.leftovers() == []
    run.go_on()
    assert judge(run, whole) == ()
    report("a second signal while the checkpoint of the first is written", "Stopped.")


@pytest.mark.parametrize("variant", ["lora", pytest.param("background", marks=pytest.mark.slow)])
def test_usr1_leaves_a_checkpoint_and_goes_on(workshop: Workshop, variant: str, report: Report):
    settings = VARIANTS[variant] | {"save_total_limit": None}
    whole = workshop.whole(**settings)
    run = workshop.run(**settings)
    assert run.train(faults=[at_call("Precision.backward", 18, "SIGUSR1")]) == 0, run.said()
    assert judge(run, whole) == ()
    names = {found.path.name for found in inspect_checkpoints(run.folder)}
    expected = {found.path.name for found in inspect_checkpoints(whole.run.folder)}
    assert names - expected == {"step-000005"}
    seen = run.children[-1].line("SIGUSR1: writing a checkpoint after this step, and going on.")
    assert seen
    report("SIGUSR1", seen)


@pytest.mark.slow
def test_a_checkpoint_of_usr1_is_one_to_go_on_from(workshop: Workshop):
    whole = workshop.whole()
    run = workshop.run()
    faults = [
        at_call("Precision.backward", 18, "SIGUSR1"),
        at_call("Precision.backward", 23, "SIGKILL"),
    ]
    assert run.train(faults=faults) == -signal.SIGKILL
    assert "Going on after step 5" in run.go_on().text()
    assert judge(run, whole) == ()


def test_what_a_stopped_run_says_of_itself(workshop: Workshop):
    run = workshop.run()
    assert run.train(faults=[at_call("Precision.backward", 18, "SIGTERM")]) == STOPPED
    manifest = json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["outcome"]["finished"] is False
    assert manifest["outcome"]["steps"] == 4
    assert "Stopped after step 4 of 12" in run.said()

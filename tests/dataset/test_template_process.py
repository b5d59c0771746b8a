"""Templates in a process of their own: the same texts, and an end to each hostile one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.dataset import template_process
from luthier.dataset.template_process import TemplateProcess
from luthier.dataset.template_text import Asked, Outcome, render_text

TURNS = [("user", "Hi \ud83c\x00木"), ("assistant", "b\n")]
HELLO = "{% for m in messages %}{{ m.content }}{% endfor %}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATES = sorted((Path(__file__).parent / "templates_data").glob("*.jinja"))


@pytest.fixture
def apart() -> Generator[TemplateProcess]:
    process = TemplateProcess()
    yield process
    process.stop()


def said(process: TemplateProcess, template: str) -> Outcome:
    (outcome,) = process.render(template, [Asked(TURNS)], {})
    return outcome


def pid_of(process: TemplateProcess) -> int:
    running = process._process
    assert running is not None
    return running.pid


def test_texts_marks_and_refusals_are_those_of_the_own_process(apart: TemplateProcess):
    templates = [path.read_text(encoding="utf-8") for path in TEMPLATES]
    templates += [HELLO, "{{ raise_exception('no') }}", "{% if %}", "{{ messages[7].a }}"]
    assert len(templates) > 8
    for prompt in (False, True):
        for template in templates:
            asked = Asked(TURNS, prompt, "{% generation" in template)
            names = {"bos_token": "<s>", "eos_token": "</s>"}
            (there,) = apart.render(template, [asked], names)
            here = render_text(template, asked, names)
            assert (there.text, there.refusal, there.line) == (here.text, here.refusal, here.line)
            assert [tuple(range_) for range_ in there.ranges] == list(here.ranges)


@pytest.mark.parametrize(
    "template",
    [
        ENDLESS,
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = messages|length + 7 %}{{ n ** (n ** n) }}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_what_does_not_end_is_ended(apart: TemplateProcess, monkeypatch, template: str):
    monkeypatch.setattr(template_process, "MAX_SECONDS", 0.3)
    assert said(apart, HELLO).text
    first = pid_of(apart)
    assert said(apart, template).runaway == "more than 0.3 s of computing"
    assert said(apart, HELLO).text == "".join(content for _, content in TURNS)
    assert pid_of(apart) != first


@pytest.mark.parametrize(
    "template",
    [
        "{{ ('a' * 1000000000)|length }}",
        "{{ 'a'.ljust(3000000000)|length }}",
        "{{ ('%3000000000d' % 1)|length }}",
        "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x|length }}",
        "{% set x = ['aaaaaaaaaaaaaaaa'] %}" + "{% set x = x + x %}" * 40 + "{{ x|length }}",
        "{% set x = 'a' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40 + "{{ x|length }}",
    ],
)
def test_what_fills_the_memory_gets_none(apart: TemplateProcess, template: str):
    outcome = said(apart, template)
    assert outcome.runaway == "MemoryError"
    peak_kb = next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid_of(apart)}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    assert peak_kb << 10 < template_process.MAX_BYTES + (600 << 20)
    assert said(apart, HELLO).text


def test_long_messages_have_room(apart: TemplateProcess):
    text = "琴" * (16 << 20)
    (outcome,) = apart.render(HELLO, [Asked([("user", text)])], {})
    assert outcome.text == text


def test_many_are_rendered_in_one_go(apart: TemplateProcess, monkeypatch):
    monkeypatch.setattr(template_process, "MAX_SECONDS", 0.3)
    asked = [Asked([("user", f"{number} " * 2_000)]) for number in range(200)]
    outcomes = apart.render(HELLO, asked, {})
    assert [outcome.text for outcome in outcomes] == [one.turns[0][1] for one in asked]
    # One that has to be stopped ends the row; those before it are there.
    trap = "{% if messages[0].content == 'x' %}" + ENDLESS + "{% endif %}" + HELLO
    asked = [Asked([("user", content)]) for content in "abxcd"]
    a, b, stopped = apart.render(trap, asked, {})
    assert (a.text, b.text, stopped.runaway) == ("a", "b", "more than 0.3 s of computing")
    assert apart.render(HELLO, [], {}) == []


def test_threads_take_turns(apart: TemplateProcess):
    found: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        template = f"{number}{{{{ messages[0].role }}}}"
        found[number] = [said(apart, template).text for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"{number}user"] * 20 for number in range(6)}


def test_it_knows_no_secrets_and_runs_nothing_of_the_working_folder(
    apart: TemplateProcess, monkeypatch, tmp_path: Path
):
    (tmp_path / "jinja2.py").write_text("raise SystemExit('the code was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert said(apart, "{{ 1 }}").text == "1"
    environment = Path(f"/proc/{pid_of(apart)}/environ").read_bytes()
    assert b"secret" not in environment
    assert b"PATH=" in environment


def test_ctrl_c_is_not_for_it(apart: TemplateProcess):
    said(apart, HELLO)
    os.kill(pid_of(apart), signal.SIGINT)
    first = pid_of(apart)
    assert said(apart, HELLO).text
    assert pid_of(apart) == first


def test_a_process_that_was_killed_is_started_again(apart: TemplateProcess):
    said(apart, HELLO)
    os.kill(pid_of(apart), signal.SIGKILL)
    outcome = said(apart, HELLO)
    assert outcome.text or outcome.runaway == "a process that ends by SIGKILL"
    assert said(apart, HELLO).text


def test_an_answer_that_was_not_waited_for_is_not_the_next_ones(
    apart: TemplateProcess, monkeypatch
):
    said(apart, HELLO)
    real = template_process._ask

    def interrupted(process: Any, request: Any) -> Generator[bytes]:
        yield next(iter(real(process, request | {"asked": 2 * request["asked"]})))
        raise KeyboardInterrupt

    monkeypatch.setattr(template_process, "_ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        said(apart, HELLO)
    monkeypatch.setattr(template_process, "_ask", real)
    assert said(apart, "{{ 1 }}").text == "1"


def test_a_forked_child_has_a_process_of_its_own():
    shared = template_process._SHARED
    assert said(shared, HELLO).text
    first = pid_of(shared)
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        is_own = said(shared, HELLO).text != "" and pid_of(shared) != first
        shared.stop()
        os.write(writes, b"own" if is_own else b"shared")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reads, 9) == b"own"
    os.close(reads)
    os.close(writes)
    assert said(shared, HELLO).text
    assert pid_of(shared) == first


def test_it_ends_with_its_parent(tmp_path: Path):
    import subprocess

    code = (
        "import os, signal\nfrom luthier.dataset import template_process as t\n"
        "t.render_apart('x', [t.Asked([])], {})\n"
        "print(t._SHARED._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    left = Path(f"/proc/{int(done.stdout)}")
    for _ in range(200):
        if not left.exists() or "Z" in left.joinpath("stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.05)
    raise AssertionError("the process outlives its parent")


def test_a_process_that_does_not_start_says_so(apart: TemplateProcess, monkeypatch, tmp_path: Path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(ModelError, match=r"does not start .*status 3\)\n.*: no such library"):
        said(apart, HELLO)

"""Runs of luthier in child processes: start them, hurt them, bring them to their end, compare.

A run that was hurt is held against the same run left alone: `Run.outcome` must be equal, bit for
bit.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_injection.zygote import command, environment
from luthier.checkpoints.listing import inspect_checkpoints, newest_good
from luthier.core.files import STAGING_PREFIX
from luthier.core.hashing import hash_file
from luthier.core.lock import LOCK
from luthier.engine.meter import PARTS
from luthier.engine.metrics_file import read_metrics
from luthier.recipes.events import EVENTS, read_events
from luthier.recipes.run_folder import METRICS, RUN_YAML

WAIT_S = 120
"""No child of the suite takes so long: one that does hangs."""

_CLOCKED = frozenset(
    {"elapsed_seconds", "eval_seconds", "memory_bytes", "seconds_per_step"}
    | {"supervised_tokens_per_second", "tokens_per_second"}
    | {f"seconds_{part}" for part in PARTS}
)
"""What metrics.jsonl says of time and memory: never the same twice."""


class Zygote:
    """The process that forks the children; close it at the end."""

    def __init__(self) -> None:
        """Start it and wait until it has loaded everything."""
        self._process = subprocess.Popen(
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
            start_new_session=True,
        )
        self._changed = threading.Condition()
        self._pids: dict[int, int] = {}
        self._ends: dict[int, tuple[int, float]] = {}
        self._is_dead = False
        assert self._process.stdout is not None
        first = json.loads(self._process.stdout.readline())
        self.pid: int = first["ready"]
        self.num_threads: int = first["threads"]
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, **request: Any) -> tuple[int, int]:
        """Fork a child; return the number of the request and of the process.

        Args:
            request: As `zygote.become` reads it.

        Raises:
            RuntimeError: This process is dead.
        """
        number = len(self._pids) + 1
        self._refuse_if_dead()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, **request}) + "\n")
        self._process.stdin.flush()
        self._wait_for(self._pids, number, WAIT_S)
        return number, self._pids[number]

    def end_of(self, number: int, timeout_s: float) -> tuple[int, float] | None:
        """Return exit code and time (`perf_counter`) of a child's end; None if it still runs.

        Raises:
            RuntimeError: This process is dead, and nobody knows how its child fares.
        """
        self._wait_for(self._ends, number, timeout_s)
        return self._ends.get(number)

    def close(self) -> None:
        """End it, and all children that still run."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = json.loads(line)
            with self._changed:
                if "started" in report:
                    self._pids[report["started"]] = report["pid"]
                else:
                    self._ends[report["ended"]] = report["code"], time.perf_counter()
                self._changed.notify_all()
        with self._changed:
            self._is_dead = True
            self._changed.notify_all()

    def _wait_for(self, reports: Mapping[int, Any], number: int, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: number in reports or self._is_dead, timeout_s)
        if number not in reports:
            self._refuse_if_dead()

    def _refuse_if_dead(self) -> None:
        if self._is_dead:
            raise RuntimeError(f"the process that forks died, exit code {self._process.wait()}")


def line_with(words: str, text: str) -> str:
    """Return the first line that holds some words; empty where none does."""
    return next((line for line in text.splitlines() if words in line), "")


@dataclass(frozen=True)
class Child:
    """One process that trains.

    Attributes:
        number: Of the request.
        pid: Of the process, which leads a session of its own.
        log: What it prints.
        trace: The operations on its files, a line each, as `injection.watch_files` writes them.
    """

    zygote: Zygote
    number: int
    pid: int
    log: Path
    trace: Path
    started_s: float

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Return the exit code; of a signal's death, its negative number.

        Raises:
            TimeoutError: The child hangs.
        """
        end = self.zygote.end_of(self.number, timeout_s)
        if end is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout_s} s:\n{self.text()}")
        return end[0]

    def seconds(self) -> float:
        """Return how long it ran."""
        return self.ended_s() - self.started_s

    def ended_s(self) -> float:
        """Return when it ended, by `perf_counter`."""
        end = self.zygote.end_of(self.number, WAIT_S)
        assert end is not None, self.text()
        return end[1]

    def lives_after(self, seconds: float) -> bool:
        """Return whether it still runs after so many seconds."""
        return self.zygote.end_of(self.number, seconds) is None

    def wait_for(self, words: str, timeout_s: float = WAIT_S) -> None:
        """Return once it has printed something.

        Raises:
            TimeoutError: It ended, or took too long, without printing it.
        """
        until_s = time.perf_counter() + timeout_s
        while words not in self.text():
            if not self.lives_after(0.002) and words not in self.text():
                raise TimeoutError(f"it ended without {words!r}:\n{self.text()}")
            if time.perf_counter() > until_s:
                raise TimeoutError(f"no {words!r} in {timeout_s} s:\n{self.text()}")

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def line(self, words: str) -> str:
        """Return the first printed line that holds some words; empty where none does."""
        return line_with(words, self.text())

    def operations(self) -> list[str]:
        """Return the operations that changed its folders, in their order."""
        return [line.split(" ", 1)[1] for line in self._trace_lines()]

    def longest_save_s(self) -> float:
        """Return the longest time that a checkpoint took, from its first folder to its name."""
        begun: dict[str, float] = {}
        longest = 0.0
        for line in self._trace_lines():
            time_s, event, path = line.split(" ", 2)
            name = Path(path).name
            if event == "os.mkdir" and name.startswith(f"{STAGING_PREFIX}step-"):
                begun[name] = float(time_s)
            elif event == "os.rename" and name in begun:
                longest = max(longest, float(time_s) - begun[name])
        return longest

    def _trace_lines(self) -> list[str]:
        return self.trace.read_text(encoding="utf-8").splitlines()


@dataclass
class Run:
    """A run of luthier in a working folder of its own.

    Attributes:
        root: The working folder; the settings file and everything relative lies there.
        settings: What stands in the settings file.
        children: The processes that have worked on it, in their order.
    """

    zygote: Zygote
    root: Path
    settings: Mapping[str, Any]
    children: list[Child] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.root / self.settings["output_dir"]

    def start(self, *flags: str, command: str = "train", **faults: Any) -> Child:
        """Start a process.

        Args:
            flags: Behind the settings file (of `train`) or the run's folder (of other commands).
            command: Of luthier.
            faults: `kill_at`, `faults`: as `injection.py` has them; `env`: variables to set.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        file = self.root / "run.yaml"
        file.write_text(json.dumps(self.settings), encoding="utf-8")
        subject = file.name if command == "train" else self.folder.name
        return self.start_words([command, subject, *flags], **faults)

    def start_words(self, words: Sequence[str], **faults: Any) -> Child:
        """Start a process by the words of its command line."""
        number = len(self.children) + 1
        log, trace = self.root / f"{number}.log", self.root / f"{number}.trace"
        watched = (self.folder, self.root / "prepared")
        request: dict[str, Any] = {
            "args": list(words),
            "module": "luthier.cli.main",
            "cwd": str(self.root),
            "log": str(log),
            "trace": str(trace),
            "watch": [str(folder.resolve()) for folder in watched],
            "env": {},
            "kill_at": None,
            "faults": [],
        }
        started_s = time.perf_counter()
        request_number, pid = self.zygote.start(**(request | faults))
        self.children.append(Child(self.zygote, request_number, pid, log, trace, started_s))
        return self.children[-1]

    def train(self, *flags: str, **faults: Any) -> int:
        """Start a process, wait for it, and return its exit code."""
        return self.start(*flags, **faults).wait()

    def said(self) -> str:
        """Return what the newest process printed."""
        return self.children[-1].text()

    def go_on(self) -> Child:
        """Start the run again as its user would after a death, and wait for its end.

        Raises:
            RuntimeError: It does not end well.
        """
        good, _ = newest_good(self.folder)
        is_run = (self.folder / RUN_YAML).is_file()
        begin_anew = ["--overwrite_output_dir"] if is_run else []
        code = self.train(*(["--resume_from_checkpoint"] if good else begin_anew))
        if code != 0:
            raise RuntimeError(f"the run could not go on, exit code {code}:\n{self.said()}")
        return self.children[-1]

    def follow_advice(self) -> Child:
        """Start what the newest process printed as the command that goes on, and wait for it.

        Raises:
            RuntimeError: It printed none, or that does not end well.
        """
        last = self.children[-1]
        line = last.line("go on   luthier ") or last.line("again   luthier ")
        words = shlex.split(line)
        if not words:
            raise RuntimeError(f"no command that goes on was printed:\n{last.text()}")
        child = self.start_words(words[words.index("luthier") + 1 :])
        if child.wait() != 0:
            raise RuntimeError(f"the command did not end well:\n{child.text()}")
        return child

    def outcome(self) -> dict[str, Any]:
        """Return all that must be equal in a run that was hurt and in one that was not."""
        newest, _ = newest_good(self.folder)
        tensors = [*self.folder.glob("*.safetensors")]
        state: dict[str, Any] = {}
        if newest is not None:
            tensors += newest.rglob("*.safetensors")
            state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        return {
            "tensors": {str(path.relative_to(self.folder)): hash_file(path) for path in tensors},
            "progress": state.get("progress"),
            "batches": state.get("batches"),
            "metrics": [
                {name: value for name, value in record.items() if name not in _CLOCKED}
                for record in read_metrics(self.folder / METRICS)
                if record["kind"] != "save"  # A run that was stopped has one more.
            ],
            "events": read_events(self.folder / EVENTS),
        }

    def leftovers(self) -> list[str]:
        """Return what a run that has ended may not leave: staging, a lock, a bad checkpoint."""
        names = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")]
        left = [name for name in names if STAGING_PREFIX in name or name == LOCK]
        checkpoints = inspect_checkpoints(self.folder)
        return left + [f"{c.path.name}: {c.problem}" for c in checkpoints if c.problem]

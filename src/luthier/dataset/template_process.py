"""Chat templates of strangers, rendered in a process of their own that the system can stop.

A template is a program. jinja2's sandbox keeps it from files and from Python, but not from looping
for ever, nor from filling the memory, and Python can't break off one long operation (`9**9**9`) in
its own process. So templates that luthier did not write run beside it: the kernel ends the process
at a limit of computing time, and refuses it memory beyond a limit. It serves all templates of a run
and ends with it. Each exchange costs some 100 microseconds, so many rows are asked for in one.

In: a template's text and what it is to render. Out: outcomes. The two sides speak JSON: a line asks
for a number of renderings, and each is answered by a line.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from luthier.core.errors import ModelError
from luthier.dataset.template_text import Asked, Outcome, render_text

MAX_SECONDS = 5.0
"""Computing time of one rendering. A long conversation takes some milliseconds."""

MAX_BYTES = 512 << 20
"""Memory that one rendering may take, beside 64 bytes for each character of its messages."""

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "HF_HOME")
"""What the process is told of the environment. Keys and tokens are not."""

_READY = b"ready\n"


class TemplateProcess:
    """The process, started at its first use, and again after it was stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._known: dict[str, int] = {}

    def render(
        self, template: str, asked: Sequence[Asked], names: Mapping[str, Any]
    ) -> list[Outcome]:
        """Render as `template_text.render_text` does, within the limits.

        Args:
            template: The template's text.
            asked: What is to be rendered.
            names: Special tokens that the template may name.

        Returns:
            The outcomes in order, up to the first rendering that had to be stopped.

        Raises:
            ModelError: The process can't be started.
        """
        with self._lock:
            process = self._running()
            request: dict[str, Any] = {
                "names": dict(names),
                "asked": [_values(one) for one in asked],
            }
            if template not in self._known:
                self._known[template] = len(self._known)
                request["new"] = template
            request["template"] = self._known[template]
            try:
                outcomes = [Outcome(*json.loads(reply)) for reply in _ask(process, request)]
            except BaseException:
                self.stop()  # answers that nobody waits for would be taken for the next ones
                raise
            if len(outcomes) < len(asked):
                outcomes.append(Outcome(runaway=_cause(process.wait())))
                self.stop()
            return outcomes

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        self._known.clear()
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, self._log):
                _close(stream)

    def forget(self) -> None:
        """Leave the process to the parent of a process that was just forked."""
        self._lock = threading.Lock()
        self._process, self._known = None, {}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.stop()
        if self._process is None:
            self._process = self._start()
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process is)
        process = subprocess.Popen(
            # -P: a file of the working folder must not pass for a module.
            [sys.executable, "-P", "-m", __name__, str(MAX_SECONDS), str(MAX_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            | {"HF_HUB_OFFLINE": "1"},
        )
        assert process.stdout is not None
        if process.stdout.readline() == _READY:
            return process
        status = process.wait()
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise ModelError(
            f"the process that renders chat templates does not start ({_cause(status)})",
            mend=f"Its last words: {said[-1]}",
        )


_SHARED = TemplateProcess()
# Windows has neither the limits nor the signals: there a template has the sandbox alone.
render_apart = render_text if sys.platform == "win32" else _SHARED.render
"""Render turns in this run's one process for templates; see `TemplateProcess.render`."""
atexit.register(_SHARED.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SHARED.forget)


def _ask(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the answers, each a line of JSON; fewer than were asked for if the process ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return
    for _ in request["asked"]:
        reply = process.stdout.readline()
        if not reply.endswith(b"\n"):
            return
        yield reply


def _values(record: Asked | Outcome) -> list[Any]:
    """Return a record's values in order; `dataclasses.astuple` would copy each text."""
    return [getattr(record, name) for name in record.__slots__]


def _close(stream: IO[bytes] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except BrokenPipeError:  # what was not sent when the process ended
        return


def _cause(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"more than {MAX_SECONDS:g} s of computing"
    if status < 0:
        return f"a process that ends by {signal.Signals(-status).name}"
    return f"a process that ends with status {status}"


def serve(requests: Iterable[bytes], replies: IO[bytes], seconds: float, num_bytes: int) -> None:
    """Answer requests until there are no more; the other side of `TemplateProcess`.

    Args:
        requests: Lines of JSON.
        replies: Where the outcomes go.
        seconds: Computing time of one rendering; the kernel ends the process beyond it.
        num_bytes: Memory of one rendering.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for luthier, which may go on a while
    warm = render_text("{{ messages }}", Asked([]), {})
    assert warm.refusal is None, warm.refusal
    base = _address_space()
    replies.write(_READY)
    replies.flush()
    templates: list[str] = []
    for line in requests:
        request = json.loads(line)
        if "new" in request:
            templates.append(request["new"])
        template = templates[request["template"]]
        asked = [Asked(*one) for one in request["asked"]]
        _limit_memory(base + num_bytes + 64 * sum(one.num_chars() for one in asked))
        for one in asked:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            outcome = render_text(template, one, request["names"])
            signal.setitimer(signal.ITIMER_PROF, 0)
            replies.write(json.dumps(_values(outcome)).encode() + b"\n")
            # What was rendered is not lost with the process, should the next one run away.
            replies.flush()
        _limit_memory(None)


def _limit_memory(num_bytes: int | None) -> None:
    if sys.platform != "linux":
        return  # macOS takes the limit and does not keep to it.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [hard] if num_bytes is None else [num_bytes, hard]
    soft = min((limit for limit in limits if limit >= 0), default=resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Return the bytes of address space that this process has, on Linux."""
    if sys.platform != "linux":
        return 0
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]), int(sys.argv[2]))

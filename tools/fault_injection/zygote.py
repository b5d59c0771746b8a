"""A process that has loaded everything once, and forks a run of luthier for each line it reads.

In: JSON lines, a request each. Out: JSON lines: `ready`, then `started` and `ended` for each run.
A child is a real process of its own, with its own session, that ends as any Python program ends;
only the ten seconds of imports are saved.

The parent computes nothing and has one thread, so that forking it is safe.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

_PRELOADED = (
    "datasets",
    "peft.utils.transformers_weight_conversion",
    "transformers.models.llama.modeling_llama",
    "luthier.cli.checkpoints",
    "luthier.cli.display",
    "luthier.cli.main",
    "luthier.cli.summary",
    "luthier.cli.train",
    "luthier.engine.interrupt",
    "luthier.models.lora_linear",
    "luthier.recipes.checkpoint_list",
    "luthier.recipes.quiet",
    "luthier.recipes.train",
)


def main() -> None:
    """Load, then serve until the input ends; in a child, run what was asked for."""
    import torch
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    torch.set_num_threads(1)
    for name in _PRELOADED:
        importlib.import_module(name)
    get_checkpoint_conversion_mapping("llama")  # transformers makes a table at its first use.
    gc.freeze()  # A child need not look through all of this when it ends.
    _report(ready=os.getpid(), threads=len(list(Path("/proc/self/task").iterdir())))
    request = serve()
    if request is not None:
        become(request)


def serve() -> dict[str, Any] | None:
    """Fork a child for each request and report how each ends.

    Returns:
        The request, in the child that it made; None in the parent, once the input has ended.
    """
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker)
    # By request and not by process: the system gives numbers of processes out again.
    running: dict[int, int] = {}
    unread = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if 0 not in ready:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            for pid in running.values():
                os.kill(pid, signal.SIGKILL)
            return None
        *lines, unread = (unread + chunk).split(b"\n")
        for request in map(json.loads, lines):
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(woken)
                os.close(waker)
                return request
            running[request["id"]] = pid
            _report(started=request["id"], pid=pid)


def become(request: dict[str, Any]) -> None:
    """Run a program as a process of its own that was started from a shell would.

    Args:
        request: `args`: of luthier. `cwd`. `log`: gets both outputs. `env`: set on top.
            `module`: whose `main` is called. `watch`, `trace`, `kill_at`, `faults`: as
            `injection.py` has them.
    """
    from fault_injection.injection import watch_calls, watch_files

    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for given, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(given, standard)
    os.close(nothing)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["luthier", *request["args"]]
    program = importlib.import_module(request["module"])
    watch_files(request["watch"], request["trace"], request["kill_at"])
    if request["faults"]:
        watch_calls(request["faults"])
    program.main()


def _reap(running: dict[int, int]) -> None:
    for number, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del running[number]
            _report(ended=number, code=os.waitstatus_to_exitcode(status))


def _report(**facts: Any) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def command() -> list[str]:
    """Return the command line that starts this program."""
    return [sys.executable, "-m", "fault_injection.zygote"]


def environment() -> dict[str, str]:
    """Return the environment that it needs: one thread everywhere, and this package."""
    fixed = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    # Arrow's allocator would start a thread, and no thread crosses a fork.
    fixed["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    fixed["COLUMNS"] = "200"  # A narrow table folds what tests look for.
    found = os.environ.get("PYTHONPATH")
    places = [str(Path(__file__).parents[1]), *([found] if found else [])]
    return {**os.environ, **fixed, "PYTHONPATH": os.pathsep.join(places)}


if __name__ == "__main__":
    main()

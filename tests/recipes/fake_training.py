"""Stands in for `luthier train` in the tests of sweeps: a run folder in a tenth of a second.

    python fake_training.py BEHAVIOUR.json SETTINGS.yaml [--resume_from_checkpoint]

Its validation loss falls to 1000 times the learning rate. BEHAVIOUR.json says for a trial's folder
how it is to behave; all others finish.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.checkpoints.listing import FOLDER, checkpoint_name
from luthier.checkpoints.manifest import seal
from luthier.core.exit_codes import STOPPED
from luthier.core.files import append_jsonl, write_json, write_text
from luthier.core.lock import locked_folder

MOST_S = 30.0


def main(behaviours: Path, settings: Path, *flags: str) -> int:
    text = settings.read_text(encoding="utf-8")
    # A long value stands on the line below its name.
    folder = Path(re.findall(r"\boutput_dir:\s+(\S+)", text)[0])
    rate = float(re.findall(r"\blearning_rate:\s+(\S+)", text)[0])
    behaviour = json.loads(behaviours.read_text()).get(folder.name, "finish")
    append_jsonl(behaviours.with_name("calls.jsonl"), [folder.name, *flags])
    if behaviour == "cannot begin":
        sys.stdout.write("some words\nerror: rows.jsonl: the memory is full\n  Mend it.\n")
        return 1
    folder.mkdir(exist_ok=True)
    with locked_folder(folder, lambda line: None):
        write_text(folder / "run.yaml", text)
        write_json(folder / "manifest.json", {})
        if behaviour == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if not flags:
            for record in evaluations(rate, behaviour):
                append_jsonl(folder / "metrics.jsonl", record)
        finished = not behaviour.startswith("hang") or bool(flags) or not until_stopped(folder)
        if finished and flags:
            append_jsonl(folder / "metrics.jsonl", {"kind": "eval", "step": 3, "eval_loss": rate})
        outcome = {"finished": finished, "steps": 2, "seconds": 1.5}
        write_json(folder / "manifest.json", {"outcome": outcome})
    return 0 if finished else STOPPED


def evaluations(rate: float, behaviour: str) -> Iterator[dict[str, Any]]:
    for step, factor in ((0, 9000.0), (1, 2000.0), (2, 1000.0)):
        loss = None if behaviour == "diverges" and step else rate * factor
        name = "eval_other" if behaviour == "measures another" else "eval_loss"
        yield {"kind": "eval", "step": step, name: loss}


def until_stopped(folder: Path) -> bool:
    """Wait for SIGTERM, and write a checkpoint then; the folder tells that the wait has begun."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    (folder / "waits").touch()
    end_s = time.monotonic() + MOST_S
    while not asked and time.monotonic() < end_s:
        time.sleep(0.01)
    checkpoint = folder / FOLDER / checkpoint_name(2)
    checkpoint.mkdir(parents=True)
    seal(checkpoint, {"step": 2, "part": 0, "metrics": {}})
    return bool(asked)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))

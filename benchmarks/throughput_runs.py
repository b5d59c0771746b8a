"""Contestants of throughput.py as processes of their own: what each is, how it runs, what it took.

In: what all are given (`Inputs`) and which contestant. Out: `result.json` in the run's folder,
with seconds and tokens of each step, the largest resident memory of the process, and the held-out
loss of the model that it left. Nothing here loads torch: a child's peak memory on Linux is never
below that of the process that starts it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TRL_VERSION = "1.16.0"
FROM_CONSTRAINTS = ("torch", "transformers", "peft", "accelerate", "datasets")
LIGER = "liger-kernel==0.8.5"
NAMED_PACKAGES = ("luthier", "trl", "torch", "transformers", "peft", "accelerate", "liger-kernel")
LEARNING_RATES = {"full": 2e-5, "lora": 2e-4}


DISTURBED = 0.1
"""Share of the machine's processors that others may take before a run no longer counts."""


class BenchmarkError(Exception):
    """A measurement that can't be made; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """Who trains, and how.

    Attributes:
        title: What the tables call it.
        system: `lecture`, `trl` or `luthier`.
        settings: What is set beside the common settings, in the system's own names.
        tunings: What it is compared in.
    """

    name: str
    title: str
    system: str
    settings: dict[str, Any]
    tunings: tuple[str, ...] = ("full", "lora")


@dataclass(frozen=True)
class Inputs:
    """What all contestants are given.

    Attributes:
        folder: Of the whole benchmark; holds `train.jsonl` and the prepared rows.
        batch_rows: Rows of a batch, where rows aren't packed.
        cutoff_len: Tokens of a packed row.
        packed_rows: Packed rows of a step.
    """

    model: str
    folder: Path
    device: str
    batch_rows: int
    cutoff_len: int
    packed_rows: int
    lora_rank: int
    limit_s: float


@dataclass(frozen=True)
class Usage:
    """What a process took.

    Attributes:
        peak_bytes: Its largest resident memory.
        wall_s: Its seconds from start to end.
        others: Share of the machine's processors that other processes took meanwhile; None where
            the system doesn't say (it is read from /proc).
    """

    peak_bytes: int
    wall_s: float
    others: float | None


@dataclass(frozen=True)
class Run:
    """One training of one contestant. `number` counts the rounds from 1 and moves the seed."""

    number: int
    contestant: Contestant
    tuning: str
    precision: str
    seed: int

    @property
    def key(self) -> str:
        """The run's name, and its folder's."""
        return f"{self.number}-{self.contestant.name}-{self.tuning}-{self.precision}"


def contestants(inputs: Inputs) -> tuple[Contestant, ...]:
    """Return all, in the order of the tables."""
    packed = {
        "gradient_checkpointing": False,
        "packing": True,
        "packing_strategy": "bfd",
        "max_length": inputs.cutoff_len,
        "per_device_train_batch_size": inputs.packed_rows,
    }
    free = {"packing": "padding_free", "per_device_train_batch_size": inputs.batch_rows}
    frozen = {**packed, "model_init_kwargs": {"dtype": "bfloat16"}}
    filled = {"packing": True, "per_device_train_batch_size": inputs.packed_rows}
    return (
        Contestant("lecture", "the lecture's recipe (Trainer, padded batches)", "lecture", {}),
        Contestant("trl-defaults", "TRL at its defaults", "trl", {}),
        Contestant("trl-tuned", "TRL tuned (no checkpointing, bfd packing)", "trl", packed),
        Contestant(
            "trl-bf16", "TRL tuned, frozen weights kept in bf16", "trl", frozen, tunings=("lora",)
        ),
        Contestant(
            "trl-liger", "TRL tuned, with Liger", "trl", {**packed, "use_liger_kernel": True}
        ),
        Contestant("luthier-free", "luthier, packing: padding_free", "luthier", free),
        Contestant("luthier-packed", "luthier, packing: true", "luthier", filled),
    )


def measure_run(run: Run, inputs: Inputs, python: str) -> dict[str, Any]:
    """Train one contestant and measure it; `result.json` in its folder holds what is returned.

    Args:
        run: Which contestant, and how.
        inputs: What all are given.
        python: The interpreter that has its packages.

    Raises:
        BenchmarkError: It failed; the message ends with its last lines.
    """
    folder = inputs.folder / run.key
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if run.contestant.system == "luthier":
        usage = run_luthier(luthier_settings(run, inputs), folder, inputs)
        measured = read_luthier(folder / "model")
    else:
        case = write_case(folder, peer_case(run, inputs, folder))
        command = [python, str(HERE / "throughput_peers.py"), str(case)]
        usage = run_process(command, folder / "log.txt", inputs)
        measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    result = {
        "round": run.number,
        "contestant": run.contestant.name,
        "tuning": run.tuning,
        "precision": run.precision,
        **measured,
        "memory_bytes": measured["gpu_bytes"] or usage.peak_bytes,
        "wall_s": usage.wall_s,
        "others": usage.others,
        "loss": held_out_loss(str(folder / "model"), folder, inputs),
    }
    # Weights take much room, and all that is asked of them is known by now.
    shutil.rmtree(folder / "model")
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def peer_case(run: Run, inputs: Inputs, folder: Path) -> dict[str, Any]:
    """Return what `throughput_peers.py` is told."""
    is_trl = run.contestant.system == "trl"
    return {
        "model": inputs.model,
        "rows": str(inputs.folder / "train-ids.jsonl"),
        "folder": str(folder),
        "device": inputs.device,
        "tuning": run.tuning,
        "precision": run.precision,
        "seed": run.seed,
        "learning_rate": LEARNING_RATES[run.tuning],
        "lora_rank": inputs.lora_rank,
        "batch_rows": inputs.batch_rows,
        "trl": run.contestant.settings if is_trl else None,
    }


def luthier_settings(run: Run, inputs: Inputs) -> dict[str, Any]:
    """Return the settings of `luthier train`: those of the peers, in luthier's names."""
    lora = {"lora_rank": inputs.lora_rank, "lora_target": "all"} if run.tuning == "lora" else {}
    return {
        "model_name_or_path": inputs.model,
        "train_file": str(inputs.folder / "train.jsonl"),
        "prepared_dir": str(inputs.folder / "prepared"),
        "cutoff_len": inputs.cutoff_len,
        "output_dir": str(inputs.folder / run.key / "model"),
        "finetuning_type": run.tuning,
        **lora,
        "bf16": run.precision == "bf16",
        "learning_rate": LEARNING_RATES[run.tuning],
        "num_train_epochs": 1,
        "seed": run.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "eval_on_start": False,
        **run.contestant.settings,
    }


def run_luthier(settings: dict[str, Any], folder: Path, inputs: Inputs) -> Usage:
    """Run `luthier train` as a user would."""
    path = folder / "settings.yaml"
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in settings.items())
    path.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "luthier", "train", str(path)]
    return run_process(command, folder / "log.txt", inputs)


def read_luthier(folder: Path) -> dict[str, Any]:
    """Return the steps of a run folder, measured as the peers' are: from end to end of a step."""
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        logs = [log for log in map(json.loads, file) if log["kind"] == "train"]
    ends_s = [log["elapsed_seconds"] for log in logs]
    # Nothing says when the first step began, so it has the time that the step itself took.
    seconds = [
        logs[0]["seconds_per_step"],
        *(b - a for a, b in pairwise(ends_s)),
    ]
    rates = ("tokens_per_second", "supervised_tokens_per_second")
    steps = [
        {
            "seconds": taken,
            **{
                name: round(log[rate] * log["seconds_per_step"])
                for name, rate in zip(("tokens", "supervised"), rates, strict=True)
            },
        }
        for taken, log in zip(seconds, logs, strict=True)
    ]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    # On a GPU this is the memory that was reserved at most, as it is for the peers.
    memory_bytes = max(log["memory_bytes"] for log in logs)
    return {"steps": steps, "gpu_bytes": memory_bytes if manifest["machine"]["gpus"] else 0}


def held_out_loss(model: str, folder: Path, inputs: Inputs) -> float:
    """Return the mean loss of a saved model on the held-out rows."""
    case = {
        "models": [model],
        "rows": str(inputs.folder / "heldout-ids.jsonl"),
        "folder": str(folder),
        "device": inputs.device,
    }
    run_inputs("loss", case, inputs)
    return json.loads((folder / "losses.json").read_text(encoding="utf-8"))[model]


def run_inputs(job: str, case: dict[str, Any], inputs: Inputs) -> None:
    """Run a job of `throughput_inputs.py` in luthier's environment."""
    folder = Path(case["folder"])
    command = [sys.executable, str(HERE / "throughput_inputs.py"), job]
    run_process([*command, str(write_case(folder, case))], folder / f"{job}.log", inputs)


def write_case(folder: Path, case: dict[str, Any]) -> Path:
    """Write what a child is told, and return the file."""
    path = folder / "case.json"
    path.write_text(json.dumps(case), encoding="utf-8")
    return path


def run_process(command: list[str], log: Path, inputs: Inputs) -> Usage:
    """Run a command to its end.

    Raises:
        BenchmarkError: It failed, or took longer than `limit_s`.
    """
    started_s, busy_s = time.perf_counter(), machine_busy_s()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(inputs.device),
            start_new_session=True,
        )
        killer = threading.Timer(inputs.limit_s, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            # In a session of its own, it would outlive Ctrl-C.
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started_s
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = " / ".join(lines[-4:])
        raise BenchmarkError(f"exit status {process.returncode} after {wall_s:.0f} s: {said}")
    others = None
    if busy_s is not None and (busy_now_s := machine_busy_s()) is not None:
        its_own_s = usage.ru_utime + usage.ru_stime
        others = max(0.0, busy_now_s - busy_s - its_own_s) / wall_s / (os.cpu_count() or 1)
    return Usage(usage.ru_maxrss * 1024, wall_s, others)


def machine_busy_s() -> float | None:
    """Return the processor seconds that all processes took since the machine started (Linux)."""
    path = Path("/proc/stat")
    if not path.is_file():
        return None
    user, nice, system = map(int, path.read_text(encoding="ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def is_done(path: Path) -> bool:
    """Return whether a result is there, and was made without much other work on the machine."""
    if not path.is_file():
        return False
    others = json.loads(path.read_text(encoding="utf-8")).get("others")
    return others is None or others <= DISTURBED


def environment(device: str) -> dict[str, str]:
    """Return the environment of every child: no hub, no progress bars, and no GPU on `cpu`."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **quiet, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}


@contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """Hold a lock file (as `flock -x` does), so that other work that takes it stands still."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_peers_venv(venv: Path, device: str) -> None:
    """Make the peers' environment: TRL, and the rest as constraints.txt has it."""
    pinned = (HERE.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in pinned if line.partition("==")[0] in FROM_CONSTRAINTS]
    wanted += [f"trl=={TRL_VERSION}", *([LIGER] if device == "cuda" else [])]
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (venv / ".gitignore").write_text("*\n")  # nor will ruff look into it then
    subprocess.run(
        [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", *wanted], check=True
    )


def versions(python: str) -> dict[str, str]:
    """Return the versions of the packages that matter, as an environment has them."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "names = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: names[n] for n in sys.argv[1:] if n in names}))"
    )
    done = subprocess.run(
        [python, "-c", code, *NAMED_PACKAGES], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)

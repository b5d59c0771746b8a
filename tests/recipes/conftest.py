"""What the tests of the recipes share: settings files, and a small run on real rows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, SampleRecord, StepRecord
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import ResolvedConfig, resolve_command
from luthier.recipes.run_config import RunConfig

if TYPE_CHECKING:
    from luthier.dataset.prepare import Prepared
    from luthier.models.adapters import ParameterCount
    from luthier.recipes.corpus import PreparedCorpus
    from luthier.recipes.train import TrainResult

WriteFile = Callable[[str, str | bytes], Path]
Resolve = Callable[..., ResolvedConfig]

TRAIN_ROWS = [
    {"instruction": f"Name {i} colours.", "input": "", "output": "Red, green and blue."[: 5 + i]}
    for i in range(13)
]
VAL_ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Say {i}."},
            {"role": "assistant", "content": "Red"},
        ]
    }
    for i in range(3)
]


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    """Write a file below tmp_path and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def resolve_text(write_file: WriteFile) -> Resolve:
    """Resolve the text of a settings file, and flags behind it."""

    def resolve(text: str | bytes, *flags: str, name: str = "run.yaml") -> ResolvedConfig:
        return resolve_command(read_flags([str(write_file(name, text)), *flags]))

    return resolve


@pytest.fixture
def values_of() -> Callable[[ResolvedConfig], dict[str, Any]]:
    """Return the settings that somebody set, by name."""

    def values(resolved: ResolvedConfig) -> dict[str, Any]:
        everything = {
            name: value
            for section in resolved.config.model_dump().values()
            for name, value in section.items()
        }
        return {name: everything[name] for name in resolved.where}

    return values


class Recorder:
    """A screen that remembers; implements `Screen`."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.notices: list[Notice] = []
        self.work: list[tuple[str, int, int]] = []
        self.corpora: list[PreparedCorpus] = []
        self.prepared: Prepared | None = None
        self.parameters: ParameterCount | None = None
        self.started_at = -1
        self.steps: list[StepRecord] = []
        self.logs: list[StepRecord] = []
        self.evaluations: list[StepRecord] = []
        self.samples: list[SampleRecord] = []
        self.checkpoints: list[tuple[int, str]] = []
        self.ended: list[int] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def working(self, what: str, done: int, total: int) -> None:
        self.work.append((what, done, total))

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice)

    def corpus(self, corpus: PreparedCorpus) -> None:
        self.corpora.append(corpus)

    def data(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def model(self, parameters: ParameterCount, device: Any, precision: Any) -> None:
        self.parameters = parameters

    def on_start(self, progress: Progress) -> None:
        self.started_at = progress.step

    def on_step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def on_log(self, record: StepRecord) -> None:
        self.logs.append(record)

    def on_evaluation(self, record: StepRecord) -> None:
        self.evaluations.append(record)

    def on_samples(self, record: SampleRecord) -> None:
        self.samples.append(record)

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        self.checkpoints.append((step, path))

    def on_end(self, progress: Progress) -> None:
        self.ended.append(progress.step)


class StopAfter:
    """Asks to stop once a step is done; implements `StopRequest`. No step: never."""

    def __init__(self, screen: Recorder, step: int | None = None) -> None:
        self.has_work = False
        self._screen = screen
        self._step = step

    @property
    def requested(self) -> bool:
        done = self._screen.steps[-1].step if self._screen.steps else 0
        return self._step is not None and done >= self._step

    def take_checkpoint_request(self) -> bool:
        return False


@dataclass
class Trained:
    """One call of run_training: its outcome and what its screen saw."""

    result: TrainResult
    screen: Recorder

    @property
    def folder(self) -> Path:
        return self.result.folder

    def losses(self) -> list[float]:
        """Return the logged training losses, from the metrics file."""
        return [m["loss"] for m in self.metrics() if m["kind"] == "train"]

    def metrics(self) -> list[dict[str, Any]]:
        """Return all records but those of saving: a run that was stopped has one more."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] != "save"]

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))


class SmallRun:
    """A run of a tiny model on 13 rows, by default 2 epochs of 4 steps, the last one short."""

    def __init__(self, folder: Path, model: Path, write_file: WriteFile) -> None:
        self.folder = folder
        self.model = model
        self.values: dict[str, Any] = {
            "model_name_or_path": str(model),
            "train_file": str(write_file("rows.json", json.dumps(TRAIN_ROWS))),
            "val_file": str(write_file("val.jsonl", "\n".join(map(json.dumps, VAL_ROWS)))),
            "prepared_dir": str(folder / "prepared"),
            "output_dir": str(folder / "out"),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "cosine",
            "num_train_epochs": 2,
            "logging_steps": 1,
            "bf16": False,
        }

    def write(self, name: str = "small.yaml", **settings: Any) -> Path:
        """Write the settings file; a setting that is None is left out."""
        values = {n: v for n, v in (self.values | settings).items() if v is not None}
        path = self.folder / name
        YAML().dump(values, path)
        return path

    def config(self, *flags: str, **settings: Any) -> RunConfig:
        """Resolve the settings as the command line would."""
        return resolve_command(read_flags([str(self.write(**settings)), *flags])).config

    def train(self, *flags: str, stop_after: int | None = None, **settings: Any) -> Trained:
        """Train in this process."""
        return train_config(self.config(*flags, **settings), stop_after)


def train_config(config: RunConfig, stop_after: int | None = None) -> Trained:
    from luthier.recipes.train import run_training

    screen = Recorder()
    command = ["luthier", "train", "small.yaml"]
    return Trained(run_training(config, command, screen, StopAfter(screen, stop_after)), screen)


@pytest.fixture
def small_run(tmp_path: Path, tiny_llama: Any, write_file: WriteFile) -> SmallRun:
    """A run that takes a second."""
    return SmallRun(tmp_path, tiny_llama(), write_file)


@pytest.fixture
def train_as() -> Callable[..., Trained]:
    """Train a resolved configuration in this process."""
    return train_config


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    if "small_run" not in request.fixturenames:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Train without plotly's 5 MB a run, where a test is not about the report."""
    if "small_run" in request.fixturenames and "real_report" not in request.fixturenames:
        from luthier.recipes import run_report

        monkeypatch.setattr(run_report, "run_page", lambda run: f"report of {run.name}")


@pytest.fixture
def real_report() -> None:
    """Let runs write their whole report."""


class SweepStop:
    """Wants a sweep to stop once it is told so; implements `Stop` of sweep_trial."""

    def __init__(self) -> None:
        self.requested = False
        self.has_work = False
        self.wants_checkpoint = False

    def take_checkpoint_request(self) -> bool:
        wanted, self.wants_checkpoint = self.wants_checkpoint, False
        return wanted


class SweepRecorder:
    """Remembers what a sweep shows; implements `SweepScreen`."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[int] = []
        self.shown: list[Any] = []
        self.ends: list[tuple[Any, Any]] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def begins(self, trial: Any, num_trials: int) -> None:
        self.begun.append(trial.number)

    def progress(self, run: Any) -> None:
        self.shown.append(run)

    def ended(self, trial: Any, best: Any) -> None:
        self.ends.append((trial, best))


class FakeSweep:
    """A sweep whose trials take a tenth of a second (fake_training.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sweep"
        self.behaviours = folder / "behaviours.json"
        self.behaviours.write_text("{}")
        self.screen = SweepRecorder()
        self.stop = SweepStop()
        script = Path(__file__).with_name("fake_training.py")
        self.train = (sys.executable, str(script), str(self.behaviours))
        self.at_wait: Callable[[], object] = lambda: None
        self._yaml = folder / "sweep.yaml"

    def plan(self, *flags: str, **sweep: Any) -> Any:
        """Return the plan of a sweep over learning rates, three trials by default."""
        from luthier.recipes.sweep_plan import read_sweep

        rates = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}
        values: dict[str, Any] = {
            "model_name_or_path": "m",
            "train_file": "rows.jsonl",
            "val_size": 0.1,
            "output_dir": str(self.folder),
            "sweep": {"num_trials": 3, "ranges": rates} | sweep,
        }
        YAML().dump(values, self._yaml)
        return read_sweep(read_flags([str(self._yaml), *flags], options=("num_trials",)))

    def behave(self, **trials: str) -> None:
        """Say how trials behave, by the name of their folder, with _ for -."""
        named = {name.replace("_", "-"): how for name, how in trials.items()}
        self.behaviours.write_text(json.dumps(named))

    def run(self, *flags: str, **sweep: Any) -> Any:
        """Run the sweep, or go on with it."""
        from luthier.recipes.sweep import run_sweep

        return run_sweep(
            self.plan(*flags, **sweep),
            ["luthier", "sweep", "sweep.yaml", *flags],
            self.screen,
            self.stop,
            wait=self._wait,
            train=self.train,
        )

    def calls(self) -> list[list[str]]:
        """Return the trials that were trained, in order, each with its flags."""
        path = self.behaviours.with_name("calls.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def waits(self, number: int) -> bool:
        """Whether a trial has done its validations, and hangs."""
        return (self.folder / f"trial-{number:04d}" / "waits").exists()

    def _wait(self) -> None:
        self.at_wait()
        time.sleep(0.02)


@pytest.fixture
def fake_sweep(tmp_path: Path) -> FakeSweep:
    return FakeSweep(tmp_path)

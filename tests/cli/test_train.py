"""`luthier train`: from the lecture's command to a run folder, an exit code, a way to go on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.cli import train
from luthier.contracts.training import Progress
from luthier.core.errors import SettingsError
from luthier.recipes.train import TrainResult

ROWS = [{"instruction": f"Name {i} colours.", "output": "Red, green and blue."} for i in range(8)]


@pytest.fixture
def settings(tmp_path: Path, tiny_llama: Any) -> Path:
    """A settings file for a tiny model, with its paths relative to tmp_path."""
    tiny_llama("model")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS), encoding="utf-8")
    path = tmp_path / "small.yaml"
    path.write_text(
        "model_name_or_path: model\ntrain_file: rows.json\noutput_dir: out\nprepared_dir: cache\n"
        "learning_rate: 1e-2\nlogging_steps: 1\nlora_rank: 2\nsave_strategy: no\nbf16: false\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def fake_training(monkeypatch: pytest.MonkeyPatch):
    """Put an outcome in training's place; return what training was given."""
    given: dict[str, Any] = {}

    def outcome(step: int) -> dict[str, Any]:
        def run_training(config: Any, command: list[str], screen: Any, stop: Any) -> TrainResult:
            handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
            given.update(config=config, command=command, stop=stop, handlers=handlers)
            return TrainResult(Path("out"), Progress(step=step, num_steps=4), (), 1.0)

        monkeypatch.setattr("luthier.recipes.train.run_training", run_training)
        monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)
        return given

    return outcome


def test_a_finished_run_ends_well(fake_training: Any, capture: Any):
    out = capture(train)
    given = fake_training(4)
    before = signal.getsignal(signal.SIGINT)
    args = ["--model_name_or_path", "m", "--seed", "7"]
    train.run(args)
    assert given["config"].run.seed == 7
    assert given["command"] == ["luthier", "train", *args]
    assert "Done in 1.0 s: 4 steps" in out.getvalue()
    assert given["handlers"][signal.SIGINT] != before
    assert given["handlers"][signal.SIGTERM] != signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_a_stopped_run_ends_with_the_code_for_later(fake_training: Any, capture: Any):
    out = capture(train)
    fake_training(2)
    with pytest.raises(SystemExit) as end:
        train.run(["--model_name_or_path", "m"])
    assert end.value.code == train.STOPPED == 75
    assert "go on   luthier train --model_name_or_path m --resume_from_checkpoint" in out.getvalue()


def test_the_trainer_without_checkpoints_is_stopped_at_once(fake_training: Any, capture: Any):
    capture(train)
    given = fake_training(4)
    before = signal.getsignal(signal.SIGINT)
    train.run(["--model_name_or_path", "m", "--trainer", "transformers"])
    assert given["handlers"][signal.SIGINT] == before
    assert not given["stop"].requested


def test_a_mistake_in_the_settings_starts_nothing(fake_training: Any, capture: Any):
    out = capture(train)
    given = fake_training(4)
    with pytest.raises(SettingsError, match="Did you mean lora_rank"):
        train.run(["--model_name_or_path", "m", "--lora_ranks", "7"])
    assert given == {}
    assert out.getvalue() == ""


def test_ctrl_c_leaves_a_checkpoint_and_a_command_that_goes_on(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capture: Any
):
    words = ["train", settings.name, "--flash_attn", "--max_steps", "400"]
    child = subprocess.Popen(
        [sys.executable, "-m", "luthier", *words],
        cwd=settings.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line)
        if line.startswith("step     2 "):
            break
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    shown = "".join(lines) + out
    assert child.returncode == 75, err
    assert "SIGINT: writing a checkpoint after this micro-batch" in shown
    (checkpoint,) = (settings.parent / "out" / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 2 <= step < 400
    assert f"Stopped after step {step} of 400." in shown

    (go_on,) = [line for line in shown.splitlines() if line.startswith("  go on   luthier ")]
    again = shlex.split(go_on)[3:]
    assert again == [*words, "--resume_from_checkpoint"]
    monkeypatch.chdir(settings.parent)
    monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)
    resumed = capture(train)
    train.run(again[1:])
    steps = [line for line in resumed.getvalue().splitlines() if line.startswith("step ")]
    assert int(steps[0].split()[1]) == step + 1
    assert int(steps[-1].split()[1]) == 400
    assert "Done in" in resumed.getvalue()
    assert Path("out/adapter_model.safetensors").is_file()


def test_the_lectures_command_trains(settings: Path, monkeypatch: pytest.MonkeyPatch, capture: Any):
    lecture = Path(__file__).parents[2] / "configs" / "lora_qlora.yaml"
    text = lecture.read_text(encoding="utf-8")
    for old, new in (
        ("/data/model/Meta-Llama-3-8B-Instruct", "model"),
        ("data/alpaca.jsonl", "rows.json"),
        ("data/val.jsonl", "rows.json"),
    ):
        assert old in text
        text = text.replace(old, new)
    monkeypatch.chdir(settings.parent)
    monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)
    Path("lora_qlora.yaml").write_text(text, encoding="utf-8")
    out = capture(train)
    args = ["--config", "lora_qlora.yaml", "--flash_attn", "--gradient_checkpointing"]
    train.run([*args, "--prepared_dir", "cache"])
    assert "Done in" in out.getvalue()
    notes = {line.split()[1] for line in out.getvalue().splitlines() if line.startswith("note")}
    if not torch.cuda.is_available():
        assert "flash_attn:" in notes
    if find_spec("bitsandbytes") is None:
        assert "bnb_4bit_quant_type:" in notes
    saved = json.loads(Path("output/lora-sft/adapter_config.json").read_text("utf-8"))
    assert set(saved["target_modules"]) == {"q_proj", "v_proj"}

from __future__ import annotations

import json
import re
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch

from luthier.engine import precision
from luthier.recipes import machine


def test_facts_are_plain_json_with_sizes():
    facts = machine.machine_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"]["cores"] >= 1
    assert facts["cpu"]["name"]
    assert facts["memory"]["total_bytes"] >= facts["memory"]["available_bytes"] > 0
    assert facts["torch_build"] == torch.__version__
    assert isinstance(facts["bf16"]["native"], bool)


def test_a_container_limit_counts_as_the_memory(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CGROUP_LIMIT", limit)
    whole = machine.memory()["total_bytes"]
    limit.write_text("1048576\n")
    assert machine.memory() == {"total_bytes": 1048576, "available_bytes": 1048576}
    limit.with_name("memory.current").write_text("1000000\n")
    limit.with_name("memory.stat").write_text("anon 700000\ninactive_file 300000\n")
    assert machine.memory() == {"total_bytes": 1048576, "available_bytes": 1048576 - 700000}
    limit.write_text("max\n")
    assert machine.memory()["total_bytes"] == whole


def test_free_disk_is_that_of_the_nearest_folder_that_exists(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "not" / "there"))
    place = machine.disk()["cache folder"]
    assert place["path"].startswith(str(tmp_path / "not" / "there"))
    assert place["free_bytes"] > 0


def test_the_environment_shows_listed_names_and_never_a_secret():
    given = {
        "OMP_NUM_THREADS": "2",
        "HF_TOKEN": "hf_secret",
        "HTTPS_PROXY": "http://user:secret@proxy",
        "MY_PASSWORD": "secret",
    }
    assert machine.environment(given) == {
        "OMP_NUM_THREADS": "2",
        "HF_TOKEN": "set (not shown)",
        "HTTPS_PROXY": "set (not shown)",
    }


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.environment()["OMP_NUM_THREADS"] == "3"


def test_matrix_rates_are_measured_in_under_a_second_or_so():
    started_s = time.perf_counter()
    rates = machine.measure_matrix_rates()
    assert set(rates) == {"fp32", "bf16"}
    assert min(rates.values()) > 0
    assert time.perf_counter() - started_s < 10


@pytest.mark.parametrize(
    ("native", "rates", "name", "reason"),
    [
        (True, {"fp32": 100.0, "bf16": 210.0}, "bf16", "is in hardware, and measured 2.1 times"),
        (True, {"fp32": 100.0, "bf16": 50.0}, "bf16", "but measured 0.5 times .*: try bf16: false"),
        (False, {"fp32": 100.0, "bf16": 20.0}, "fp32", "is not in hardware, and measured 0.2"),
        (False, {"fp32": 100.0, "bf16": 300.0}, "fp32", "but measured 3.0 .*: try bf16: true"),
    ],
)
def test_the_type_of_training_is_said_with_what_was_measured(
    monkeypatch, native: bool, rates: dict[str, float], name: str, reason: str
):
    monkeypatch.setattr(precision, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(precision, "has_native_bf16", lambda _: native)
    found = machine.training_type(rates)
    assert found["name"] == name
    assert re.search(reason, found["reason"])


def test_a_run_leaves_some_memory_alone(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: {"available_bytes": 1000})
    assert machine.available_memory(torch.device("cpu")) == 900


def test_on_a_gpu_what_torch_holds_idle_is_available_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (300, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 400)
    assert machine.available_memory(torch.device("cuda")) == 350
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 100_000))
    assert machine.available_memory(torch.device("cuda")) == 0


def test_cuda_devices_are_described(monkeypatch):
    properties = SimpleNamespace(name="NVIDIA X", total_memory=80 << 30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(machine, "_driver", lambda: "570.1")
    (gpu,) = machine.gpus()
    assert gpu["name"] == "NVIDIA X"
    assert gpu["memory_bytes"] == 80 << 30
    assert gpu["compute_capability"] == "9.0"
    assert gpu["driver"] == "570.1"


def test_a_program_that_is_missing_or_fails_gives_no_line(monkeypatch):
    assert machine._first_line("luthier-no-such-program") is None

    def fail(*_args: object, **_named: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(subprocess, "run", fail)
    assert machine._driver() is None

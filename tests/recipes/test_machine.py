from __future__ import annotations

import json
import subprocess
import time
from types import SimpleNamespace

import torch

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

from __future__ import annotations

import json

import pytest

from luthier.cli import doctor

FACTS = {
    "machine": {
        "os": "Linux-6",
        "python": "3.11.7",
        "cpu": {"name": "Test CPU", "architecture": "x86_64", "cores": 4, "torch_threads": 4},
        "memory": {"total_bytes": 8 << 30, "available_bytes": 6 << 30},
        "torch_build": "2.13.0",
        "gpus": [
            {
                "name": "NVIDIA X",
                "memory_bytes": 80 << 30,
                "compute_capability": "9.0",
                "cuda": "12.8",
                "driver": None,
            },
            {"name": "Apple GPU (mps)", "memory_bytes": 8 << 30},
        ],
        "bf16": {"device": "cpu", "native": True, "features": ["amx_bf16"]},
    },
    "disk": {"working folder": {"path": "/work [dir]", "free_bytes": 5 << 30}},
    "gflops": {"fp32": 1234.5, "bf16": 99.6},
    "training": {"name": "bf16", "reason": "bf16 is in hardware, but slow [here]"},
    "packages": {"luthier": "0.1.0"},
    "extras": [
        {"name": "bnb", "packages": {"x": None}, "installed": False, "install": "pip install 'y'"},
        {"name": "demo", "packages": {"gguf": "1"}, "installed": True, "install": "pip install z"},
    ],
    "environment": {"HF_TOKEN": "set (not shown)"},
    "warnings": [
        {"setting": "torch", "asked": "2.9", "used": ">=2.10", "reason": "CVE-1. pip install -U"}
    ],
}


@pytest.fixture
def facts(monkeypatch):
    shown = json.loads(json.dumps(FACTS))
    monkeypatch.setattr(doctor, "collect", lambda: shown)
    return shown


def test_tables_hold_every_fact(facts, capture):
    shown = capture(doctor)
    doctor.run(as_json=False)
    text = shown.getvalue()
    for part in (
        "Test CPU, 4 cores (x86_64)",
        "8.0 GiB, 6.0 GiB available",
        "5.0 GiB free at /work [dir]",
        "native (amx_bf16)",
        "fp32 1,234 GFLOP/s, bf16 100 GFLOP/s",
        "bf16: bf16 is in hardware, but slow [here]",
        "NVIDIA X, 80.0 GiB, CUDA 12.8, driver unknown",
        "Apple GPU (mps), 8.0 GiB",
        "not installed: pip install 'y'",
        "gguf 1",
        "HF_TOKEN",
        "torch 2.9: CVE-1. pip install -U",
    ):
        assert part in text


def test_a_device_without_bf16_is_said(facts, capture):
    facts["machine"]["bf16"] |= {"native": False, "features": []}
    facts["environment"] = {}
    shown = capture(doctor)
    doctor.run(as_json=False)
    assert "not in hardware" in shown.getvalue()
    assert "native" not in shown.getvalue()
    assert "environment" not in shown.getvalue()


def test_json_is_the_facts(facts, capture):
    shown = capture(doctor)
    doctor.run(as_json=True)
    assert json.loads(shown.getvalue()) == FACTS


def test_the_real_machine_is_collected(monkeypatch):
    monkeypatch.setattr("luthier.recipes.machine._MEASURE_S", 0.01)
    found = doctor.collect()
    assert set(found) == set(FACTS)
    assert json.loads(json.dumps(found)) == found

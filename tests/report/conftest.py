"""A manifest with everything in it, and dropped rows to go with it."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.report.reported_run import ReportedRun


def step(name: str, rows_in: int, dropped: dict[str, int], **more: Any) -> dict[str, Any]:
    rows_out = rows_in - sum(dropped.values())
    return {"name": name, "rows_in": rows_in, "rows_out": rows_out, "dropped": dropped} | more


def tally(rows: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "characters": rows * 600,
        "tokens": rows * 200,
        "languages": {"en": rows - 20, "zh": 20},
        "categories": {"math": rows - 5, "code": 5},
        "kinds": {"conversation": rows},
        "length_histogram": [[32, 10], [64, rows - 30], [0, 20]],
    }


@pytest.fixture
def manifest() -> dict[str, Any]:
    return {
        "kind": "luthier corpus",
        "format": 1,
        "data_version": "8f3a0d1c52be9947aa60e3d2b81f7c44d09be1a7733c2f5b6e80a94f1d2c3b4a",
        "luthier": "0.1.0",
        "created": "2026-11-02T16:03:22+02:00",
        "seed": 42,
        "is_sample": False,
        "packages": {"rensa": "0.5.0"},
        "sources": [
            {
                "name": "a.jsonl",
                "path": "raw/a.jsonl",
                "bytes": 2048,
                "sha256": "ab" * 32,
                "formats": {"alpaca": 990, "messages": 10},
                "rows": 1002,
                "rows_left": 900,
                "weight": None,
            }
        ],
        "steps": [
            step("read", 1002, {"truncated": 2}, seconds=1.2, from_cache=False),
            step("repair", 1000, {}, counts={"repaired": 12, "repaired_encoding": 9}),
            step("quality", 1000, {"truncated": 10}, counts={"reported_refusal": 9}),
            step("language", 990, {}, counts={"language_en": 970, "language_zh": 20}),
            step(
                "pii",
                990,
                {},
                counts={"redacted_email": 3, "redacted_phone": 2},
                settings={"pii_allow": ["help@example.org"]},
                from_cache=True,
            ),
            step("near", 990, {"dup_near": 90}, settings={"near_threshold": 0.7}, seconds=3.0),
        ],
        "statistics": {
            "tokens_are": "estimated",
            "tokenizer": "SmolLM2",
            "before": tally(1000),
            "after": tally(900),
            "duplicate_groups": {
                "exact": None,
                "near": {"groups": 40, "rows": 130, "largest": [["a.jsonl#12", 7]]},
            },
        },
        "split": {
            "by": "val_size",
            "val_size": 0.05,
            "train": {"rows": 855, "tokens": 171_000},
            "val": {"rows": 45, "tokens": 9_000},
            "num_groups": 800,
            "num_joined": 1,
            "strata": {
                "length": {"1 to 32": {"rows": 10, "val": 1}, "33 to 64": {"rows": 890, "val": 44}},
                "category": {"math": {"rows": 895, "val": 45}, "code": {"rows": 5, "val": 1}},
            },
            "audit": {"share": 0.0, "num_relatives": 0, "examples": []},
        },
        "warnings": [],
        "files": {},
    }


@pytest.fixture
def samples() -> dict[str, list[dict[str, Any]]]:
    return {
        "dup_near": [
            {
                "step": "near",
                "reason": "dup_near",
                "id": "a.jsonl#12",
                "origin": "raw/a.jsonl:13",
                "detail": "prompt 0.91, answer 0.88",
                "score": 0.9,
                "matched_id": "a.jsonl#7",
                "text": "Name a warm colour.",
                "matched_text": "Name a cold colour.",
            }
        ],
        "truncated": [
            {
                "step": "read",
                "reason": "truncated",
                "id": "a.jsonl#1001",
                "origin": "raw/a.jsonl:1002",
                "detail": "the file ends here",
                "score": None,
                "matched_id": None,
                "text": '{"instruction": "Wri',
                "matched_text": None,
            }
        ],
    }


def train_record(step: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "epoch": step / 10,
        "loss": 3.0 - step / 20,
        "learning_rate": 1e-4 * step,
        "grad_norm": 1.0 + step % 3,
        "tokens_per_second": 1000.0,
        "seconds_per_step": 2.0,
        "seconds_data": 0.1,
        "seconds_forward": 0.5,
        "seconds_backward": 1.0,
        "seconds_optimizer": 0.3,
        "memory_bytes": 2.0 * 1024**3,
        "elapsed_seconds": 2.0 * step,
    } | more


def eval_record(step: int, loss: float | None) -> dict[str, Any]:
    return {
        "kind": "eval",
        "step": step,
        "epoch": step / 10,
        "eval_loss": loss,
        "eval_perplexity": None if loss is None else 2**loss,
        "eval_seconds": 1.5,
        "elapsed_seconds": 2.0 * step,
    }


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 40}


RUN_MANIFEST: dict[str, Any] = {
    "luthier": {"version": "0.1.0", "commit": "0123456789abcdef0123"},
    "started": "2026-11-24T10:00:00+00:00",
    "command": ["luthier", "train", "my run.yaml"],
    "seed": 7,
    "data": {
        "inputs": {"train": [{"name": "rows.json", "sha256": "ab" * 32}], "val": []},
        "counts": {"rows_read": 120, "dropped": {"too_long": 9, "own_reason": 1}},
        "splits": {
            "train": {
                "rows": 100,
                "tokens": 5000,
                "supervised_tokens": 3000,
                "max_length": 90,
                "length_histogram": [[64, 80], [128, 15], [0, 5]],
            },
            "val": {"rows": 10, "tokens": 500, "supervised_tokens": 300, "max_length": 60},
        },
    },
    "corpus": {
        "steps": [step("exact", 125, {"dup_exact": 5})],
        "statistics": {
            "before": {"languages": {"en": 90, "zh": 35}},
            "after": {"languages": {"en": 90, "zh": 30}},
        },
    },
    "model": {"name": "models/tiny", "weights_sha256": {"model.safetensors": "cd" * 32}},
    "packages": {"torch": "2.13.0"},
    "machine": {"python": "3.11.7", "cpu": {"name": "Quick", "cores": 2}, "gpus": []},
    "computing": {"device": "cpu", "precision": "fp32"},
    "notices": [{"setting": "flash_attn", "asked": "fa2", "used": "sdpa", "reason": "no GPU"}],
    "outcome": {"steps": 20, "finished": True, "seconds": 60.0, "weights_sha256": "ef" * 32},
}


@pytest.fixture
def reported() -> ReportedRun:
    """A finished run with everything in it."""
    pieces = [
        {"text": "Hi ", "taught": False, "before": None, "after": None},
        {"text": "there", "taught": True, "before": 6.0, "after": 0.25},
        {"text": "!", "taught": True, "before": 3.0, "after": 1.0},
    ]
    versus = {
        "model": "models/tiny",
        "metrics": {
            "exact_match": {
                "base": estimate(0.1),
                "difference": estimate(0.3),
                "wins": 14,
                "losses": 2,
                "ties": 24,
            }
        },
    }
    return ReportedRun(
        name="one",
        folder="out/my one",
        state="finished",
        settings={
            "stage": "sft",
            "model_name_or_path": "models/tiny",
            "finetuning_type": "lora",
            "learning_rate": 1e-4,
            "output_dir": "out/my one",
        },
        manifest=RUN_MANIFEST,
        train=[train_record(step) for step in range(1, 21)],
        evals=[eval_record(0, 3.0), eval_record(10, 2.0), eval_record(20, 2.5)],
        saves=[{"kind": "save", "step": 20, "epoch": 2.0, "seconds": 0.5}],
        samplings=[{"kind": "sample", "step": 20, "epoch": 2.0, "seconds": 1.0}],
        events=[
            {
                "kind": "outlier",
                "step": 7,
                "message": "the gradient is 40 long",
                "rows": [{"row": at, "origin": f"rows.json:{at}"} for at in range(12)],
            }
        ],
        samples=[
            {
                "step": step,
                "epoch": 0.0,
                "prompt": "Name a colour.",
                "answer": f"Answer of step {step}",
                "finish_reason": "stop" if step else "length",
            }
            for step in (0, 10, 20)
        ],
        results={
            "gsm8k.json": {
                "name": "gsm8k",
                "model": "out/my one",
                "base": True,
                "metrics": {"exact_match": estimate(0.4) | {"how": "equal"}},
                "versus": versus,
            },
            "torn.json": None,
        },
        shown_rows={
            "step": 20,
            "has_before": True,
            "rows": [{"origin": "rows.json:3", "side": "val", "judgement": None, "pieces": pieces}],
        },
        num_steps=20,
        seconds=60.0,
        written="2026-11-24T10:02:00+00:00",
    )

"""A manifest with everything in it, and dropped rows to go with it."""

from __future__ import annotations

from typing import Any

import pytest


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

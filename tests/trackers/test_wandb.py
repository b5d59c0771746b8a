"""W&B offline, for real: what it leaves on the disk, read record by record."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.training import SampleRecord
from luthier.trackers.histograms import Histogram
from luthier.trackers.tracker import TrackedRun
from luthier.trackers.wandb import STEP, WandB

pytest.importorskip("wandb.proto", reason="wandb is not installed (extra: wandb)")

BLOCK = 32 * 1024


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield
    wandb.teardown()


def records(folder: Path) -> Iterator[Any]:
    """Yield the records of an offline run's log: LevelDB's format around protobuf messages."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    (path,) = folder.glob("*.wandb")
    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _checksum, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = messages.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def history(folder: Path) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for record in records(folder):
        if record.WhichOneof("record_type") != "history":
            continue
        point: dict[str, Any] = {}
        for item in record.history.item:
            *above, name = item.nested_key or [item.key]
            place = point
            for key in above:
                place = place.setdefault(key, {})
            place[name] = json.loads(item.value_json)
        points.append(point)
    return points


@pytest.mark.usefixtures("offline")
def test_a_run_that_is_stopped_and_goes_on(
    tracked_run: Callable[..., TrackedRun], samples: SampleRecord
):
    tracker = WandB()
    first = tracker.open(tracked_run())
    tracker.log(2, {"train/loss": 2.5})
    tracker.log(2, {"eval/loss": 3.0})
    tracker.log_samples(samples)
    histogram = Histogram([1, 3], [0.0, 1.0, 2.0], 4.0, 5.0)
    tracker.log_histograms(4, {"weights/a.b": histogram})
    tracker.close(failed=False)
    tracker = WandB()
    second = tracker.open(tracked_run(step=4, earlier_id=first.id))
    tracker.log(6, {"train/loss": 2.0})
    tracker.close(failed=False)

    assert second.id == first.id
    assert Path(first.place).parent.parent == tracked_run().folder
    points = history(Path(first.place))
    assert [(p[STEP], p["train/loss"]) for p in points if "train/loss" in p] == [(2, 2.5)]
    assert [(p[STEP], p["eval/loss"]) for p in points if "eval/loss" in p] == [(2, 3.0)]
    (table,) = [p for p in points if "samples" in p]
    assert (table[STEP], table["samples"]["nrows"]) == (4, 2)
    (path,) = Path(first.place).glob("files/media/table/samples*.json")
    assert json.loads(path.read_text(encoding="utf-8"))["data"][0][1:3] == [
        "Say\n*hi*",
        "Hi | there",
    ]
    (drawn,) = [p["weights/a.b"] for p in points if "weights/a.b" in p]
    assert (drawn["values"], drawn["bins"]) == ([1, 3], [0.0, 1.0, 2.0])
    assert [(p[STEP], p["train/loss"]) for p in history(Path(second.place))] == [(6, 2.0)]
    (run,) = [r.run for r in records(Path(first.place)) if r.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project, run.display_name) == (first.id, "violins", "first")
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["lora_target"] == ["q", "v"]


def test_without_a_key_it_asks_nobody(
    tracked_run: Callable[..., TrackedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(RuntimeError, match="knows no API key: run `wandb login`, or set WANDB_M"):
        WandB().open(tracked_run())
    wandb.teardown()

"""Reading takes memory by the row, not by the file: measured in processes of their own.

A process reads a file from end to end as `luthier prepare` does, and says what memory it took at
most. Files of two sizes must take about the same; the long form reads 2 GB.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

MIB = 1 << 20
GROWTH_BYTES = 24 * MIB
"""Beyond this, memory that grows from 20 to 60 MB of data grows with the data."""
READ_BYTES = 128 * MIB
"""What reading 2 GB may take, the interpreter and its libraries included."""
PREPARE_BYTES = 512 * MIB
"""The same of a whole preparation that compares no rows with each other but by their hashes."""

READ = """
import sys
from luthier.corpus.read import read_batches
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import resolve_train
settings = CorpusSettings(train_file=sys.argv[1], on_bad_row="skip")
num_rows = 0
for result, _ in read_batches(resolve_train(settings, any_kind=True), settings, seed=0):
    num_rows += len(result.columns["id"])
"""
PREPARE = """
import sys
from luthier.cli.prepare import run
run([sys.argv[1], "--steps", "schema,exact", "--out", "out", "--corpus_dir", "steps"])
num_rows = 0
"""
PEAK = """
status = open("/proc/self/status").read()
print(num_rows, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""
"""VmHWM, not getrusage: the latter's peak begins with that of the process that started this one."""


def texts(num_bytes: int, chars: int) -> Generator[str]:
    """Yield texts of so many bytes in all, no two of which are alike."""
    for number in range(num_bytes // chars):
        yield f"{number:09} " * (chars // 10)


def write(path: Path, num_bytes: int, chars: int = 2_000) -> int:
    """Write a file of the kind that its name says, and return how many rows it has."""
    num_rows = 0
    packed = path.suffix == ".gz"
    kind = Path(path.stem).suffix if packed else path.suffix
    with gzip.open(path, "wt", 1) if packed else path.open("w") as stream:
        stream.write({".json": "[\n", ".csv": "text\n"}.get(kind, ""))
        for text in texts(num_bytes, chars):
            comma = ",\n" if kind == ".json" and num_rows else ""
            row = json.dumps({"text": text}) if "json" in kind else text
            stream.write(f"{comma}{row}" if kind == ".json" else f"{row}\n")
            num_rows += 1
        stream.write("\n]\n" if kind == ".json" else "")
    return num_rows


def write_parquet(path: Path, num_bytes: int) -> int:
    """Write a table in one row group, which is the most that a reader could have to hold."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"text": list(texts(num_bytes, 2_000))})
    pq.write_table(table, path, row_group_size=table.num_rows)
    return table.num_rows


def run_apart(code: str, path: Path) -> tuple[int, int]:
    """Run code on a file in a process; return its rows and the most memory that it took."""
    command = [sys.executable, "-c", code + PEAK, str(path)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    num_rows, peak = map(int, done.stdout.splitlines()[-1].split())
    return num_rows, peak


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".txt", ".jsonl.gz", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str):
    peaks: list[int] = []
    for num_bytes in (20 * MIB, 60 * MIB):
        path = tmp_path / f"a{kind}"
        num_rows = (write_parquet if kind == ".parquet" else write)(path, num_bytes)
        found, peak = run_apart(READ, path)
        assert found == num_rows
        peaks.append(peak)
        path.unlink()
    assert peaks[1] - peaks[0] < GROWTH_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".jsonl.gz"])
def test_two_gigabytes_are_read_in_bounded_memory(tmp_path: Path, kind: str):
    path = tmp_path / f"a{kind}"
    try:
        num_rows = write(path, 2 << 30)
        found, peak = run_apart(READ, path)
        assert found == num_rows
        assert peak < READ_BYTES
    finally:
        path.unlink()  # 2 GB would lie there until pytest clears its folders


@pytest.mark.slow
def test_two_gigabytes_are_prepared_in_bounded_memory(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    try:
        write(path, 2 << 30, chars=8_000)
        _, peak = run_apart(PREPARE, path)
        assert (tmp_path / "out" / "data.html").is_file()
        assert peak < PREPARE_BYTES
    finally:
        shutil.rmtree(tmp_path)

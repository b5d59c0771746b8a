"""Put the same rows through luthier's search for near-duplicates and through two peers' MinHash.

    python benchmarks/corpus_near_peers.py [--rows 50000] [--peers-venv .peers-venv]
        [--data ../shared/data] [--seed 0] [--only luthier,datatrove,text-dedup]

The rows are those of corpus_near.py: half English and half Chinese, a third of them planted
duplicates, and its template trap of 7,000 rows among them; all systems get one file, in one random
order. A peer sees prompt and answer as one text, as it has no other notion. It runs with the
defaults of its documentation, and tuned to these rows: by the mean of both languages' F1 on 8,000
rows of another seed without the trap, over 1 to 3-grams and several thresholds or bands. Tuned by
characters, it is given words alone, each Chinese character a word, with one space between, for both
peers split at white space or punctuation only, or with jieba, which commas between characters
mislead. luthier runs with its defaults alone; these were chosen on rows of the same generator.

Peers say which rows they keep, not for the sake of which. So all systems are scored by the kept
rows: of a family of n duplicates n - 1 should go. Recall is the share of these that went; where a
whole family went, one of its rows was dropped wrongly. Precision is the share of rightly dropped
rows among the dropped. `families lost` counts the families of which nothing is left, rows without
duplicates included; the trap is counted for itself.

Each system is a process of its own. CPU seconds are those of the process and its children, start
and reading included; the peak is the most memory that all its processes held at one time, sampled
ten times a second, and never less than the largest process's own peak.

The peers need an environment of their own, which is made where there is none (1.6 GB). datatrove
splits words with spaCy, and Chinese with jieba, so these two come with it: its extra `multilingual`
would bring tensorflow and stanza as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus_near import Row

# Nothing of luthier may be imported up here: the peers' environment runs this file too.
REPOSITORY = Path(__file__).parents[1]
INSTALLED = {
    "datatrove": (
        "datatrove[io]==0.10.1",
        "spacy==3.8.18",
        "jieba==0.42.1",
        "tokenizers",
        "xxhash<4",
    ),
    "text-dedup": ("text-dedup==0.4.0", "xxhash<4"),
}
LIMIT_S = 900
DAMPED = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class System:
    """One line of the table: who searches, and how."""

    name: str
    settings: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a run left and took; `failure` is empty where it ended well."""

    failure: str
    cpu_s: float
    wall_s: float
    peak_mb: int


SYSTEMS = (
    System("luthier", "defaults: word pairs, rows alike >= .6, prompts and answers >= .4"),
    System(
        "datatrove",
        "defaults: 5-grams, 14 x 8 hashes, English words",
        {"parts": [{"file": "rows.jsonl", "language": "eng"}]},
    ),
    System(
        "datatrove",
        "tuned: each language for itself with its own words, 1-grams, 20 x 6 hashes",
        {
            "minhash": {"n_grams": 1, "num_buckets": 20, "hashes_per_bucket": 6},
            "parts": [
                {"file": "rows-en.jsonl", "language": "eng"},
                {"file": "rows-zh.jsonl", "language": "zho_Hani"},
            ],
        },
    ),
    System(
        "datatrove",
        "tuned: Chinese characters as words, 1-grams, 14 x 10 hashes",
        {
            "minhash": {"n_grams": 1, "num_buckets": 14, "hashes_per_bucket": 10},
            "parts": [{"file": "rows-spaced.jsonl", "language": "eng"}],
        },
    ),
    System("text-dedup", "defaults: 5-grams, threshold .7, 250 hashes, at least 5 words"),
    System(
        "text-dedup",
        "tuned: Chinese characters as words, 1-grams, threshold .8, no least length",
        {"file": "rows-spaced.jsonl", "arguments": "--ngram 1 --threshold 0.8 --min_length 1"},
    ),
)


def main() -> None:
    """Make the rows, run each system on them, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-venv", type=Path, default=REPOSITORY / ".peers-venv")
    parser.add_argument("--only", default=",".join(["luthier", *INSTALLED]))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="luthier-near-peers-") as name:
        compare(options, Path(name))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run the systems that were asked for, and print a line for each."""
    from corpus_near import TRAP_ROWS, make_rows

    from luthier.recipes.machine import cpu_name

    planted, trap = make_rows(random.Random(options.seed), options.data, options.rows)
    write_rows([*planted, *trap], folder, options.seed)
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{len(planted)} rows and {len(trap)} of the template trap, in one corpus\n")
    print(
        "| system | settings | recall en | recall zh | precision en | precision zh "
        "| families lost | trap wrongly dropped | CPU s | wall s | peak MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    failures: list[str] = []
    pythons = {name: environment(name, options.peers_venv) for name in options.only.split(",")}
    for number, system in enumerate(SYSTEMS):
        if system.name not in pythons:
            continue
        python, title = pythons[system.name]
        work = folder / f"system-{number}"
        outcome = run(python, system, folder, work) if python else Outcome(title, 0, 0, 0)
        if outcome.failure:
            failures.append(f"{system.name}, {system.settings}: {outcome.failure}")
            continue
        kept = set(json.loads((work / "kept.json").read_text(encoding="utf-8")))
        scores = " | ".join(f"{rate:.4f}" for rate in kept_rates(planted, kept))
        lost = len({row.family for row in planted} - {r.family for r in planted if r.name in kept})
        share = sum(row.name not in kept for row in trap) / TRAP_ROWS
        print(
            f"| {title} | {system.settings} | {scores} | {lost} | {share:.2%} "
            f"| {outcome.cpu_s:.1f} | {outcome.wall_s:.1f} | {outcome.peak_mb} |",
            flush=True,
        )
    print_strict(planted, folder / "system-0" / "drops.json")
    for failure in failures:
        print(f"\nNOT RUN: {failure}")


def print_strict(planted: list[Row], path: Path) -> None:
    """Print luthier's rates by the stricter measure of corpus_near.py, for it names the keepers."""
    from corpus_near import rates

    from luthier.contracts.corpus_step import Drop

    if path.is_file():
        drops = [Drop(*pair[:1], "", "", pair[1]) for pair in json.loads(path.read_text())]
        scores = ", ".join(f"{rate:.4f}" for rate in rates(planted, drops))
        print(f"\nluthier, where a row must also be dropped for one of its own family: {scores}")


def kept_rates(rows: list[Row], kept: set[str]) -> list[float]:
    """Return recall and precision, each for English and Chinese, as the module's head defines."""
    recalls: list[float] = []
    precisions: list[float] = []
    for language in ("en", "zh"):
        families: dict[str, list[bool]] = {}
        for row in rows:
            if row.language == language:
                families.setdefault(row.family, []).append(row.name in kept)
        dropped = [len(stays) - sum(stays) for stays in families.values()]
        surplus = [len(stays) - 1 for stays in families.values()]
        right = sum(map(min, dropped, surplus))
        recalls.append(right / max(sum(surplus), 1))
        precisions.append(right / max(sum(dropped), 1))
    return recalls + precisions


def write_rows(rows: list[Row], folder: Path, seed: int) -> None:
    """Write the rows in a random order: all, those of each language, and all of them spaced."""
    shuffled = random.Random(seed).sample(rows, len(rows))
    lines: dict[str, list[dict[str, str]]] = {"": [], "-en": [], "-zh": [], "-spaced": []}
    for row in shuffled:
        language = "zh" if row.language == "zh" else "en"
        text = f"{row.prompt}\n\n{row.answer}"
        line = {"id": row.name, "text": text, "prompt": row.prompt, "answer": row.answer}
        lines[""].append(line)
        lines[f"-{language}"].append(line)
        lines["-spaced"].append({"id": row.name, "text": spaced(text)})
    for name, mine in lines.items():
        with (folder / f"rows{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in mine)


def spaced(text: str) -> str:
    """Return the words of a text, each Chinese character a word, with one space between them."""
    return " ".join(re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text))


def environment(name: str, venv: Path) -> tuple[str, str]:
    """Return the Python that runs a system, and its name with its version.

    Where it can't be installed the Python is empty, and the reason stands instead of the name.
    """
    if name == "luthier":
        from importlib.metadata import version

        return sys.executable, f"luthier {version('luthier')}"
    python = venv.absolute() / "bin" / "python"
    try:
        if not python.is_file():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            (venv / ".gitignore").write_text("*\n")  # nor will ruff look into it then
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run(
            [*install, *INSTALLED[name]],
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or str(error)
        return "", f"can't be installed: {str(said).strip()[-500:]}"
    return str(python), f"{name} {INSTALLED[name][0].split('==')[1]}"


def run(python: str, system: System, folder: Path, work: Path) -> Outcome:
    """Run one system in a process of its own, and measure it with all its children."""
    work.mkdir()
    command = [python, __file__, "--child", system.name, str(folder), str(work)]
    log, started_s = work / "log.txt", time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, json.dumps(system.options)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **DAMPED, "HF_HOME": str(work / "hf"), "TMPDIR": str(work)},
            cwd=work,
            start_new_session=True,
        )
        peak = Peak(process.pid)
        killer = threading.Timer(LIMIT_S, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        killer.cancel()
        peak.stop()
    wall_s = time.perf_counter() - started_s
    largest_kb = max(usage.ru_maxrss, json_number(work / "largest_kb.json"))
    failure = ""
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        failure = f"exit status {process.returncode} after {wall_s:.0f} s: " + " ".join(lines[-3:])
    peak_mb = max(largest_kb, peak.most_kb) // 1024
    return Outcome(failure, usage.ru_utime + usage.ru_stime, wall_s, peak_mb)


def json_number(path: Path) -> int:
    """Return the number in a file, or 0 where there is none."""
    return int(json.loads(path.read_text())) if path.is_file() else 0


class Peak:
    """Watches how much memory a process and its children hold together (on Linux)."""

    def __init__(self, pid: int) -> None:
        """Begin to watch."""
        self.most_kb = 0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.most_kb = max(self.most_kb, sum(map(held_kb, family_of(self._pid))))


def family_of(pid: int) -> Iterator[int]:
    """Yield a process and all that it started, as far as they live."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family_of(int(child))


def held_kb(pid: int) -> int:
    """Return a process's share of memory: what it shares with others is divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def be_child(name: str, folder: Path, work: Path, options: dict[str, Any]) -> None:
    """Search with one system, and leave the names of the rows that it keeps."""
    systems = {"luthier": with_luthier, "datatrove": with_datatrove, "text-dedup": with_text_dedup}
    kept = list(systems[name](folder, work, options))
    (work / "kept.json").write_text(json.dumps(kept))
    largest_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    (work / "largest_kb.json").write_text(json.dumps(largest_kb))


def with_luthier(folder: Path, work: Path, _options: dict[str, Any]) -> Iterable[str]:
    """Search with the step, and leave its drops too."""
    from corpus_near import Row, search

    from luthier.corpus.steps.near import NearDuplicates

    with (folder / "rows.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    rows = [Row(line["id"], "", "", line["prompt"], line["answer"]) for line in lines]
    drops, _ = search(NearDuplicates(), rows, random.Random(0))
    (work / "drops.json").write_text(json.dumps([(drop.id, drop.matched_id) for drop in drops]))
    gone = {drop.id for drop in drops}
    return [row.name for row in rows if row.name not in gone]


def with_datatrove(folder: Path, work: Path, options: dict[str, Any]) -> Iterable[str]:
    """Search with the four stages of its example `minhash_deduplication.py`, one task a stage."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import minhash
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = minhash.MinhashConfig(**options.get("minhash", {}))
    for number, part in enumerate(options["parts"]):
        base = str(work / f"part-{number}")
        reader = JsonlReader(str(folder), glob_pattern=part["file"])
        stages = (
            [reader, minhash.MinhashDedupSignature(f"{base}/signs", config, part["language"])],
            [minhash.MinhashDedupBuckets(f"{base}/signs", f"{base}/buckets", config=config)],
            [minhash.MinhashDedupCluster(f"{base}/buckets", f"{base}/remove", config)],
            [
                reader,
                minhash.MinhashDedupFilter(f"{base}/remove"),
                JsonlWriter(f"{base}/kept", "${rank}.jsonl", compression=None),
            ],
        )
        for stage, tasks in zip(stages, (1, config.num_buckets, 1, 1), strict=True):
            LocalPipelineExecutor(stage, tasks=tasks, workers=1).run()
        for path in Path(base, "kept").glob("*.jsonl"):
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line)["id"] for line in file)


def with_text_dedup(folder: Path, work: Path, options: dict[str, Any]) -> Iterable[str]:
    """Search with `python -m text_dedup.minhash`, all options but those given at their defaults."""
    from datasets import load_from_disk

    source = folder / options.get("file", "rows.jsonl")
    arguments = f"--path json --split train --column text --output {work / 'kept'}".split()
    arguments += ["--data_files", str(source), "--cache_dir", str(work / "cache")]
    arguments += options.get("arguments", "").split()
    subprocess.run([sys.executable, "-m", "text_dedup.minhash", *arguments], check=True)
    return load_from_disk(str(work / "kept"))["id"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        be_child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), json.loads(sys.argv[5]))
    else:
        main()

"""Measure the search for near-duplicates on rows with planted ones, English and Chinese.

    python benchmarks/corpus_near.py [--rows 50000] [--data ../shared/data] [--seed 0]

Each row is made of sentences drawn from real data (or, where the folder is not there, of made-up
words). A third of the rows are planted duplicates: half of them differ in case, punctuation or
spacing, half in 2 to 10 % of the words; others are no duplicates but look it: the same prompt with
another answer, the same answer to another prompt. Then the template trap: 7,000 rows that share a
long prompt and the beginning of the answer. Prints Markdown tables; recall is over planted
duplicates, precision over dropped rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from luthier.contracts.corpus_step import Columns, Drop, GlobalStep
from luthier.corpus.steps.near import NearDuplicates, NearSettings
from luthier.recipes.machine import cpu_name

BATCH_ROWS = 1000
TRAP_ROWS = 7000
TRAP_PROMPT = (
    "You are a careful assistant of the support desk. Read the message of the customer below and "
    "answer it politely, in complete sentences and without promising a refund. Do not mention "
    "internal systems, other customers or prices. If the message is not about one of our products, "
    "say so and point to the home page. Keep your answer below one hundred words.\n\nMessage: "
)
TRAP_ANSWER = (
    "Thank you very much for your message. We have read it with care, and we are glad that we can "
    "help you with it today. This is what we would like you to try before you write to us again, "
    "and please tell us whether it has worked for you. "
)
UNITS = {"en": r"\S+", "zh": r"[a-zA-Z]+|\d+|\S"}
"""What is replaced or dropped as one in a planted duplicate: in Chinese a character."""
Words = list[str]


@dataclass(frozen=True)
class Row:
    """A row and the truth about it: rows of one family are duplicates of each other."""

    name: str
    family: str
    language: str
    prompt: str
    answer: str


def main() -> None:
    """Make the rows, search them, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="print this many misses and errors")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    pools = {language: sentences(language, options.data) for language in ("en", "zh")}
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"sentences: {', '.join(f'{name} {len(pool)}' for name, pool in pools.items())}\n")
    planted = plant_all(draw, pools, options.rows)
    print("| rows | recall en | recall zh | precision en | precision zh | CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    drops, seconds = search(NearDuplicates(), planted, draw)
    scores = [f"{rate:.4f}" for rate in rates(planted, drops)]
    print(f"| {len(planted)} | {' | '.join(scores)} | {seconds:.1f} | {peak_mb()} |\n")
    if options.show:
        show(planted, drops, options.show)
    trap = list(make_trap(draw, pools["en"]))
    names = {row.name for row in trap}
    unaware = NearDuplicates(NearSettings(near_template_min_rows=TRAP_ROWS))
    print("| template trap | wrongly dropped |\n|---|---|")
    for title, step, rows in (
        (f"{TRAP_ROWS} rows alone", NearDuplicates(), trap),
        (f"among {len(planted)} others", NearDuplicates(), trap + planted),
        (f"{TRAP_ROWS} rows alone, no templates known", unaware, trap),
    ):
        drops, _ = search(step, rows, draw)
        print(f"| {title} | {sum(drop.id in names for drop in drops) / TRAP_ROWS:.2%} |")


def make_rows(draw: random.Random, data: Path, num_rows: int) -> tuple[list[Row], list[Row]]:
    """Return the rows of the benchmark: those with planted duplicates, and the template trap."""
    pools = {language: sentences(language, data) for language in ("en", "zh")}
    return plant_all(draw, pools, num_rows), make_trap(draw, pools["en"])


def plant_all(draw: random.Random, pools: dict[str, list[Words]], num_rows: int) -> list[Row]:
    """Return rows with planted duplicates, each language's share of them in turn."""
    share = num_rows // len(pools)
    return [row for name, pool in pools.items() for row in plant(draw, name, pool, share)]


def search(step: GlobalStep, rows: list[Row], draw: random.Random) -> tuple[list[Drop], float]:
    """Run the step over the rows in a random order; return its drops and its CPU-seconds."""
    shuffled = draw.sample(rows, len(rows))
    batches = [to_columns(shuffled[at : at + BATCH_ROWS]) for at in range(0, len(rows), BATCH_ROWS)]
    started_s = time.process_time()
    sketches = [step.sketch(batch) for batch in batches]
    merged: Columns = {
        name: [value for sketch in sketches for value in sketch[name]] for name in sketches[0]
    }
    drops = step.decide(merged)
    return drops, time.process_time() - started_s


def to_columns(rows: list[Row]) -> Columns:
    """Return rows as a step takes them."""
    return {
        "id": [row.name for row in rows],
        "messages": [
            [
                {"role": "user", "content": row.prompt, "weight": 1.0},
                {"role": "assistant", "content": row.answer, "weight": 1.0},
            ]
            for row in rows
        ],
    }


def rates(rows: list[Row], drops: list[Drop]) -> list[float]:
    """Return recall and precision, each for English and Chinese."""
    family = {row.name: row.family for row in rows}
    keeper = {drop.id: drop.matched_id for drop in drops}
    recalls: list[float] = []
    precisions: list[float] = []
    for language in ("en", "zh"):
        mine = [row for row in rows if row.language == language]
        planted = [row for row in mine if row.name != row.family]
        found = sum(
            keeper.get(row.name, row.name) == keeper.get(row.family, row.family) for row in planted
        )
        dropped = [row for row in mine if row.name in keeper]
        right = sum(family[keeper[row.name] or ""] == row.family for row in dropped)
        recalls.append(found / len(planted))
        precisions.append(right / max(len(dropped), 1))
    return recalls + precisions


def show(rows: list[Row], drops: list[Drop], count: int) -> None:
    """Print some wrongly dropped rows and some planted ones that were not found."""
    by_name = {row.name: row for row in rows}
    keeper = {drop.id: drop for drop in drops}
    pairs = [(by_name[drop.id], by_name[drop.matched_id or ""], drop) for drop in drops]
    wrong = [pair for pair in pairs if pair[0].family != pair[1].family]
    missed = [
        row
        for row in rows
        if row.name != row.family and row.name not in keeper and row.family not in keeper
    ]
    for row, other, drop in wrong[:count]:
        print("WRONG", drop, row, other, sep="\n  ")
    for row in missed[:count]:
        print("MISSED", row, by_name[row.family], sep="\n  ")


def sentences(language: str, folder: Path) -> list[Words]:
    """Return sentences, each as its words (Chinese: its characters), real where there are any."""
    names = ["alpaca_zh_demo"] if language == "zh" else ["alpaca_en_demo", "gpteacher_roleplay"]
    found: set[tuple[str, ...]] = set()
    for path in (folder / f"{name}.json" for name in names):
        for row in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ():
            text = "\n".join((row["instruction"], row["input"], row["output"]))
            for sentence in re.split(r"(?<=[.!?。！？；])\s*|\n+", text):
                words = re.findall(UNITS[language], sentence)
                if 4 <= len(words) <= 80:
                    found.add(tuple(words))
    if not found:
        draw = random.Random(language)
        alphabet = range(0x4E00, 0x5600) if language == "zh" else range(20_000)
        name: Callable[[int], str] = chr if language == "zh" else "w{}".format
        for _ in range(20_000):
            size = draw.randint(8, 30)
            found.add(
                tuple(name(alphabet[int(len(alphabet) * draw.random() ** 3)]) for _ in range(size))
            )
    return [list(words) for words in sorted(found)]


def plant(draw: random.Random, language: str, pool: list[Words], num_rows: int) -> Iterable[Row]:
    """Yield rows with families of duplicates, and rows that only look like duplicates."""
    join = "" if language == "zh" else " "

    def row(family: str, at: int, prompt: Words, answer: Words) -> Row:
        name = f"{language}{family}" + (f"-{at}" if at else "")
        return Row(name, f"{language}{family}", language, join.join(prompt), join.join(answer))

    left, number = num_rows, 0
    while left > 0:
        number += 1
        prompt, answer = passage(draw, pool, 1, 2), passage(draw, pool, 2, 6)
        yield row(str(number), 0, prompt, answer)
        left -= 1
        luck = draw.random()
        if luck < 0.05:
            yield row(f"{number}q", 0, prompt, passage(draw, pool, 2, 6))
            left -= 1
        elif luck < 0.1:
            yield row(f"{number}a", 0, passage(draw, pool, 1, 2), answer)
            left -= 1
        elif luck < 0.35:
            for at in range(1, draw.choice((2, 2, 2, 3, 4, 5))):
                change = draw.choice((restyle, reword))
                yield row(str(number), at, change(draw, prompt, pool), change(draw, answer, pool))
                left -= 1


def passage(draw: random.Random, pool: list[Words], least: int, most: int) -> Words:
    """Return some sentences as one list of words."""
    return [word for part in draw.choices(pool, k=draw.randint(least, most)) for word in part]


def restyle(draw: random.Random, words: Words, _pool: list[Words]) -> Words:
    """Change case, spacing and punctuation, and no word."""
    style = draw.choice((str.upper, str.lower, str.title, str))
    return [style(word) + draw.choice(("", "", "", "", " ", ",")) for word in words]


def reword(draw: random.Random, words: Words, pool: list[Words]) -> Words:
    """Replace, drop, double or insert 2 to 10 % of the words."""
    rate = draw.uniform(0.02, 0.1)
    changed: Words = []
    for word in words:
        if draw.random() >= rate:
            changed.append(word)
            continue
        other = draw.choice(draw.choice(pool))
        changed += draw.choice(([other], [], [word, other], [other, word]))
    return changed or words


def make_trap(draw: random.Random, pool: list[Words]) -> list[Row]:
    """Return rows that share a long prompt and the beginning of the answer, and nothing else."""
    rows: list[Row] = []
    for number in range(TRAP_ROWS):
        message, answer = (" ".join(passage(draw, pool, 1, 2)) for _ in range(2))
        name = f"trap{number}"
        rows.append(Row(name, name, "trap", TRAP_PROMPT + message, TRAP_ANSWER + answer))
    return rows


def peak_mb() -> int:
    """Return the most memory that this process has held, rows of the benchmark included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()

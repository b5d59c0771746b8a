"""Plant rows of an evaluation set among unrelated rows and count what `decontaminate` finds.

    python benchmarks/corpus_decontaminate.py [--data ../shared/data] [--edits 5] [--show 0]

English: the evaluation set is GSM8K's test, the unrelated rows are GSM8K's train and Alpaca's.
Chinese: one half of Alpaca's Chinese rows is the evaluation set, the other half is unrelated. Each
test row is planted in every kind, as a row of training data with its question and its answer; the
edited kinds replace, drop or insert words (Chinese: characters), at least one in each text. Where
the folder is not there, rows are made up of invented words. Prints Markdown tables: of each kind
how many are found, and of the unrelated rows how many are hit. Which of those hits are copies after
all was judged by hand, and stands in `REAL`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.hashing import hash_json
from luthier.corpus.steps.decontaminate import Decontaminate, index_evaluation, read_evaluation
from luthier.recipes.machine import cpu_name

BATCH_ROWS = 1000
UNITS = {"en": r"\s*\S+", "zh": r"\s*(?:[a-zA-Z]+|\d+|\S)"}
"""What is edited as one, with the space before it."""


@dataclass(frozen=True)
class Row:
    """A question and its answer; `extra` is a further text of the question (Alpaca's input)."""

    question: str
    answer: str
    extra: str = ""

    @property
    def prompt(self) -> str:
        """The question as training data has it."""
        return f"{self.question}\n{self.extra}" if self.extra else self.question

    @property
    def key(self) -> str:
        """A short name of the row, by its content."""
        return hash_json([self.question, self.extra, self.answer])[:8]


REAL = {
    ("7d3c6083", "ab07a95e"),
    ("8ac063c1", "0bffd38c"),
    ("8ac063c1", "9fdcf2ef"),
    ("5e932b9b", "5e932b9b"),
    ("98add478", "98add478"),
    ("8105b1a6", "8105b1a6"),
    ("eaa6335c", "dad7c046"),
}
"""Test row and unrelated row that were looked at by hand and are the same: three problems of GSM8K
with other names and numbers, three copies and one question twice in Alpaca's Chinese rows."""

Plant = Callable[[random.Random, Row, Row], Row]
"""Makes of a test row, and an unrelated one, what is planted."""


def edit(draw: random.Random, text: str, language: str, share: float) -> str:
    """Replace, drop or insert this share of a text's words, and one at least."""
    units = re.findall(UNITS[language], text)
    if not units:
        return text
    for _ in range(max(1, round(len(units) * share))):
        at, other = draw.randrange(len(units)), draw.choice(units)
        # A piece may be empty by now, or hold two words: edits fall where they fall.
        units[at] = draw.choice((other, "", units[at] + other))
    return "".join(units)


def kinds(language: str, share: float) -> dict[str, Plant]:
    """Return what is planted, by the name that the table gives it."""

    def edited(part: float) -> Plant:
        return lambda draw, test, _: Row(
            edit(draw, test.prompt, language, part), edit(draw, test.answer, language, part)
        )

    return {
        "verbatim": lambda _draw, test, _other: test,
        "question only": lambda _draw, test, other: Row(test.prompt, other.answer),
        "answer only": lambda _draw, test, other: Row(other.prompt, test.answer),
        "2 % of the words edited": edited(0.02),
        f"{share:.0%} of the words edited".replace("%", " %"): edited(share),
        f"question only, {share:.0%} edited".replace("%", " %"): lambda draw, test, other: Row(
            edit(draw, test.prompt, language, share), other.answer
        ),
    }


def read(path: Path) -> list[Row]:
    """Return the rows of a file of GSM8K or Alpaca."""
    content = path.read_text(encoding="utf-8")
    rows = json.loads(content) if path.suffix == ".json" else map(json.loads, content.splitlines())
    return [
        Row(row["question"], row["answer"])
        if "question" in row
        else Row(row["instruction"], row["output"], row["input"])
        for row in rows
    ]


def made_up(language: str, num_rows: int) -> list[Row]:
    """Return rows of invented words, common ones and rare ones."""
    draw = random.Random(language)
    words = [chr(0x4E00 + at) if language == "zh" else f" w{at}" for at in range(3000)]

    def text(least: int, most: int) -> str:
        size = draw.randint(least, most)
        return "".join(words[int(len(words) * draw.random() ** 2)] for _ in range(size)).strip()

    return [Row(text(15, 60), text(30, 120)) for _ in range(num_rows)]


def sets(folder: Path) -> Iterator[tuple[str, str, list[Row], dict[str, list[Row]]]]:
    """Yield language, the evaluation set's name, its rows, and unrelated rows by name."""
    if not folder.is_dir():
        for language in ("en", "zh"):
            rows = made_up(language, 6000)
            yield language, f"made up, {language}", rows[:1000], {"made up": rows[1000:]}
        return
    chinese = read(folder / "alpaca_zh_demo.json")
    others = {
        "gsm8k train": read(folder / "gsm8k_train.jsonl"),
        "alpaca en": read(folder / "alpaca_en_demo.json"),
        "alpaca zh": chinese,
    }
    yield "en", "gsm8k test", read(folder / "gsm8k_test.jsonl"), others
    others = {**others, "alpaca zh": chinese[1::2]}
    yield "zh", "alpaca zh, every other row", chinese[::2], others


def to_columns(rows: list[Row]) -> Columns:
    """Return rows as a step takes them."""
    return {
        "id": [str(at) for at in range(len(rows))],
        "messages": [
            [
                {"role": "user", "content": row.prompt, "weight": 1.0},
                {"role": "assistant", "content": row.answer, "weight": 1.0},
            ]
            for row in rows
        ],
    }


def build(tests: list[Row]) -> Decontaminate:
    """Write the evaluation set to a file, as a user has it, and build the step from that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test.jsonl")
        rows = (
            {"question": row.question, "input": row.extra, "answer": row.answer} for row in tests
        )
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Decontaminate(index_evaluation([list(read_evaluation(path))]))


def search(step: Decontaminate, rows: list[Row]) -> dict[int, Drop]:
    """Return the drops by the number of their row."""
    found: dict[int, Drop] = {}
    for start in range(0, len(rows), BATCH_ROWS):
        drops = step(to_columns(rows[start : start + BATCH_ROWS])).drops
        found |= {start + int(drop.id): drop for drop in drops}
    return found


def place(drop: Drop) -> int:
    """Return the number of the test row that a drop names."""
    return int((drop.matched_id or ":0").rpartition(":")[2]) - 1


def main() -> None:
    """Plant, search, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--edits", type=float, default=5.0, help="share of edited words, percent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="print this many misses of each kind")
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for language, title, tests, unrelated in sets(options.data):
        draw = random.Random(options.seed)
        step = build(tests)
        print(f"| {title} | planted | found | share |\n|---|---|---|---|")
        others = [row for rows in unrelated.values() for row in rows]
        for kind, plant in kinds(language, options.edits / 100).items():
            # From another part of the file, so that no neighbour is planted beside it.
            rows = [plant(draw, test, draw.choice(others)) for test in tests]
            found = search(step, rows)
            print(f"| {kind} | {len(rows)} | {len(found)} | {len(found) / len(rows):.1%} |")
            missed = [at for at in range(len(rows)) if at not in found]
            for at in missed[: options.show]:
                print(f"    MISSED {rows[at]}\n      of {tests[at]}")
        print("\n| unrelated | rows | hits | real, by hand | false hits | share | rows/s |")
        print("|---|---|---|---|---|---|---|")
        for name, rows in [*unrelated.items(), ("together", others)]:
            is_shown = options.show > 0 and name != "together"
            print_false_hits(name, step, rows, tests, is_shown=is_shown)
        print()


def print_false_hits(
    name: str, step: Decontaminate, rows: list[Row], tests: list[Row], *, is_shown: bool
) -> None:
    """Print the table's line of one unrelated set, and its hits where they are asked for."""
    started_s = time.process_time()
    found = search(step, rows)
    rate = len(rows) / (time.process_time() - started_s)
    real = sum((tests[place(drop)].key, rows[at].key) in REAL for at, drop in found.items())
    share = (len(found) - real) / len(rows)
    counts = f"{len(rows)} | {len(found)} | {real} | {len(found) - real}"
    print(f"| {name} | {counts} | {share:.3%} | {rate:.0f} |")
    for at, drop in found.items() if is_shown else ():
        print(f"    HIT {drop.score} {(tests[place(drop)].key, rows[at].key)} {rows[at]}")
        print(f"      of {tests[place(drop)]}")


if __name__ == "__main__":
    main()

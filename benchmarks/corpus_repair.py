"""Plant damage in real texts and count what `repair` restores exactly, and what it must not touch.

    python benchmarks/corpus_repair.py [--data ../shared/data] [--per_kind 500]

Prints three tables: damage restored, by kind; rows of the untouched sets that repair changes, each
shown; and the speed. Damage that loses bytes is not planted: no one can restore it.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import platform
import random
import time
import unicodedata
from collections.abc import Callable, Iterator
from html.entities import codepoint2name
from pathlib import Path

import ftfy.bad_codecs  # noqa: F401 - registers sloppy-windows-1252

from luthier.contracts.corpus_step import Columns
from luthier.corpus.steps.repair import Repair
from luthier.corpus.text.entities import ENTITY, speaks_of_markup
from luthier.corpus.text.fields import texts_of
from luthier.corpus.text.mojibake import LOST

SETS = (
    "alpaca_en_demo.json",
    "alpaca_zh_demo.json",
    "gpteacher_roleplay.json",
    "dpo_en_demo.json",
    "gsm8k_train.jsonl",
    "gsm8k_test.jsonl",
    "c4_demo.jsonl",
    "wiki_demo.txt",
)
Damage = Callable[[str, random.Random], str]


def strings(value: object) -> Iterator[str]:
    """Yield all text of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def read_rows(path: Path) -> list[list[str]]:
    """Return the texts of each row of a file; of plain text each line is a row."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return [[line] for line in content.split("\n") if line]
    rows = (
        json.loads(content) if path.suffix == ".json" else map(json.loads, content.split("\n")[:-1])
    )
    return [[text for text in strings(row) if text] for row in rows]


def columns_of(rows: list[list[str]]) -> Columns:
    """Return rows of texts as columns; each text is a turn, for repair looks at no role."""
    turns = [[{"role": "user", "content": text, "weight": 1.0} for text in row] for row in rows]
    return {"id": [str(at) for at in range(len(rows))], "messages": turns}


def misread(written: str, read: str) -> Damage:
    """Return the damage of bytes in one encoding that are read in another."""
    return lambda text, _: text.encode(written).decode(read)


def twice(first: Damage) -> Damage:
    """Return a damage done two times over."""
    return lambda text, rng: first(first(text, rng), rng)


def insert(characters: str) -> Damage:
    """Return the damage of one to four characters put in between, at random places."""

    def damage(text: str, rng: random.Random) -> str:
        pieces = list(text)
        for _ in range(rng.randint(1, 4)):
            pieces.insert(rng.randint(0, len(pieces)), rng.choice(characters))
        return "".join(pieces)

    return damage


def named_entities(text: str, _: random.Random) -> str:
    """Write all that HTML has a name for by its name, as old editors did."""
    return "".join(
        f"&{codepoint2name[ord(letter)]};" if ord(letter) in codepoint2name else letter
        for letter in text
    )


def numbered_entities(text: str, _: random.Random) -> str:
    """Write all that isn't ASCII by its number."""
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


KINDS: dict[str, Damage] = {
    "UTF-8 read as Latin-1": misread("utf-8", "latin-1"),
    "UTF-8 read as cp1252": misread("utf-8", "sloppy-windows-1252"),
    "UTF-8 read as Latin-1, twice": twice(misread("utf-8", "latin-1")),
    "UTF-8 read as cp1252, twice": twice(misread("utf-8", "sloppy-windows-1252")),
    "UTF-8 read as GBK": misread("utf-8", "gb18030"),
    "GBK read as Latin-1": misread("gbk", "latin-1"),
    "entities, html.escape": lambda text, _: html.escape(text),
    "entities, escaped twice": lambda text, _: html.escape(html.escape(text)),
    "entities, named": named_entities,
    "entities, numbered": numbered_entities,
    "control characters": insert("\x00\x01\x02\x03\x04\x05\x06\x0e\x10\x16\x1a\x1f\x7f"),
    "zero-width characters": insert("\u200b\ufeff\u2060\u00ad\u200e"),
    "joiners": insert("\u200c\u200d"),
    "byte order mark": lambda text, _: "\ufeff" + text,
    "terminal colours": lambda text, _: f"\x1b[1;31m{text}\x1b[0m",
    "line ends \\r\\n": lambda text, _: text.replace("\n", "\r\n"),
    "loose accents (NFD)": lambda text, _: unicodedata.normalize("NFD", text),
}


def plant(rows: list[list[str]], kind: str, limit: int) -> list[tuple[list[str], list[str]]]:
    """Return rows before and after a damage, as far as it can be done and changes them."""
    rng = random.Random(kind)
    pairs: list[tuple[list[str], list[str]]] = []
    for row in rng.sample(rows, len(rows)):
        if kind.startswith("entities") and speaks_of_markup(row):
            continue  # left alone by design: there an entity may be meant
        damaged = [_damaged(text, KINDS[kind], rng) for text in row]
        if damaged != row:
            pairs.append((row, damaged))
        if len(pairs) == limit:
            break
    return pairs


def _damaged(text: str, damage: Damage, rng: random.Random) -> str:
    try:
        return damage(text, rng)
    except UnicodeError:
        return text  # bytes that can't be read that way: so this damage can't have come about


def print_restored(rows: list[list[str]], limit: int, show: int) -> None:
    """Print the share of damaged rows that come back exactly, by kind."""
    print("| damage | rows | restored exactly | share |\n|---|---|---|---|")
    total = good = 0
    left = sum(map(speaks_of_markup, rows))
    for kind in KINDS:
        pairs = plant(rows, kind, limit)
        columns = Repair()(columns_of([damaged for _, damaged in pairs])).columns
        failed = [at for at, (row, _) in enumerate(pairs) if texts_of(columns, at) != row]
        total, good = total + len(pairs), good + len(pairs) - len(failed)
        print(_line(kind, len(pairs), len(pairs) - len(failed)))
        for at in failed[:show]:
            row, damaged = pairs[at]
            _show_difference(row, texts_of(columns, at), damaged)
    print(_line("all", total, good))
    print(
        f"\nNo entities are planted in {left} of {len(rows):,} rows, which show or speak of HTML:"
    )
    print("there repair decodes none, by design.")


def _line(kind: str, rows: int, good: int) -> str:
    return f"| {kind} | {rows:,} | {good:,} | {good / max(rows, 1):.2%} |"


def _show_difference(row: list[str], repaired: list[str], damaged: list[str]) -> None:
    for want, got, was in zip(row, repaired, damaged, strict=True):
        if want != got:
            at = num_alike(want, got)
            print(f"    want {want[max(0, at - 20) : at + 40]!r}")
            print(f"    got  {got[max(0, at - 20) : at + 40]!r}, damaged {was[:60]!r}")


def num_alike(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def print_changed(path: Path, rows: list[list[str]], show: int) -> list[list[str]]:
    """Print what repair does to an untouched set; return the rows that it leaves alone."""
    started = time.process_time()
    result = Repair()(columns_of(rows))
    seconds = time.process_time() - started
    after = [texts_of(result.columns, at) for at in range(len(rows))]
    changed = [at for at, row in enumerate(rows) if after[at] != row]
    counts = ", ".join(f"{name} {num}" for name, num in sorted(result.counts.items())) or "-"
    size = sum(len(text) for row in rows for text in row)
    print(
        f"| {path.name} | {len(rows):,} | {len(changed)} | {counts} "
        f"| {len(rows) / seconds:,.0f} | {size / seconds / 1e6:.1f} |"
    )
    for at in changed[:show]:
        for was, now in zip(rows[at], after[at], strict=True):
            if was != now:
                start = num_alike(was, now)
                place = slice(max(0, start - 25), start + 35)
                print(f"    row {at}: {was[place]!r}\n         -> {now[place]!r}")
    unchanged = set(range(len(rows))).difference(changed)
    return [
        rows[at]
        for at in sorted(unchanged)
        if not any(ENTITY.search(text) or LOST.search(text) for text in rows[at])
    ]


def main() -> None:
    """Measure all sets and all kinds of damage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--per_kind", type=int, default=500)
    parser.add_argument("--show", type=int, default=3, help="differences shown of each table line")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, one process\n")
    print("| untouched set | rows | changed | counts (rows) | rows/s | M characters/s |")
    print("|---|---|---|---|---|---|")
    clean: list[list[str]] = []
    for name in SETS:
        path = options.data / name
        clean += print_changed(path, read_rows(path), options.show * 10)
    print()
    print_restored(clean, options.per_kind, options.show)


if __name__ == "__main__":
    main()

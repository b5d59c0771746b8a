"""Make rows as in the Alpaca set, with what a cleaner should find planted in them, and the truth.

    python benchmarks/corpus_rows.py --rows 52000 --out DIR [--seed 0] [--data ../shared/data]

Writes `alpaca-1.jsonl` to `alpaca-4.jsonl` (English and Chinese mixed; 40, 30, 20 and 10 % of the
rows), `eval.jsonl` (the test whose rows leak) and `truth.json`; prints what was planted and how
long the rows are beside those of the real files. The same seed and data make the same bytes.

Each row takes the lengths of its three texts from a real row, and is filled with real sentences,
so that a million rows are as long as the thousand real ones. Characters of a row, all its texts
together, at seed 0 (tokens by SmolLM2's tokenizer, which is no good at Chinese):

    alpaca_en_demo.json   mean 787, median 585, 95 % below 2,017; mean 171 tokens
    made, English         mean 800, median 607, 95 % below 2,075; mean 166 tokens
    alpaca_zh_demo.json   mean 217, median 186, 95 % below 456; mean 330 tokens
    made, Chinese         mean 228, median 198, 95 % below 486; mean 358 tokens

30 % of the rows are Chinese. A row has one thing planted or none; of all rows:

    5 %     exact copies of an earlier row
    10 %    near copies: 4 % in case, spacing or punctuation, 6 % in 2 to 10 % of the words
    2 %     one or two items of personal data, ten kinds
    2 %     hard negatives: what only looks like personal data (nothing should be found)
    1 %     damage of encodings: mojibake, entities, control characters and the like
    0.5 %   leaks: a row of eval.jsonl, half of them word by word, half edited
    1 %     answers that are empty (0.3 %) or say nothing (0.7 %)
    3 %     template rows, 1.5 % a language: a long prompt in common, no duplicates

What isn't planted is kept out as far as it can be: sentences with long numbers, addresses or
damage are not used, the sentences of the test are used for nothing else, and no two rows share
both their prompt and the beginning of their answer. Copies are of one of 20,000 earlier rows that
are remembered; beside these only a hash of each row is kept, to tell that no two are alike. A
million rows took 42 CPU seconds and 310 MB.

`truth.json`: `files` names the rows of each file in their order; a name is not part of the row.
`planted` tells by name what is in a row: its `family` (the row that it copies) and `copy`; `pii`,
pairs of kind and value; `damage` and the `original` texts; `leak`, the row of eval.jsonl, counted
from 0, and `edited`; `answer`: `empty` or `short`; `template` or `negative`. A row without an entry
there is plain. Real sentences may have faults that nobody planted; few, as far as luthier's steps
tell.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
import statistics
import time
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus_near import TRAP_ANSWER, TRAP_PROMPT, UNITS, Words, restyle, reword, sentences
from corpus_pii import MAKERS, PASSWORD_SAID, PLAIN, SAID, negative
from corpus_repair import KINDS

from luthier.corpus.text.entities import speaks_of_markup
from luthier.corpus.text.mojibake import LOST

DATA = Path(__file__).parents[2] / "shared/data"
FIELDS = ("instruction", "input", "output")
REAL = {"en": "alpaca_en_demo.json", "zh": "alpaca_zh_demo.json"}
CHINESE_SHARE = 0.3
FILE_SHARES = (0.4, 0.3, 0.2, 0.1)
SHARES = {
    "exact": 0.05,
    "restyled": 0.04,
    "reworded": 0.06,
    "pii": 0.02,
    "negative": 0.02,
    "damage": 0.01,
    "leak": 0.005,
    "empty": 0.003,
    "short": 0.007,
    "template": 0.03,
}
"""Of all rows; the rest is plain."""

REMEMBERED = 20_000
EVALUATION_ROWS = {"en": 1000, "zh": 150}
TEMPLATES = {
    "en": (TRAP_PROMPT.strip(), TRAP_ANSWER),
    "zh": (
        "你是一名细心的客服助理。请阅读下面客户的留言，用完整的句子礼貌地回答，不要承诺退款。"
        "不要提到内部系统、其他客户或者价格。如果留言与我们的产品无关，请说明并请客户查看首页。"
        "回答请控制在一百字以内。留言如下：",
        "非常感谢您的留言。我们已经仔细阅读，很高兴今天能够为您提供帮助。"
        "在您再次来信之前，请先尝试下面的办法，并告诉我们是否有效。",
    ),
}
SAYS_NOTHING = {
    "en": ("Yes.", "No", "N/A", "<nooutput>", "I don't know.", "OK", "...", "None", "1"),
    "zh": ("是。", "无", "不知道。", "好的", "略", "……", "暂无"),
}
UNWANTED = re.compile(r"\d{6}|\d[\d ().-]{7,}\d|@|https?:|www\.|password|密码|::", re.IGNORECASE)
"""Sentences with this may hold personal data that nobody planted."""

LATIN_BOUNDARY = re.compile(r"(?<=[a-zA-Z0-9])\0(?=[a-zA-Z0-9])")
RUN_WORDS = 8
"""Sentences that share so many words in a row with one of the test are not used."""

OFTEN = 40
"""How often another draw is tried where one does not fit."""


@dataclass(frozen=True, slots=True)
class Made:
    """A row, its name, and what was planted in it."""

    name: str
    language: str
    row: dict[str, str]
    planted: dict[str, Any] = field(default_factory=dict[str, Any])


class Pool:
    """The sentences of a language, by length, and the lengths of real rows."""

    def __init__(self, language: str, data: Path) -> None:
        """Read the real files, as far as they are there."""
        self.language = language
        self.join = "" if language == "zh" else " "
        self.words: list[Words] = sentences(language, data)
        texts = {self.put(words) for words in self.words}
        clean = [text for text in texts if not UNWANTED.search(text) and not damaged_looks(text)]
        clean.sort(key=lambda text: (len(text), text))
        # Every tenth one is for the test alone, so that no row gives a test away by chance.
        self.held_out = clean[len(clean) // 3 :: 10]
        secret = {run for text in self.held_out for run in runs(text)}
        self.texts = [text for text in clean if secret.isdisjoint(runs(text))]
        self.lengths = [len(text) for text in self.texts]
        self.shapes = real_lengths(data / REAL[language], language)

    def put(self, words: Words) -> str:
        """Put words together; in Chinese with a space where two Latin ones meet."""
        if self.join:
            return self.join.join(words)
        return LATIN_BOUNDARY.sub(" ", "\0".join(words)).replace("\0", "")

    def of_length(self, draw: random.Random, wanted: int) -> str:
        """Return a sentence of about so many characters."""
        first = bisect_left(self.lengths, wanted * 0.85)
        last = bisect_left(self.lengths, wanted * 1.15)
        if last - first < OFTEN:  # too few to choose from: the next ones in length as well
            first = max(min(first, len(self.texts) - OFTEN), 0)
            last = min(first + OFTEN, len(self.texts))
        return self.texts[draw.randrange(first, last)]

    def fill(self, draw: random.Random, wanted: int) -> list[str]:
        """Return sentences of about so many characters together; at least one."""
        longest = self.lengths[len(self.lengths) // 2] * 1.5
        parts: list[str] = []
        while wanted > longest:
            parts.append(draw.choice(self.texts))
            wanted -= len(parts[-1]) + 1
        if not parts or wanted > self.lengths[0]:
            parts.append(self.of_length(draw, wanted))
        return parts

    def joined(self, draw: random.Random, parts: list[str]) -> str:
        """Join sentences to a text, now and then with a new line between."""
        text = parts[0]
        for part in parts[1:]:
            text += ("\n" if draw.random() < 0.25 else self.join) + part
        return text


def main() -> None:
    """Write the rows and print what they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=52_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    started_s = time.process_time()
    counts, lengths = write(options.out, options.rows, options.seed, options.data)
    seconds = time.process_time() - started_s
    print(f"{options.rows} rows made in {seconds:.1f} CPU seconds\n")
    print("| planted | rows | share |\n|---|---|---|")
    for kind, count in counts.most_common():
        print(f"| {kind} | {count} | {count / options.rows:.2%} |")
    print("\n| characters of a row | rows | mean | median | 5 % | 95 % | longest |")
    print("|---|---|---|---|---|---|---|")
    for language, name in REAL.items():
        real = [sum(shape) for shape in real_lengths(options.data / name, language)]
        print_lengths(f"{name}, as it is", real)
        print_lengths(f"made, {language}", lengths[language])


def print_lengths(title: str, lengths: list[int]) -> None:
    """Print one line of the table of lengths."""
    if len(lengths) > 1:
        parts = statistics.quantiles(lengths, n=20)
        mean, middle = statistics.fmean(lengths), statistics.median(lengths)
        print(
            f"| {title} | {len(lengths)} | {mean:.0f} | {middle:.0f} | {parts[0]:.0f} "
            f"| {parts[-1]:.0f} | {max(lengths)} |"
        )


def write(
    out: Path, num_rows: int, seed: int = 0, data: Path = DATA
) -> tuple[Counter[str], dict[str, list[int]]]:
    """Write the rows, the test and the truth.

    Args:
        out: A folder; made where there is none.
        num_rows: Of all files together.
        seed: Of all that is drawn.
        data: Where the real files are.

    Returns:
        How many rows have what planted, and the characters of each row by language.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "eval.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(as_line(row) for row in evaluation_rows(seed, data))
    choose = random.Random(f"{seed} files")
    names = [f"alpaca-{number}.jsonl" for number, _ in enumerate(FILE_SHARES, 1)]
    members: list[list[str]] = [[] for _ in names]
    counts, lengths = Counter[str](), {"en": list[int](), "zh": list[int]()}
    files = [(out / name).open("w", encoding="utf-8") for name in names]
    with (out / "truth.json").open("w", encoding="utf-8") as truth:
        truth.write(f'{{"seed": {seed}, "num_rows": {num_rows}, "planted": {{')
        mark = "\n"
        for made in rows(num_rows, seed, data):
            number = choose.choices(range(len(names)), FILE_SHARES)[0]
            files[number].write(as_line(made.row))
            members[number].append(made.name)
            lengths[made.language].append(sum(map(len, made.row.values())))
            counts[kind_of(made.planted)] += 1
            if made.planted:
                truth.write(f'{mark}"{made.name}": {json.dumps(made.planted)}')
                mark = ",\n"
        truth.write(f'}},\n"files": {json.dumps(dict(zip(names, members, strict=True)))}}}\n')
    for file in files:
        file.close()
    return counts, lengths


def as_line(row: dict[str, str]) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def kind_of(planted: dict[str, Any]) -> str:
    """Return what a row has planted, in one word."""
    if "copy" in planted:
        return f"copy, {planted['copy']}"
    if "leak" in planted:
        return "leak, edited" if planted["edited"] else "leak, word by word"
    if "answer" in planted:
        return f"answer, {planted['answer']}"
    return next(iter(planted), "nothing")


def rows(num_rows: int, seed: int = 0, data: Path = DATA) -> Iterator[Made]:
    """Yield rows one by one, in an order that nothing follows from.

    Args:
        num_rows: How many.
        seed: Of all that is drawn.
        data: Where the real files are; without them the sentences are made up.
    """
    draw = random.Random(seed)
    pools = {language: Pool(language, data) for language in REAL}
    tests = [(language, row) for language, row in evaluation(seed, data, pools)]
    maker = Maker(draw, pools, tests)
    kinds, weights = [*SHARES, "plain"], [*SHARES.values(), 1 - sum(SHARES.values())]
    for number in range(num_rows):
        kind = draw.choices(kinds, weights)[0]
        yield maker.make(f"r{number}", kind)


def evaluation_rows(seed: int = 0, data: Path = DATA) -> list[dict[str, str]]:
    """Return the rows of the test, in the fields of Alpaca."""
    pools = {language: Pool(language, data) for language in REAL}
    return [row for _, row in evaluation(seed, data, pools)]


def evaluation(seed: int, data: Path, pools: dict[str, Pool]) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of the test with their languages: gsm8k, or of sentences held out for it."""
    draw = random.Random(f"{seed} test")
    found: list[tuple[str, dict[str, str]]] = []
    path = data / "gsm8k_train.jsonl"
    for language, pool in pools.items():
        wanted = EVALUATION_ROWS[language]
        if language == "en" and path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            for line in draw.sample([line for line in lines if line], wanted):
                row = json.loads(line)
                found.append((language, row_of(row["question"], "", row["answer"])))
            continue
        held = draw.sample(pool.held_out, len(pool.held_out))
        size = min(6, len(held) // wanted)
        for at in range(0, wanted * size, size):
            ask, *say = held[at : at + size]
            found.append((language, row_of(ask, "", pool.join.join(say))))
    return found


def row_of(instruction: str, input_: str, output: str) -> dict[str, str]:
    """Return texts as a row of the Alpaca set."""
    return dict(zip(FIELDS, (instruction, input_, output), strict=True))


class Maker:
    """Makes one row after the other, and remembers some for copies."""

    def __init__(
        self,
        draw: random.Random,
        pools: dict[str, Pool],
        tests: list[tuple[str, dict[str, str]]],
    ) -> None:
        """Begin with nothing remembered."""
        self.draw, self.pools, self.tests = draw, pools, tests
        self.remembered: list[Made] = []
        self.order: list[int] = []
        self.seen: set[int] = set()

    def make(self, name: str, kind: str) -> Made:
        """Return a row with what is asked for; a plain one where there is nothing to copy yet."""
        if kind in ("exact", "restyled", "reworded") and self.remembered:
            return self.copy(name, kind)
        if kind == "leak":
            return self.leak(name)
        chinese = 0.5 if kind == "template" else CHINESE_SHARE
        language = "zh" if self.draw.random() < chinese else "en"
        pool = self.pools[language]
        instruction, input_, parts = self.fresh(pool)
        if kind in ("pii", "negative"):
            planted = self.plant_values(kind, language, parts)
        elif kind == "template":
            input_ = self.draw.choice((instruction, f"{instruction}{pool.join}{parts[0]}"))
            instruction = TEMPLATES[language][0]
            parts = [TEMPLATES[language][1].strip(), *parts]
            planted = {"template": language}
        elif kind in ("empty", "short"):
            parts = [self.draw.choice(SAYS_NOTHING[language] if kind == "short" else ("", " "))]
            planted = {"answer": kind}
        else:
            planted = {}
        row = row_of(instruction, input_, pool.joined(self.draw, parts))
        if kind == "damage":
            row, planted = damage(self.draw, row)
        made = Made(name, language, row, planted)
        if not planted:
            self.remember(made)
        return made

    def fresh(self, pool: Pool, tries: int = OFTEN) -> tuple[str, str, list[str]]:
        """Return the instruction, the input and the sentences of the answer of a new row."""
        ask, more, say = self.draw.choice(pool.shapes)
        instruction = pool.joined(self.draw, pool.fill(self.draw, ask))
        input_ = pool.joined(self.draw, pool.fill(self.draw, more)) if more else ""
        parts = pool.fill(self.draw, say)
        key = hash((instruction, parts[0]))
        if key in self.seen and tries:
            return self.fresh(pool, tries - 1)
        self.seen.add(key)
        return instruction, input_, parts

    def remember(self, made: Made) -> None:
        """Keep a row for copies, in the place of another one where the memory is full."""
        if len(self.remembered) < REMEMBERED:
            self.remembered.append(made)
        elif self.draw.random() < 0.25:
            self.remembered[self.draw.randrange(REMEMBERED)] = made

    def copy(self, name: str, kind: str) -> Made:
        """Return a copy of an earlier row."""
        base = self.draw.choice(self.remembered)
        row = base.row if kind == "exact" else self.changed(base.row, base.language, kind)
        return Made(name, base.language, row, {"family": base.name, "copy": kind})

    def changed(self, row: dict[str, str], language: str, kind: str) -> dict[str, str]:
        """Change the texts of a row as corpus_near.py does."""
        change = restyle if kind == "restyled" else reword
        pool = self.pools[language]
        texts = [re.findall(UNITS[language], text) for text in row.values()]
        return row_of(
            *(pool.put(change(self.draw, words, pool.words)) if words else "" for words in texts)
        )

    def leak(self, name: str) -> Made:
        """Return a row of the test, as it is or edited."""
        if not self.order:  # each once before one leaks a second time, which would be a copy
            self.order = self.draw.sample(range(len(self.tests)), len(self.tests))
        number = self.order.pop()
        language, row = self.tests[number]
        edited = self.draw.random() < 0.5
        row = self.changed(row, language, "reworded") if edited else row
        return Made(name, language, row, {"leak": number, "edited": edited})

    def plant_values(self, kind: str, language: str, parts: list[str]) -> dict[str, Any]:
        """Put sentences with personal data, or with what looks like it, between the others."""
        if kind == "negative":
            parts.insert(self.draw.randint(0, len(parts)), negative(self.draw, language))
            return {"negative": True}
        items: list[tuple[str, str]] = []
        for _ in range(self.draw.choice((1, 1, 1, 2))):
            sentence, *item = said(self.draw, language)
            parts.insert(self.draw.randint(0, len(parts)), sentence)
            items.append((item[0], item[1]))
        return {"pii": items}


def said(draw: random.Random, language: str) -> tuple[str, str, str]:
    """Return a sentence with an item of personal data, its kind, and the value to be found."""
    kind = draw.choice(list(MAKERS))
    shapes = PASSWORD_SAID[language] if kind == "password" else PLAIN[language]
    value = MAKERS[kind](draw)
    secret = value.split("\1")[1] if "\1" in value else value
    shape = draw.choice(shapes + SAID.get((kind, language), []) * 2)
    return shape.format(value.replace("\1", "")), kind, secret


def damage(draw: random.Random, row: dict[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Damage a row as corpus_repair.py does, by a kind that can have come about and shows."""
    texts = list(row.values())
    kinds = [
        kind for kind in KINDS if not (kind.startswith("entities") and speaks_of_markup(texts))
    ]
    for kind in draw.sample(kinds, len(kinds)):
        try:
            after = [KINDS[kind](text, draw) if text else "" for text in texts]
        except UnicodeError:
            continue
        if after != texts:
            return row_of(*after), {"damage": kind, "original": texts}
    return row, {}


def runs(text: str) -> set[tuple[str, ...]]:
    """Return all runs of eight words of a text, or all its words where there are fewer."""
    words = re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.lower())
    last = max(len(words) - RUN_WORDS + 1, 1)
    return {tuple(words[at : at + RUN_WORDS]) for at in range(last)}


def damaged_looks(text: str) -> bool:
    """Say whether a sentence looks damaged, or speaks of markup, before anything is planted."""
    return (
        bool(LOST.search(text))
        or html.unescape(text) != text
        or unicodedata.normalize("NFC", text) != text
    )


def real_lengths(path: Path, language: str) -> list[tuple[int, int, int]]:
    """Return the characters of each real row's texts; drawn ones where the file is not there."""
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        return [(len(row["instruction"]), len(row["input"]), len(row["output"])) for row in found]
    draw = random.Random(language)
    ask, say = (17, 160) if language == "zh" else (57, 465)
    return [
        (
            round(draw.lognormvariate(0, 0.4) * ask),
            round(draw.lognormvariate(0, 0.6) * ask) if draw.random() < 0.3 else 0,
            min(round(draw.lognormvariate(0, 0.95) * say), 6 * say),
        )
        for _ in range(1000)
    ]


if __name__ == "__main__":
    main()

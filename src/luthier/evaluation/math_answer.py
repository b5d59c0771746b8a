r"""The answer of a worked problem: where it stands, and whether two are the same.

In: a text such as those of GSM8K or MATH. Out: its final answer, which is what stands in the last
`\boxed{...}`, or else behind the last `####`, or else the last number. Numbers are compared as
exact fractions, so that 1,000 and $1000.00 are the same, and 0.5 and 1/2; other answers by their
characters without white space. Units are not compared: "18 dollars" is 18.
"""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = r"\d[\d,]*(?:\.\d+)?|\.\d+"
_VALUE = re.compile(
    rf"(?P<sign>(?<![\w)])[-−])?\$?\s*(?:\\d?frac\{{(?P<over>{_NUMBER})\}}\{{(?P<under>{_NUMBER})\}}"
    rf"|(?P<value>{_NUMBER})(?:\s*/\s*(?P<divisor>{_NUMBER}))?)"
)
_BOXED = "\\boxed{"
_MARK = "####"


def final_answer(text: str) -> str:
    """Return the part of a text that is its answer; empty where there is none."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    if _MARK in text:
        return text.rpartition(_MARK)[2].strip().partition("\n")[0]
    found = list(_VALUE.finditer(text))
    return found[-1].group() if found else ""


def same_answer(one: str, other: str) -> bool:
    """Whether two final answers are the same; nothing is the same as no answer."""
    values = number_in(one), number_in(other)
    if None not in values:
        return values[0] == values[1]
    spelled = ["".join(answer.split()).casefold() for answer in (one, other)]
    return spelled[0] == spelled[1] != ""


def number_in(answer: str) -> Fraction | None:
    """Return the number that a final answer is, units aside; None where it is none, or several."""
    found = list(_VALUE.finditer(answer))
    if len(found) != 1 or _is_formula(answer):
        return None
    match = found[0]
    value = _plain(match["over"] or match["value"])
    divisor = _plain(match["under"] or match["divisor"] or "1")
    if not divisor:
        return None
    return (-value if match["sign"] else value) / divisor


def _plain(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def _is_formula(answer: str) -> bool:
    # A letter or a power glued to the number makes another thing of it: 2x, x^2, \sqrt{2}.
    return re.search(r"\d[a-zA-Z](?![a-zA-Z])|[\^_]|\\sqrt|\\pi", answer) is not None


def _last_boxed(text: str) -> str | None:
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, first = 1, start + len(_BOXED)
    for place in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[first:place].strip()
    return None  # an answer that was cut in its box

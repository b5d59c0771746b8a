"""Characters that no one typed: controls, invisible marks, half pairs, parts of letters.

In: a text. Out: the text without them. Joiners and direction marks stay where a script needs them
(emoji, Persian, Indic, Arabic, Hebrew), and nothing here looks at width or punctuation: full-width
forms and Chinese punctuation stay as they are.
"""

from __future__ import annotations

import re
import unicodedata

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
# JSON and Python read "\frac", "\beta", "\theta" as a control character and a rest. What is left
# of the command tells it from a true form feed or tab.
_LATEX = re.compile(
    "(?<![A-Za-z])(?:\x07(?=lpha|pprox|ngle|rray|rccos|rcsin|rctan)"
    "|\x08(?=egin|eta|ar\\{|oldsymbol|inom|ig|ecause|mod|ullet|ackslash|oxed|mathbf)"
    "|\x0b(?=ec\\{|ert|arepsilon|arphi|dots|ee)"
    "|\x0c(?=rac|orall|box|lat|loor)"
    "|\t(?=ext\\{|extbf\\{|imes|heta|frac\\{|riangle)"
    "|\r(?=ight[)\\]}|.\\\\]|ightarrow|ho\\b))"
)
_LATEX_LETTERS = {"\x07": "a", "\x08": "b", "\x0b": "v", "\x0c": "f", "\t": "t", "\r": "r"}
_LINE_END = re.compile("\r\n?|[\x0b\x0c]|[\u2028\u2029]")
_DROPPED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\x80-\x9f\ufff9-\ufffc\ufdd0-\ufdef\ufffe\uffff\u206a-\u206f]"
)
_ANY_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u206a-\u206f\ufff9-\ufffc\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
    "|\t(?=[ehfr])"
)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE = re.compile("[\ud800-\udfff]")

_ANY_INVISIBLE = re.compile(
    "[\xad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
# Thai, Lao, Burmese and Khmer mark where words end with a zero-width space.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_ZERO_WIDTH = re.compile(
    f"[\xad\u034f\u180e\u2060-\u2064\ufeff]|(?<![{_SPACELESS}])\u200b|\u200b(?![{_SPACELESS}])"
)
# Behind these a joiner has nothing to join: ASCII, Latin, Chinese, Japanese.
_PLAIN = (
    "\x00-\xa8\xaa-\xad\xaf-\u024f\u2010-\u203b\u3000-\u3029\u3040-\u30ff\u3400-\u9fff\uff00-\uffef"
)
_JOINER = re.compile(f"(?<![^{_PLAIN}])[\u200c\u200d]")
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc]")
# Tag characters spell hidden text; after a black flag they name a region of an emoji.
_FLAG_OR_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]")

_HAS_MARKS = re.compile("[\u0300-\u036f\u0653-\u0655\u1100-\u11ff\u3099\u309a]")
_DECOMPOSED = re.compile(
    "[^\\s\u0300-\u036f][\u0300-\u036f\u0653-\u0655\u3099\u309a]+"
    "|[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?"
)


def remove_controls(text: str) -> str:
    """Return a text without control characters, terminal codes and half surrogate pairs.

    Line ends become one newline. LaTeX commands that lost their backslash to an escape (a form
    feed before `rac`) get it back. A half pair that stands alone becomes U+FFFD.
    """
    if not _ANY_CONTROL.search(text):
        return text
    text = _ANSI.sub("", text)
    text = _LATEX.sub(lambda found: "\\" + _LATEX_LETTERS[found[0]], text)
    text = _LINE_END.sub("\n", text)
    text = _PAIR.sub(
        lambda found: found[0].encode("utf-16", "surrogatepass").decode("utf-16"), text
    )
    text = _LONE.sub("\ufffd", text)
    return _DROPPED.sub("", text)


def remove_invisible(text: str) -> str:
    """Return a text without zero-width characters, but for those that its script needs."""
    if text.isascii() or not _ANY_INVISIBLE.search(text):
        return text
    text = _ZERO_WIDTH.sub("", text)
    text = _JOINER.sub("", text)
    if not _RIGHT_TO_LEFT.search(text):
        text = _DIRECTION.sub("", text)
    return _FLAG_OR_TAGS.sub(lambda found: found[1] or "", text)


def compose(text: str) -> str:
    """Return a text with letters and their marks as one character, where Unicode has one.

    NFC of a whole text would also replace single characters that someone may have meant, such as
    the Kelvin sign and the compatibility forms of Chinese characters: here these stay.
    """
    if text.isascii() or not _HAS_MARKS.search(text):
        return text
    return _DECOMPOSED.sub(_composed, text)


def _composed(found: re.Match[str]) -> str:
    base = found[0][0]
    is_stable = unicodedata.normalize("NFC", base) == base
    return unicodedata.normalize("NFC", found[0]) if is_stable else found[0]

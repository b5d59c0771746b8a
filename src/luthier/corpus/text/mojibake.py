"""Text whose bytes were once read in the wrong encoding, read again in the right one.

In: a text. Out: the text as it was meant, or the same text. A whole text that turns into valid
UTF-8 when its characters are written back as bytes is proof enough; where only a part is damaged,
ftfy decides, and never inside code. Nothing is guessed: what has lost bytes stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

from luthier.core.errors import MissingExtraError
from luthier.corpus.text.code_spans import outside_code

# What UTF-8's lead bytes become in single-byte encodings: without one of them there is no damage.
# C1 controls, Latin-1 letters, cp1250/1252/1257 letters, Greek and Cyrillic, Mac and DOS symbols.
_SINGLE_BYTE = re.compile(
    "[\x80-\x9f\xc2-\xf4\u0100-\u0192\u0370-\u045f\u201a\u221a\u2248\u2500-\u256c]"
)
# Bytes of GBK read as Latin-1 come in pairs, so even one word of two characters has four letters.
# Its signs (’ as "¡¯", ° as "¡ã", é as "¨¦") are as telling alone.
_GBK_IN_LATIN = re.compile("[\xa1-\xfe]{4}|[\xa1\xa3\xa6\xa8][\xa1-\xfe]|\xa8C")
_LATIN_SIGN = re.compile("[\xa1-\xbf×÷]")
_THREE_BYTES = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MIN_PROOF = 10
"""So many characters outside ASCII that form valid UTF-8 do so by no accident."""


def _gbk_readings(first: int, last: int) -> str:
    """Return the GBK characters that the first two bytes of UTF-8 sequences are read as."""
    pairs = (bytes((lead, trail)) for lead in range(first, last) for trail in range(0x80, 0xC0))
    return re.escape("".join(pair.decode("gbk", "ignore") for pair in pairs))


# Of three and four bytes, and of two (é, ×, σ).
_LONG, _SHORT = _gbk_readings(0xE2, 0xF5), _gbk_readings(0xC2, 0xD4)
_IN_GBK = re.compile(f"[{_LONG}]|[{_SHORT}]")
# A letter or sign with no word or number beside it. In a calculation one number is enough.
_ALONE = "(?<![A-Za-z0-9\xa0-\u052f]){}[\xa0-\u052f]+(?![A-Za-z0-9])"
_APART = re.compile(_ALONE.format("(?!(?<=[.,;:!?])\xa0|(?<=[0-9)] )[×÷±] [0-9(])"))
_BETWEEN_NUMBERS = re.compile(
    _ALONE.format("(?!(?<=[.,;:!?])\xa0|(?<=[0-9)] )[×÷±] |[×÷±] [$(]?[0-9])")
)
_DEGREES = re.compile(r"[^\x80-\uffff]*[0-9]°[CF]\b[^\x80-\uffff]*")
_ASCII_LETTER = re.compile("[A-Za-z]")
_NOT_ASCII = re.compile("[^\x00-\x7f]+")
# Rows of GBK without Chinese: punctuation and signs, full-width forms, Greek, accented letters.
_GBK_SIGNS = frozenset(
    bytes((lead, trail)).decode("gbk", "replace")
    for lead, first, last in (
        (0xA1, 0xA2, 0xFE),
        (0xA3, 0xA1, 0xC0),
        (0xA6, 0xA1, 0xD8),
        (0xA8, 0x40, 0xC0),
    )
    for trail in range(first, last + 1)
)
_SPANISH = re.compile("¡(?:¿|[áéíóúñüÁÉÍÓÚÑ][A-Za-z])")
LOST = re.compile("\ufffd|锟斤拷|ï¿½")
"""What stands where bytes were lost for good: nothing can bring them back."""


def is_usual(character: str) -> bool:
    """Return whether a character is at home in plain Chinese or Western text.

    Frequent simplified Chinese (the first level of GB 2312: 3,755 characters), full-width forms,
    punctuation, signs, emoji, Latin letters. Misread bytes give mostly others.
    """
    point = ord(character)
    if 0x4E00 <= point <= 0x9FFF:
        return b"\xb0" <= character.encode("gb2312", "ignore")[:1] <= b"\xd7"
    return (
        0x3000 <= point <= 0x30FF
        or 0xFF01 <= point <= 0xFFEF
        or 0x2010 <= point <= 0x22FF
        or 0xA0 <= point <= 0x17F
        or 0x1F000 <= point <= 0x1FAFF
    )


def repair_mojibake(text: str) -> str:
    """Return a text with wrongly decoded bytes decoded again, as often as it takes.

    Args:
        text: Any text.

    Raises:
        MissingExtraError: The text looks damaged, and ftfy is not installed.
    """
    while not text.isascii():
        repaired = _repair_once(text)
        # Each step leaves fewer characters, or as many and fewer C1 controls: this ends.
        if repaired == text:
            break
        text = repaired
    return text


def _repair_once(text: str) -> str:
    for gate, method in (
        (_SINGLE_BYTE, _utf8_in_single_bytes),
        (_GBK_IN_LATIN, _gbk_in_latin),
        (_IN_GBK, _utf8_in_gbk),
    ):
        if gate.search(text) and (repaired := method(text)) is not None:
            return repaired
    if _SINGLE_BYTE.search(text) and _is_bad(text):
        return outside_code(text, _ftfy().fix_encoding)
    return text


def _utf8_in_single_bytes(text: str) -> str | None:
    """Undo UTF-8 read as Latin-1 or cp1252, where the whole text proves it."""
    # ftfy's codec lets the five bytes through that cp1252 leaves open, as browsers do.
    _ftfy()
    for encoding in ("latin-1", "sloppy-windows-1252"):
        if encoding != "latin-1" and "\ufffd" in text:
            return None  # that codec writes a lost character as a control character
        try:
            raw = text.encode(encoding)
            repaired = raw.decode("utf-8")
        except UnicodeError:
            continue
        if _is_bad(text) or (_THREE_BYTES.search(raw) and _is_proof(repaired)):
            return repaired
    return None


def _gbk_in_latin(text: str) -> str | None:
    """Undo GBK read as Latin-1: mostly letters of Latin-1, which turn out as frequent Chinese."""
    try:
        repaired = text.encode("latin-1").decode("gbk")
    except UnicodeError:
        return None
    foreign = [character for character in repaired if not character.isascii()]
    # Three characters at least, and a sign among the letters: a list of letters such as "ÑÁÉÍÓÚ"
    # is frequent Chinese by accident.
    has_sign = _LATIN_SIGN.search(text) is not None
    is_chinese = has_sign and len(foreign) >= 3 and _share_usual(foreign) >= 0.8
    is_signs = _GBK_SIGNS.issuperset(foreign) and not _SPANISH.search(text)
    return repaired if is_chinese or is_signs else None


def _utf8_in_gbk(text: str) -> str | None:
    """Undo UTF-8 read as GBK, where the whole text proves it."""
    try:
        repaired = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return None
    is_short = all(character <= "\u052f" for character in repaired)
    return repaired if (_is_latin(text, repaired) if is_short else _is_proof(repaired)) else None


def _is_latin(text: str, repaired: str) -> bool:
    """Return whether a few Chinese characters in Western text are what é, ×, σ were misread as.

    Two bytes each, so each is one Chinese character, which may be meant ("猫 means cat"). It isn't
    where it stands within words, between numbers, or where several rare ones come together.
    """
    read = {character for character in text if not character.isascii()}
    if len(read) >= 8:
        return True  # of the frequent characters one in seven fits, eight of them by no accident
    num_foreign = sum(not character.isascii() for character in repaired)
    if len(_ASCII_LETTER.findall(repaired)) < 4 * num_foreign:
        return _DEGREES.fullmatch(repaired) is not None
    if any(map(_is_unheard_of, read)):
        return True
    apart = _BETWEEN_NUMBERS if "=" in text else _APART
    return not apart.search(repaired)


def _is_unheard_of(character: str) -> bool:
    """Return whether a Chinese character is in no national standard but only in GBK's filling."""
    for standard in ("gb2312", "shift_jis", "big5", "euc_kr"):
        if character.encode(standard, "ignore"):
            return False
    return True


def _is_proof(repaired: str) -> bool:
    """Return whether a text that came out as valid UTF-8 is what was meant."""
    foreign = [character for character in repaired if not character.isascii()]
    return len(foreign) >= _MIN_PROOF or (bool(foreign) and _share_usual(foreign) >= 0.8)


def _share_usual(characters: list[str]) -> float:
    return sum(map(is_usual, characters)) / len(characters)


def _is_bad(text: str) -> bool:
    """Ask ftfy about the parts that aren't ASCII: its pattern is slow and looks only nearby."""
    # NUL between the parts: in none of ftfy's patterns, so that parts don't make up a new one.
    parts = [text[max(0, m.start() - 4) : m.end() + 4] for m in _NOT_ASCII.finditer(text)]
    return _ftfy().is_bad("\0".join(parts))


def _ftfy() -> Any:
    """Return ftfy, imported late: most rows never need it."""
    try:
        import ftfy  # which also registers its codecs
    except ImportError as error:
        raise MissingExtraError.of("ftfy", "corpus", "repairing wrongly decoded text") from error
    return ftfy

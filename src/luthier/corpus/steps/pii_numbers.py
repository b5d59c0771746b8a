"""Numbers that belong to somebody: identities, cards, accounts, phones, addresses of machines.

Each finder takes a text and yields hits. A pattern proposes, a checksum or a numbering plan
confirms (`pii_checks`), and the words around may object (`pii_context`): order numbers, sums,
tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from luthier.corpus.steps.pii_checks import (
    compact,
    iban_chars,
    ip_key,
    is_bank_card,
    is_cn_id,
    is_credit_card,
    is_luhn,
    is_old_cn_id,
    phone_key,
)
from luthier.corpus.steps.pii_context import in_arithmetic, in_url, verdict
from luthier.corpus.steps.pii_hits import Hit

# `\w` would take in Chinese characters, which stand next to a number without a space.
_OPEN = r"(?<![0-9A-Za-z_０-９])(?<![0-9A-Za-z_]-)(?<!\d[.,])(?<![.,]\d)"
# Not a group of a longer number that is written in groups; but the second of two mobiles is one.
_ALONE = r"(?:(?<!\d )|(?<=\d{11} ))"
_SHUT = r"(?![0-9A-Za-z_０-９])(?![.,\-]\d)"
# `x123` behind a number is its extension.
_PHONE_SHUT = r"(?![0-9A-WYZa-wyz_０-９]|[xX](?!\d))(?![.,\-]\d)"

_HAS_NUMBER = re.compile(r"\d[\d ().\-－]{5,}\d")
# Both begin with a literal, which is found at once.
_HAS_IPV4 = re.compile(r"\.\d{1,3}\.\d")
_HAS_IPV6 = re.compile(r":[0-9A-Fa-f]{0,4}:")

_CN_ID = re.compile(
    _OPEN + _ALONE + r"[1-8]\d{5}[ \-]?(?:18|19|20)\d{6}[ \-]?\d{3}[\dXxＸｘ]" + _SHUT
)
_OLD_CN_ID = re.compile(_OPEN + _ALONE + r"[1-8]\d{14}" + _SHUT)
_CARD = re.compile(
    _OPEN
    + _ALONE
    + r"(?:\d{4}([ \-])\d{4}\1\d{4}\1\d{2,4}(?:\1\d{1,4})?|\d{4}([ \-])\d{6}\2\d{4,5}"
    r"|\d{6}([ \-])\d{7,13}|\d{13,19})" + _SHUT
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]){11,34}")
_IPV4 = re.compile(r"(?<![0-9A-Za-z_.\-/@])\d{1,3}(?:\.\d{1,3}){3}(?![0-9A-Za-z_]|\.\d|-\w)")
_IPV4_IN_URL = re.compile(r"(?<=[/@])\d{1,3}(?:\.\d{1,3}){3}(?=[:/\s,，。;；)）\"'?#]|$)")
_IPV6 = re.compile(r"(?<![0-9A-Za-z_:.])(?:[0-9A-Fa-f]{1,4}:){1,7}(?::|[0-9A-Fa-f]{1,4})"
                   r"(?:[0-9A-Fa-f:]*[0-9A-Fa-f])?(?![0-9A-Za-z_]|:[0-9A-Fa-f:])")  # fmt: skip

_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z_+])(?:[+＋]|00(?=[1-9]))[(（]?\d(?:[ .()（）\-]{0,2}\d){6,14}" + _PHONE_SHUT
)
_CN_MOBILE = re.compile(
    _OPEN + _ALONE + r"(?:86[ \-]?)?[1１][3-9３-９]\d([ \-]?)\d{4}\1\d{4}" + _SHUT
)
_CN_LANDLINE = re.compile(
    _OPEN + _ALONE + r"(?:[(（]0\d{2,3}[)）][ \-]?|0\d{2,3}[ \-－])\d{3,4}[ \-]?\d{4}" + _SHUT
)
_CN_HOTLINE = re.compile(_OPEN + _ALONE + r"[48]00([ \-])\d{3,4}\1\d{3,4}" + _SHUT)
_NANP = re.compile(
    _OPEN
    + _ALONE
    + r"(?:1[ .\-])?(?:\([2-9]\d{2}\)[ \-]?|[2-9]\d{2}([.\-]))\d{3}[.\-]\d{4}"
    + _PHONE_SHUT
)
_ANY_PHONE = re.compile(_OPEN + _ALONE + r"[(（]?\d(?:[ .()（）\-]{0,2}\d){6,13}" + _SHUT)
_FORMED = re.compile(r"\(|555|[2-9]\d{2}[.\-][2-9]\d{2}[.\-]")
_FORMED_ABROAD = re.compile(r"\+[\d()]+[ .\-]|001-\d{3}-\d{3}-")
_LOCAL_CUE = re.compile(
    r"(?:电话|座机|传真|(?<![a-z])(?:tel|phone|fax))\.?(?: ?number|号码)?(?: is|是|为)?[\s:：]*\Z",
    re.I,
)
_VERSION = re.compile(
    r"(?:v|version|ver|release|firmware|driver|build|版本|固件|驱动|第|section|chapter|/)"
    r"[\s:：.号]*\Z",
    re.IGNORECASE,
)


def has_number(text: str) -> bool:
    """Say whether a text has a run of digits that is worth a closer look."""
    return _HAS_NUMBER.search(text) is not None


def cn_ids(text: str) -> Iterator[Hit]:
    """Yield Chinese identity numbers: 18 characters with their check, 15 digits where named so."""
    for match in _CN_ID.finditer(text):
        if is_cn_id(number := compact(match[0])):
            yield Hit(match.start(), match.end(), "cn_id", number)
    for match in _OLD_CN_ID.finditer(text):
        number = compact(match[0])
        if is_old_cn_id(number) and verdict(text, match.start(), "cn_id") == "for":
            yield Hit(match.start(), match.end(), "cn_id", number)


def cards(text: str) -> Iterator[Hit]:
    """Yield credit cards and Chinese bank cards."""
    for match in _CARD.finditer(text):
        start, end = match.span()
        number = compact(match[0])
        if not is_luhn(number):
            # In groups, the last may be the next number of the sentence: `... 8595 2019`.
            end = start + max(match[0].rfind(" "), 0)
            number = compact(text[start:end])
            if not number or not is_luhn(number):
                continue
        spoken = verdict(text, start, "card")
        if spoken == "against" or in_url(text, start):
            continue
        # Visa gave up 13 digits long ago; unnamed they are a millisecond clock or a product.
        if spoken is None and (len(number) == 13 or in_arithmetic(text, start, end)):
            continue
        if is_bank_card(number):
            yield Hit(start, end, "bank_card", number)
        elif is_credit_card(number):
            yield Hit(start, end, "credit_card", number)


def ibans(text: str) -> Iterator[Hit]:
    """Yield international bank account numbers."""
    for match in _IBAN.finditer(text):
        # The pattern may break off inside a word; the check needs the whole of it.
        if num_chars := iban_chars(text[match.start() : match.end()]):
            end = match.start() + num_chars
            if not text[end : end + 1].isascii() or not text[end : end + 1].isalnum():
                yield Hit(match.start(), end, "iban", compact(text[match.start() : end]))


def ips(text: str, private_ips: bool) -> Iterator[Hit]:
    """Yield addresses of machines, IPv4 and IPv6; not versions, masks, or everybody's addresses.

    Args:
        text: Any text.
        private_ips: Whether addresses of private networks count.
    """
    for pattern in (_IPV4, _IPV4_IN_URL) if _HAS_IPV4.search(text) else ():
        for match in pattern.finditer(text):
            key = ip_key(match[0], private_ips)
            if key and not _is_version(text, match.start(), match[0]):
                yield Hit(match.start(), match.end(), "ip", key)
    if _HAS_IPV6.search(text):
        for match in _IPV6.finditer(text):
            if key := ip_key(match[0], private_ips):
                yield Hit(match.start(), match.end(), "ip", key)


def _is_version(text: str, start: int, value: str) -> bool:
    spoken = verdict(text, start, "ip")
    if spoken == "for":
        return False
    if spoken == "against" or _VERSION.search(text, max(0, start - 16), start):
        # In `http://1.2.3.4/` the slash belongs to the address.
        return not text[max(0, start - 3) : start].endswith("://")
    # Four small numbers are a version or a numbered heading, unless the text says otherwise.
    return all(int(part) < 20 for part in value.split("."))


def phones(text: str, regions: tuple[str, ...]) -> Iterator[Hit]:
    """Yield phone numbers.

    With a country code: of any country. In national form: of `regions`; where digits alone could
    be anything, only after a word such as `call` or `电话`.

    Args:
        text: Any text.
        regions: Two-letter country codes.
    """
    for match in _INTERNATIONAL.finditer(text):
        if hit := _longest_phone(text, match.start(), match.end()):
            yield hit
    shapes = [(_NANP, "US")] if "US" in regions else []
    if "CN" in regions:
        shapes += [(_CN_MOBILE, "CN"), (_CN_LANDLINE, "CN"), (_CN_HOTLINE, "CN")]
    for pattern, region in shapes:
        for match in pattern.finditer(text):
            if hit := _national_phone(text, match.start(), match.end(), region):
                yield hit
    for match in _ANY_PHONE.finditer(text):
        if verdict(text, match.start(), "phone") == "for":
            yield from _cued_phone(text, match.start(), match.end(), regions)


def _longest_phone(text: str, start: int, end: int) -> Hit | None:
    """Find the number at `start`, giving up groups of digits at the end that aren't of it."""
    if verdict(text, start, "phone") == "against":
        return None
    value = compact(text[start:end])
    digits = value.removeprefix("00") if text[start] == "0" else value
    # Made-up numbers have made-up areas; a plus sign with groups behind it leaves no doubt.
    is_formed = _FORMED_ABROAD.match(text, start, end) is not None
    if key := phone_key("+" + digits, None, cued=is_formed):
        return Hit(start, end, "phone", key)
    shorter = re.search(r"[ .()（）\-]+\d+\Z", text[start:end])
    return _longest_phone(text, start, start + shorter.start()) if shorter else None


def _national_phone(text: str, start: int, end: int, region: str) -> Hit | None:
    spoken = verdict(text, start, "phone")
    if spoken == "against":
        return None
    if spoken is None and in_url(text, start):
        return None
    is_bare = text[start:end].isdigit()
    if spoken is None and is_bare and in_arithmetic(text, start, end):
        return None
    # (555) 123-4567 is nobody's, and still a phone number: the form itself says so.
    is_formed = region == "US" and _FORMED.match(text, start) is not None
    key = phone_key(compact(text[start:end]), region, cued=is_formed or spoken == "for")
    return Hit(start, end, "phone", key) if key else None


def _cued_phone(text: str, start: int, end: int, regions: tuple[str, ...]) -> Iterator[Hit]:
    for region in regions:
        if key := phone_key(compact(text[start:end]), region):
            yield Hit(start, end, "phone", key)
            return
    digits = compact(text[start:end])
    # Without its area code no numbering plan confirms it; a label right before it does.
    if len(digits) in (7, 8) and _LOCAL_CUE.search(text, max(0, start - 20), start):
        yield Hit(start, end, "phone", digits)

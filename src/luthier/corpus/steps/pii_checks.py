"""Does a candidate hold: checksums, issuer ranges, numbering plans, randomness of a secret.

In: the characters of one candidate. Out: yes or no, or its normal form. Nothing here looks at the
words around it (`pii_context`).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from datetime import date
from functools import cache
from typing import Any, NamedTuple

from luthier.core.errors import MissingExtraError

_PROVINCES_TEXT = (
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 "
    "71 81 82 83"
)
PROVINCES = frozenset(_PROVINCES_TEXT.split())
"""First two digits of a division code. Source: GB/T 2260 (83: residence permits, Taiwan)."""

_EVERYBODYS_IPS_TEXT = (
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 114.114.114.114 223.5.5.5 223.6.6.6 119.29.29.29 "
    "192.168.0.0 192.168.0.1 192.168.1.0 192.168.1.1 10.0.0.0 10.0.0.1 172.16.0.0"
)
EVERYBODYS_IPS = frozenset(_EVERYBODYS_IPS_TEXT.split())
"""Public resolvers, factory-set routers and names of private ranges: they point at nobody."""

_CARD_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d{2})\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{12}"  # Maestro
    r"|(?:30[0-5]\d|36\d{2}|3[89]\d{2})\d{10}"  # Diners Club
)
"""Source: ISO/IEC 7812 issuer ranges as the networks publish them."""

_CN_BANKS = re.compile(r"62\d{14,17}|(?:955880|95595\d|690755|601382|603708)\d{10,13}")
"""UnionPay, and the debit ranges that Chinese banks used before it."""


class Checksums(NamedTuple):
    """The modules of python-stdnum that the step uses."""

    iban: Any
    luhn: Any
    mod_11_2: Any


@cache
def stdnum() -> Checksums:
    """Return python-stdnum's checksum modules.

    Raises:
        MissingExtraError: python-stdnum is not installed.
    """
    try:
        from stdnum import iban, luhn
        from stdnum.iso7064 import mod_11_2
    except ImportError as error:
        raise MissingExtraError.of("python-stdnum", "corpus", "the pii step") from error
    return Checksums(iban=iban, luhn=luhn, mod_11_2=mod_11_2)


@cache
def phonenumbers() -> Any:
    """Return the phonenumbers package.

    Raises:
        MissingExtraError: phonenumbers is not installed.
    """
    try:
        import phonenumbers
    except ImportError as error:
        raise MissingExtraError.of("phonenumbers", "corpus", "the pii step") from error
    return phonenumbers


def compact(text: str) -> str:
    """Return letters and digits only, full-width ones as ASCII, in upper case."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return "".join(char for char in folded if char.isalnum()).upper()


def is_cn_id(number: str) -> bool:
    """Say whether 18 characters are a Chinese identity number.

    python-stdnum's `cn.ric` is not used: its list of counties rejects about half of valid numbers,
    because counties are renamed and merged and the number stays.

    Args:
        number: In the form of `compact`.

    Source: GB 11643-1999: division, birthday, sequence, ISO 7064 mod 11-2 check character.
    """
    if len(number) != 18 or number[:2] not in PROVINCES or not number[:17].isdigit():
        return False
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return 1850 <= born.year < 2100 and bool(stdnum().mod_11_2.is_valid(number))


def is_old_cn_id(number: str) -> bool:
    """Say whether 15 digits have the form of an identity number of before 1999, without check."""
    if len(number) != 15 or number[:2] not in PROVINCES or not number.isdigit():
        return False
    try:
        date(1900 + int(number[6:8]), int(number[8:10]), int(number[10:12]))
    except ValueError:
        return False
    return True


def is_luhn(number: str) -> bool:
    """Say whether the last digit is the Luhn check digit. Source: ISO/IEC 7812-1, annex B."""
    return bool(stdnum().luhn.is_valid(number))


def is_credit_card(number: str) -> bool:
    """Say whether digits lie in an issuer's range, with its length and a right check digit."""
    return _CARD_ISSUERS.fullmatch(number) is not None and is_luhn(number)


def is_bank_card(number: str) -> bool:
    """Say whether digits are a Chinese bank card's: UnionPay or an older range, and Luhn."""
    return _CN_BANKS.fullmatch(number) is not None and is_luhn(number)


def iban_chars(text: str) -> int:
    """Return how many characters from the start are an IBAN, 0 if none.

    The words after an IBAN can look like more of it (`... 0130 00 BIC`), so ends are tried from
    the longest down. Lengths and layouts by country are python-stdnum's.

    Args:
        text: Begins where the IBAN would.

    Source: ISO 13616, ISO 7064 mod 97-10.
    """
    ends = [m.end() for m in re.finditer(r"[A-Za-z0-9](?![A-Za-z0-9])", text)]
    for end in reversed(ends):
        # The national check digits inside differ by bank and age; mod 97 covers them all.
        is_long = 15 <= len(compact(text[:end])) <= 34
        if is_long and stdnum().iban.is_valid(text[:end], check_country=False):
            return end
    return 0


def ip_key(text: str, private_ips: bool) -> str | None:
    """Return an address in normal form, or None where it is none or points at nobody.

    Args:
        text: A candidate.
        private_ips: Whether addresses of private networks count.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return None
    if str(address) in EVERYBODYS_IPS:
        return None
    if address.version == 4:
        # 255.255.255.0 is a mask, 0.1.2.3 and 240.0.0.0 up are not handed out.
        if address.is_reserved or int(address) >> 24 == 0:
            return None
    elif int(address) >> 125 != 1 and not (private_ips and int(address) >> 120 in (0xFD, 0xFE)):
        # Only 2000::/3 is handed out; the rest, such as `a::b`, is C++ more often than not. But
        # eight groups written out are an address, handed out or made up.
        return str(address) if text.count(":") == 7 and len(text) >= 30 else None
    is_documentation = not address.is_global and not address.is_private
    return str(address) if private_ips or address.is_global or is_documentation else None


def phone_key(text: str, region: str | None, *, cued: bool = False) -> str | None:
    """Return a number in E.164, or None where no numbering plan has it.

    Args:
        text: A candidate.
        region: Country whose national form it may have; None where it carries its country code.
        cued: The words before say that it is a phone number; then its length is enough, so that
            made-up numbers such as 555-123-4567 are found too.
    """
    library = phonenumbers()
    try:
        number = library.parse(text, region)
    except library.NumberParseException:
        return None
    holds = library.is_possible_number if cued else library.is_valid_number
    if not holds(number):
        return None
    return str(library.format_number(number, library.PhoneNumberFormat.E164))


_STAND_IN = re.compile(r"(?i:your|placeholder|[_-]here|insert|changeme)|x{4}|X{4}|\.\.\.|\*\*")


def looks_random(value: str, min_chars: int, *, letters_alone: bool = False) -> bool:
    """Say whether a value looks drawn by chance: long, letters and digits, many different ones.

    Args:
        value: The candidate.
        min_chars: Shortest length that counts.
        letters_alone: Whether it may do without a digit.
    """
    if len(value) < min_chars or _STAND_IN.search(value):
        return False
    has_digit, has_letter = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    return (has_digit or letters_alone) and has_letter and len(set(value)) >= min(8, min_chars)

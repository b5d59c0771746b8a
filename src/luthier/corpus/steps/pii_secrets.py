"""What opens a door, and email addresses: API keys, passwords, URLs that carry either.

Each finder takes a text and yields hits. A key has a shape that its issuer chose; a password has
none, so it is taken only after a word that names it, and only where it isn't prose or code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from luthier.core.secrets import KEY_SHAPES
from luthier.corpus.steps.pii_checks import looks_random
from luthier.corpus.steps.pii_hits import Hit

_KEY_LITERALS = tuple(literal for literals in KEY_SHAPES.values() for literal in literals)
_KEY = re.compile(rf"(?<![A-Za-z0-9_\-])(?:{'|'.join(KEY_SHAPES)})")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<what>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:[\s\S]{0,20000}?-----END (?P=what)-----|[A-Za-z0-9+/=\s\\]{0,20000})"
)
_NAMED_KEY = re.compile(
    r"(?:api[_\- ]?key|access[_\- ]?key(?:[_\- ]?id)?|secret[_\- ]?(?:access[_\- ]?)?key"
    r"|(?:access|auth|refresh|bot|api)[_\- ]?token|(?:client|app)[_\- ]?secret|secret|token"
    r"|bearer|密钥|秘钥|令牌)"
    r"[\"'”`]?\s*(?:is|[:=：为是]|=>|(?<=[Bb]earer)\s)\s*[\"'“`]?(?P<value>[A-Za-z0-9_\-./+=]{16,200})",
    re.IGNORECASE,
)
_MIN_RANDOM = 16
_KEY_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./+=:"
_KEY_CHARS_AS_X = bytes(ord("x" if code in _KEY_CHARS else " ") for code in range(256))
_KEY_WORDS = ("key", "token", "secret", "bearer", "密钥", "秘钥", "令牌")

_PASSWORD = re.compile(
    r"(?:password|passwd|passphrase|passcode|pass_?wd|(?<![a-z])pass(?=\s*[:=：])|pwd|密码|密碼|口令)"
    r"[\"'”’`*]{0,3}"
    r"(?:\s+(?:for|of|to|on)\s[^\n.:=]{1,40}?)?(?:\s+(?:has been|was|were|is|got))?"
    r"(?:\s+(?:now|reset|changed|set))?"
    r"(?:\s*(?:[:=：]|=>|->|已?(?:重置|设置|修改|改|设)(?:为|成)了?|就?是|为)|(?<=is|as)\s"
    r"|\s+(?:is|to|as)\s|(?<=now|set|was)\s|(?<=[码碼令])(?=\s?[!-~]))"
    r"(?:\*\*|`)?\s*[\"'“‘「`]?(?P<value>[!#-&(-;=?-_a-~]{4,64})",
    re.IGNORECASE,
)
_PASSWORD_SIGNS = ("pass", "pwd", "密", "口令")
"""One of these stands in each of the words: most texts have none."""
_PASSWORD_WORDS = (
    "passw",
    "passp",
    "passc",
    "pwd",
    "pass:",
    "pass=",
    "pass_wd",
    "密码",
    "密碼",
    "口令",
)
# A variable, a call, a placeholder of a template, stars, a range of lengths: not a password.
_NOT_PASSWORD = re.compile(
    r"\$\{?[A-Za-z_]\w*\}?;?|%(?:\(\w+\))?[sdr]|\{.*\}|[A-Za-z_][\w.]*[(\[](?:.*[)\],;(\[])?|\*+|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"
    r"|\d{1,3}[-~]\d{1,3}|[\-=_.*#•]+.{0,2}|\d+(?:,\d{3})+|\d{4}[-/]\d\d?[-/]\d\d?|\w+://.*|/.*|[\[({].*[\])}]"
)
_UNIT = re.compile(
    r"\s*(?:[-~]\s*\d|bit|byte|char|digit|letter|word|[位个字次年月天])", re.IGNORECASE
)

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-/])[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}[@＠]"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+(?P<tld>[A-Za-z]{2,24})(?![A-Za-z0-9\-(\[=])"
)
_TOP_DOMAINS_TEXT = (
    "com org net edu gov mil int info biz name pro museum aero coop jobs mobi travel tel asia post "
    "app dev xyz online site shop store tech club vip top live news blog cloud email link world "
    "page space wiki art design agency digital media studio team work life today network systems "
    "solutions company group global email health care bank finance law legal academy school "
    "university science engineering software center church social example test invalid "
    "london berlin paris tokyo nyc cat eus web ltd llc inc gmbh icu fun win bid loan men wang "
    "ren xin red love cool run zone plus"
)
TOP_DOMAINS = frozenset(_TOP_DOMAINS_TEXT.split())
"""Generic top domains that mail comes from, besides those of two letters; not `x@self.weight`."""

_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s<>\"'`，。；：！？、（）】」》\u4e00-\u9fff]+"
)
_USERINFO = re.compile(r"://(?P<value>[^\s/:@?#]*:[^\s/@]+)@")
_PARAMETER = re.compile(r"[?&#;](?P<name>[A-Za-z0-9_.\-]{1,40})=(?P<value>[^&#\s]{4,})")
_SURE_NAME = re.compile(
    r"(?:token|secret|signature|password|passwd|pwd|api_?key|jwt|credential|access_?key)\Z", re.I
)
_LIKELY_NAME = re.compile(r"(?:key|auth|sig|sid|session(?:_?id)?|ticket|code|otp|reset)\Z", re.I)
_SECRET_PATH = re.compile(
    r"(?:hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/|api\.telegram\.org/bot"
    r"|oapi\.dingtalk\.com/robot/|/(?:reset|verify|invite|magic|confirm)[\w\-]*/)"
    r"(?P<value>[A-Za-z0-9_\-/:]{16,})"
)


def api_keys(text: str) -> Iterator[Hit]:
    """Yield keys of known issuers, private key blocks, and random values that are named a key."""
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield Hit(match.start(), match.end(), "api_key", match[0])
    if not _may_hold_key(text):
        return
    if any(map(text.__contains__, _KEY_LITERALS)):
        for match in _KEY.finditer(text):
            # Only `sk-` also begins hyphenated words; some issuers' keys are letters alone.
            if looks_random(match[0], _MIN_RANDOM, letters_alone=not match[0].startswith("sk-")):
                yield Hit(match.start(), match.end(), "api_key", match[0])
    lowered = text.lower()
    if any(map(lowered.__contains__, _KEY_WORDS)):
        for match in _NAMED_KEY.finditer(text):
            value = match["value"].rstrip(".")
            if looks_random(value, _MIN_RANDOM) and not _NOT_PASSWORD.fullmatch(value):
                start = match.start("value")
                yield Hit(start, start + len(value), "api_key", value)


def _may_hold_key(text: str) -> bool:
    """Say whether a text has a run of characters as long as a key is at least; most have none."""
    marked = text.encode("ascii", "replace").translate(_KEY_CHARS_AS_X)
    return b"x" * _MIN_RANDOM in marked


def passwords(text: str) -> Iterator[Hit]:
    """Yield values that stand after a word for password and aren't prose or code."""
    lowered = text.lower()
    if not any(map(lowered.__contains__, _PASSWORD_SIGNS)):
        return
    if not any(map(lowered.__contains__, _PASSWORD_WORDS)):
        return
    for match in _PASSWORD.finditer(text):
        # In `password=abc&user=bo` the value ends at the next parameter.
        whole = re.split(r"&\w+=", match["value"])[0]
        value = whole.rstrip(".,;:]}")
        if value.endswith(")") and "(" in text[max(0, match.start() - 40) : match.start("value")]:
            value = value.rstrip(".,;:)")
        end = match.start("value") + len(value)
        if _is_password(value) and not _is_prose(text, whole, value, end):
            yield Hit(match.start("value"), end, "password", value)


def _is_prose(text: str, whole: str, value: str, end: int) -> bool:
    """Say whether a value is a variable, a call, or the length that passwords must have."""
    if value.isdigit() and _UNIT.match(text, end):
        return True
    if _NOT_PASSWORD.fullmatch(value) or _NOT_PASSWORD.fullmatch(whole):
        return True
    return text.startswith(("位", "个", "("), end)


def _is_password(value: str) -> bool:
    """A word alone is prose (`password: required`); a digit or a symbol inside makes it one."""
    if len(value) < 4 or "***" in value or "..." in value:
        return False
    if value.isdigit():
        return True
    if not any(char.isalpha() for char in value):
        return sum(char.isdigit() for char in value) >= 4
    return any(char.isdigit() for char in value) or any(
        char in "!@#$%^&*+~?" for char in value[1:-1]
    )


def emails(text: str) -> Iterator[Hit]:
    """Yield email addresses; not file names (`logo@2x.png`), git remotes or matrix products."""
    if "@" not in text and "＠" not in text:
        return
    for match in _EMAIL.finditer(text):
        domain = match["tld"].lower()
        if len(domain) != 2 and domain not in TOP_DOMAINS:
            continue
        key = match[0].lower().replace("＠", "@")
        if not (key.startswith("git@") and text[match.end() : match.end() + 1] == ":"):
            yield Hit(match.start(), match.end(), "email", key)


def url_tokens(text: str) -> Iterator[Hit]:
    """Yield the secret part of each URL: user and password, a token's value, a webhook's path.

    The rest of the URL stays: it says what was called, which is what a model should learn.
    """
    if "://" not in text:
        return
    for match in _URL.finditer(text):
        url, offset = match[0].rstrip(".,;:!?)]}"), match.start()
        found = [m for m in [_USERINFO.search(url), _SECRET_PATH.search(url)] if m]
        found += [m for m in _PARAMETER.finditer(url) if _is_secret(m["name"], m["value"])]
        for part in found:
            start, end = part.span("value")
            if "*" not in part["value"]:
                yield Hit(offset + start, offset + end, "url_token", part["value"])


def _is_secret(name: str, value: str) -> bool:
    if _SURE_NAME.search(name):
        return looks_random(value, 6) or (value.isdigit() and len(value) >= 6)
    return _LIKELY_NAME.search(name) is not None and looks_random(value, 12)

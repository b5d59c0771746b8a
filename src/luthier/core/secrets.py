"""Secrets: found in any text, and kept out of every file.

In: a text, or a value as JSON has it. Out: what kind of secret stands in it, or the same with `***`
in the secret's place. Three things are secrets: the value of an environment variable that is named
as one, a key in the shape that its issuer gives it, and the password in a URL. No function here
returns a secret or says one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
"""What stands in a secret's place."""

SHORTEST = 8
"""Characters that a variable's value has at least, to be one: shorter ones are switches."""

KEY_SHAPES: dict[str, tuple[str, ...]] = {
    r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-|or-v1-)?[A-Za-z0-9_\-]{20,200}": ("sk-",),
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}(?![A-Za-z0-9])": ("AKIA", "ASIA", "AROA", "AIDA"),
    r"gh[pousr]_[A-Za-z0-9]{36,255}": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    r"github_pat_[A-Za-z0-9_]{22,255}": ("github_pat_",),
    r"glpat-[A-Za-z0-9_\-]{20,}": ("glpat-",),
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,}": ("xox",),
    r"xapp-\d-[A-Za-z0-9\-]{10,}": ("xapp-",),
    r"AIza[A-Za-z0-9_\-]{35}": ("AIza",),
    r"GOCSPX-[A-Za-z0-9_\-]{28}": ("GOCSPX-",),
    r"ya29\.[A-Za-z0-9_\-]{20,}": ("ya29.",),
    r"hf_[A-Za-z0-9]{30,}": ("hf_",),
    r"[srp]k_(?:live|test)_[A-Za-z0-9]{16,}": ("k_live_", "k_test_"),
    r"whsec_[A-Za-z0-9]{20,}": ("whsec_",),
    r"npm_[A-Za-z0-9]{36}": ("npm_",),
    r"pypi-[A-Za-z0-9_\-]{50,}": ("pypi-",),
    r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}": ("SG.",),
    r"LTAI[A-Za-z0-9]{12,20}": ("LTAI",),
    r"AKID[A-Za-z0-9]{32}": ("AKID",),
    r"\d{8,10}:AA[A-Za-z0-9_\-]{33}": (":AA",),
    r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?": ("eyJ",),
}
"""Shape of each issuer's key, and the literals of which one must stand in a text that has it.

Source: the secret patterns that the issuers publish (GitHub's list of supported secrets; RFC 7519
for JSON web tokens). The literals are looked for first: that costs nearly nothing.
"""

_KEY = re.compile(rf"(?<![A-Za-z0-9_\-])(?:{'|'.join(KEY_SHAPES)})")
_USERINFO = re.compile(r"(?<=://)[^\s/:@?#]*:[^\s/@]+(?=@)")
_SECRETS_NAME = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSWORD|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE
)
# Such a variable says where a secret lies.
_PLACES_NAME = re.compile(r"_(?:FILE|PATH|DIR)\Z", re.IGNORECASE)


def secret_variables(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment's secrets, each with the name of its variable, the longest first.

    Args:
        variables: In place of the process's own.
    """
    given = os.environ if variables is None else variables
    found = {
        value.strip(): name
        for name, value in given.items()
        if _SECRETS_NAME.search(name)
        and not _PLACES_NAME.search(name)
        and len(value.strip()) >= SHORTEST
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def find_secret(value: Any, variables: Mapping[str, str] | None = None) -> str | None:
    """Say what kind of secret stands in a value, or None if there is none.

    Args:
        value: A text, or numbers, lists and mappings with texts in them, names included.
        variables: In place of the process's environment.

    Returns:
        A noun phrase without the secret: `the value of the environment variable HF_TOKEN`.
    """
    known = secret_variables(variables)
    for text in _texts(value):
        for secret, name in known.items():
            if secret in text:
                return f"the value of the environment variable {name}"
        if any(_is_drawn(match[0]) for match in _KEY.finditer(text)):
            return "a key or token"
        if _USERINFO.search(text):
            return "a URL with a password"
    return None


def redact(text: str, variables: Mapping[str, str] | None = None) -> str:
    """Return a text with `***` in place of each secret.

    Args:
        text: Anything that is to be written or shown.
        variables: In place of the process's environment.
    """
    return _redact(text, secret_variables(variables))


def redact_json(value: Any, variables: Mapping[str, str] | None = None) -> Any:
    """Return a JSON value with `***` in place of each secret in its texts and names."""
    known = secret_variables(variables)

    def redacted(item: Any) -> Any:
        if isinstance(item, str):
            return _redact(item, known)
        if isinstance(item, Mapping):
            return {redacted(name): redacted(part) for name, part in item.items()}
        if isinstance(item, list | tuple):
            return [redacted(part) for part in item]
        return item

    return redacted(value)


def _redact(text: str, known: Mapping[str, str]) -> str:
    for secret in known:
        text = text.replace(secret, HIDDEN)
    text = _KEY.sub(lambda match: HIDDEN if _is_drawn(match[0]) else match[0], text)
    return _USERINFO.sub(HIDDEN, text)


def _is_drawn(key: str) -> bool:
    """Say whether a key was drawn by chance: `sk-` also begins names of folders."""
    if not key.startswith("sk-"):
        return True
    return all(any(map(kind, key)) for kind in (str.isdigit, str.isupper, str.islower))


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a JSON value; a number counts as it is written."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(name)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)

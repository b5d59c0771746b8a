"""Which packages luthier stands on here: versions, extras, and versions with known holes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from luthier.contracts.notice import Notice

REPORTED = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "jinja2",
)
"""Packages whose versions decide results."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The lowest version of a package without a known hole."""

    package: str
    version: str
    reason: str


FLOORS = (
    Floor("transformers", "5.3", "CVE-2026-4372: a model's config can run code"),
    Floor("torch", "2.10", "CVE-2026-24747: loading weights can run code"),
    Floor("jinja2", "3.1.6", "CVE-2025-27516: a chat template can leave the sandbox"),
    Floor("datasets", "4", "older ones run scripts that a data set brings"),
)

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]")
_FOR_DEVELOPERS = "dev"


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that decide results, luthier first."""
    versions = {name: installed_version(name) for name in ("luthier", *REPORTED)}
    return {name: version for name, version in versions.items() if version is not None}


def installed_version(package: str) -> str | None:
    """Return a package's version, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras() -> list[dict[str, Any]]:
    """Return luthier's extras: name, packages with version or None, and how to install them."""
    members: dict[str, list[str]] = {}
    for requirement in metadata.requires("luthier") or []:
        found = _REQUIREMENT.match(requirement)
        if found and found.group(2) != _FOR_DEVELOPERS:
            members.setdefault(found.group(2), []).append(found.group(1))
    rows = [_extra(name, names, f"luthier[{name}]") for name, names in members.items()]
    # No extra: it is built against the torch and CUDA that are there.
    return [*rows, _extra("flash attention", ["flash-attn"], "flash-attn")]


def _extra(name: str, packages: list[str], requirement: str) -> dict[str, Any]:
    versions = {package: installed_version(package) for package in packages}
    return {
        "name": name,
        "packages": versions,
        "installed": None not in versions.values(),
        "install": f"pip install '{requirement}'",
    }


def security_notices() -> list[Notice]:
    """Return a warning for each installed package that is older than its safe version."""
    notices: list[Notice] = []
    for floor in FLOORS:
        version = installed_version(floor.package)
        if version is not None and _numbers(version) < _numbers(floor.version):
            reason = f"{floor.reason}. pip install -U '{floor.package}>={floor.version}'"
            notices.append(Notice(floor.package, version, f">={floor.version}", reason))
    return notices


def _numbers(version: str) -> tuple[int, ...]:
    release = version.split("+", 1)[0].split("-", 1)[0]
    leading = re.match(r"\d+(?:\.\d+)*", release)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()

"""How to prepare a corpus again, as settings that can be copied.

In: a corpus's manifest. Out: YAML of the settings that are not at their defaults. Values that are
personal data themselves (`pii_allow`) are counted and not shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from luthier.contracts.settings import Settings
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.steps.groups import GroupSettings
from luthier.corpus.steps.registry import STEPS
from luthier.report.words import number, say

COMMAND = "luthier prepare prepare.yaml"

_PRIVATE = frozenset({"pii_allow"})
_NO_SETTING = "files"
"""Hashes of files that a step read: a fact of the run, not a setting."""


def settings_yaml(manifest: Mapping[str, Any]) -> str:
    """Return the settings as YAML, one a line."""
    return "\n".join([*_of_corpus(manifest), *_of_steps(manifest), *_of_own_steps(manifest)])


def _of_corpus(manifest: Mapping[str, Any]) -> Iterator[str]:
    paths = [source.get("path") or source["name"] for source in manifest.get("sources") or ()]
    # The sources of a validation file come last.
    num_val = len((manifest.get("inputs") or {}).get("val") or ())
    train, val = paths[: len(paths) - num_val], paths[len(paths) - num_val :]
    for name, files in (("train_file", train), ("val_file", val)):
        if files:
            yield _line(name, files[0] if len(files) == 1 else files)
    if manifest.get("seed") is not None:
        yield _line("seed", manifest["seed"])
    split = manifest.get("split") or {}
    if split.get("by") == "val_size" and split.get("val_size"):
        yield _line("val_size", split["val_size"])
    yield from _changed(CorpusSettings, manifest.get("reading") or {})
    yield from _changed(GroupSettings, manifest.get("split_settings") or {})
    names = [step["name"] for step in manifest.get("steps") or ()]
    if names:
        yield _line("steps", [name for name in names if name != "read"])


def _of_steps(manifest: Mapping[str, Any]) -> Iterator[str]:
    for step in manifest.get("steps") or ():
        if step["name"] in STEPS:
            yield from _changed(STEPS[step["name"]].settings, step.get("settings") or {})


def _of_own_steps(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of steps that the user wrote, and whose file it was."""
    own = [
        step
        for step in manifest.get("steps") or ()
        if step["name"] != "read" and step["name"] not in STEPS
    ]
    chosen = {step["name"]: (step.get("settings") or {}).get("own") for step in own}
    if given := {name: value for name, value in chosen.items() if value}:
        yield _line("step_settings", given)
    files = {hashed for step in own for hashed in (step.get("settings") or {}).get("files") or ()}
    for sha256 in sorted(files):
        yield f"# {say('step_file', names=', '.join(chosen), sha256=sha256).en}"


def _changed(settings: type[Settings], values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings that differ from their defaults."""
    defaults = settings().model_dump(mode="json")
    for name, value in values.items():
        if name == _NO_SETTING or (name in defaults and defaults[name] == value):
            continue
        if name in _PRIVATE:
            yield f"# {name}: {say('not_shown', num=number(len(value))).en}"
        else:
            yield _line(name, value)


def _line(name: str, value: Any) -> str:
    # JSON is YAML too, and needs no library to be right about quotes.
    return f"{name}: {json.dumps(value, ensure_ascii=False)}"

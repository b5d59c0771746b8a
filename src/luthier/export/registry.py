"""The targets by name, and what the user writes behind `--to`.

A target's module is loaded when it is asked for: some bring heavy packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.core.errors import SettingsError, did_you_mean
from luthier.export.target import Target


def _hf() -> Target:
    from luthier.export.hf import HfTarget

    return HfTarget()


def _adapter() -> Target:
    from luthier.export.adapter import AdapterTarget

    return AdapterTarget()


def _gguf() -> Target:
    from luthier.export.gguf.target import GgufTarget

    return GgufTarget()


def _ollama() -> Target:
    from luthier.export.ollama import OllamaTarget

    return OllamaTarget()


TARGETS: Mapping[str, Callable[[], Target]] = {
    "hf": _hf,
    "adapter": _adapter,
    "gguf": _gguf,
    "ollama": _ollama,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target and the type that is wanted of it."""

    target: Target
    kind: str | None

    @property
    def label(self) -> str:
        """What folders are called after: `gguf-Q8_0`."""
        return self.target.name if self.kind is None else f"{self.target.name}-{self.kind}"


def read_targets(names: Sequence[str]) -> list[Wanted]:
    """Return the targets that `NAME` or `NAME:TYPE` stand for, each once.

    Raises:
        SettingsError: A target or a type is unknown, or a type is missing.
    """
    wanted: dict[str, Wanted] = {}
    for written in names:
        name, _, kind = written.partition(":")
        if name.lower() not in TARGETS:
            is_model = Path(written).expanduser().exists()
            mend = "Name the model before --to." if is_model else did_you_mean(name, TARGETS)
            raise SettingsError(f"unknown target {name!r}", where="--to", mend=mend)
        target = TARGETS[name.lower()]()
        one = Wanted(target, _type_of(target, kind, written))
        wanted[one.label] = one
    if not wanted:
        raise SettingsError(
            "no target is named", where="--to", mend=f"Known: {', '.join(TARGETS)}."
        )
    return list(wanted.values())


def _type_of(target: Target, kind: str, written: str) -> str | None:
    known = {name.lower(): name for name in target.types()}
    if not kind:
        if target.needs_type:
            example = f"{target.name}:{target.types()[0]}"
            raise SettingsError(
                f"{target.name} needs a type",
                where="--to",
                mend=f"Write for example {example}. Known: {', '.join(target.types())}.",
            )
        return None
    if kind.lower() not in known:
        raise SettingsError(
            f"{target.name} has no type {kind!r}" if known else f"{target.name} has no types",
            where=f"--to {written}",
            mend=did_you_mean(kind, target.types()) if known else f"Write --to {target.name}",
        )
    return known[kind.lower()]

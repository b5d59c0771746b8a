"""What is another today than when a run was started, and what that can change.

Comes in: the run's manifest, and one made now by the same functions. Goes out: what is the same,
counted, and each difference, the worst first. Files are compared by their hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Effect = Literal["everything", "the data", "the last bits"]
EFFECTS: tuple[Effect, ...] = ("everything", "the data", "the last bits")
"""What a difference can change, the worst first."""

DATA = "data"
"""The group of the input files."""

NOT_THERE = "not there"
NOT_READ = "not read"
NOT_SET = "not set"
NOT_INSTALLED = "not installed"

_TEXT_PACKAGES = frozenset({"tokenizers", "datasets", "jinja2"})
_MODEL_PACKAGES = frozenset({"transformers", "peft"})
_GROUPS: Mapping[str, tuple[Effect, str]] = {
    "settings": ("everything", NOT_THERE),
    "luthier": ("everything", NOT_THERE),
    "model": ("everything", NOT_THERE),
    "precision": ("everything", NOT_THERE),
    DATA: ("the data", NOT_THERE),
    "tokenizer": ("the data", NOT_THERE),
    "cleaning package": ("the data", NOT_INSTALLED),
    "package": ("the last bits", NOT_INSTALLED),
    "python": ("the last bits", NOT_THERE),
    "system": ("the last bits", NOT_THERE),
    "processor": ("the last bits", NOT_THERE),
    "gpu": ("the last bits", NOT_THERE),
    "torch": ("the last bits", NOT_THERE),
    "variable": ("the last bits", NOT_SET),
}
"""Of each group of facts: what a difference can change, and what it means that one is missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that is another today.

    Attributes:
        group: What kind of fact it is.
        name: Which one of its kind; empty where there is only one.
        then: What the run's manifest says, hashes whole.
        now: What is true today.
        effect: What it can change.
    """

    group: str
    name: str
    then: str
    now: str
    effect: Effect

    @property
    def title(self) -> str:
        """Group and name, as one reads them."""
        return f"{self.group} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Today:
    """A run's manifest held against today.

    Attributes:
        num_same: Facts that are the same.
        differences: The others, the worst first.
        unrecorded: Groups of facts that the run's manifest does not hold.
    """

    num_same: int
    differences: tuple[Difference, ...]
    unrecorded: tuple[str, ...]

    @property
    def changed_data(self) -> tuple[Difference, ...]:
        """Those of the input files."""
        return tuple(found for found in self.differences if found.group == DATA)


def compare_manifests(then: Mapping[str, Any], now: Mapping[str, Any]) -> Today:
    """Hold the facts of two manifests against each other.

    Args:
        then: A run's.
        now: One that describes the same settings today.
    """
    left, right = _facts(then), _facts(now)
    _leave_to_the_source(left.get("luthier", {}), right.get("luthier", {}))
    num_same, differences = 0, list[Difference]()
    unrecorded = tuple(group for group in _GROUPS if group in right and group not in left)
    for group in (group for group in _GROUPS if group in left):
        effect, missing = _GROUPS[group]
        mine, theirs = left[group], right.get(group, {})
        for name in sorted(mine.keys() | theirs.keys()):
            before, today = mine.get(name, missing), theirs.get(name, missing)
            if before == today:
                num_same += 1
                continue
            changes = _effect_of(group, name, effect)
            differences.append(Difference(group, name, before, today, changes))
    differences.sort(key=lambda found: EFFECTS.index(found.effect))
    return Today(num_same, tuple(differences), unrecorded)


def input_facts(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of each input file, or the fingerprint of a hub data set, by its name.

    Args:
        inputs: `{"train": [...], "val": [...]}`, as manifests of data have it.
    """
    return {
        f"{side}: {_source_name(source)}": str(source.get("sha256") or source.get("fingerprint"))
        for side in ("train", "val")
        for source in inputs.get(side, [])
    }


def _facts(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return what a manifest says, by group and name; groups that it doesn't hold are left out."""
    return {group: dict(facts) for group, facts in _read(manifest)}


def _read(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, str]]]:
    luthier, data = manifest.get("luthier"), manifest.get("data")
    corpus, machine = manifest.get("corpus"), manifest.get("machine")
    computing, environment = manifest.get("computing"), manifest.get("environment")
    if "settings_sha256" in manifest:
        parts = [part.get("settings_sha256") for part in manifest.get("earlier", [])]
        before = {f"before stop {number}": sha for number, sha in enumerate(parts, start=1) if sha}
        yield "settings", {"": manifest["settings_sha256"], **before}
    if luthier:
        keys = ("version", "source_sha256", "commit", "diff_sha256")
        yield "luthier", {k.removesuffix("_sha256"): luthier[k] for k in keys if k in luthier}
    if files := _model_files(manifest):
        yield "model", files
    if computing:
        yield "precision", {"": computing["precision"]}
        named = {k: str(v) for k, v in computing.items() if k != "precision"}
        yield "torch", {name.replace("_", " "): value for name, value in named.items()}
    if inputs := (corpus or data or {}).get("inputs"):
        yield DATA, input_facts(inputs)
    if data and "tokenizer" in data:
        named = {"": "tokenizer", "template": "template_sha256", "date in the template": "date"}
        yield "tokenizer", {name: data[key] for name, key in named.items() if key in data}
    if corpus:
        yield "cleaning package", corpus["packages"]
    if "packages" in manifest:
        # luthier itself is told by its source.
        yield "package", {n: v for n, v in manifest["packages"].items() if n != "luthier"}
    if machine:
        yield "python", {"": machine["python"]}
        yield "system", {"": machine["os"]}
        yield "processor", {"": f"{machine['cpu']['name']} ({machine['cpu']['architecture']})"}
        yield "gpu", {str(number): _gpu(gpu) for number, gpu in enumerate(machine["gpus"])}
    if environment is not None:
        yield "variable", environment


def _leave_to_the_source(then: dict[str, str], now: dict[str, str]) -> None:
    """Take commit and diff out where the source is the same: a commit may change other files."""
    if "source" not in then:
        now.pop("source", None)
    elif then["source"] == now.get("source"):
        for facts in (then, now):
            facts.pop("commit", None)
            facts.pop("diff", None)


def _model_files(manifest: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in (p for p in manifest if p == "model" or p.startswith("adapter")):
        for kind in ("config_sha256", "weights_sha256"):
            hashes = manifest.get(part, {}).get(kind, {})
            if isinstance(hashes, Mapping):  # Older manifests have one hash there.
                found |= {f"{part} {name}".removeprefix("model "): h for name, h in hashes.items()}
    return found


def _gpu(gpu: Mapping[str, Any]) -> str:
    parts = [gpu["name"], *(f"{n} {gpu[n]}" for n in ("cuda", "driver") if gpu.get(n))]
    return ", ".join(parts)


def _source_name(source: Mapping[str, Any]) -> str:
    name = str(source["name"])
    return name if source.get("part") is None else f"{name}/{source['part']}"


def _effect_of(group: str, name: str, usual: Effect) -> Effect:
    if group == "package" and name in _MODEL_PACKAGES:
        return "everything"
    if group == "package" and name in _TEXT_PACKAGES:
        return "the data"
    return usual

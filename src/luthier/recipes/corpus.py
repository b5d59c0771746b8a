"""A corpus from its settings: sources through the steps, split, written with its data card.

Comes in: a plan. Goes out: a folder of `corpus/folder.py`, found again where the same inputs and
settings were prepared before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.core.cache import cache_folder
from luthier.core.clock import now
from luthier.core.disk import check_folder, disk_errors
from luthier.core.errors import LuthierError, RunError
from luthier.core.files import remove_stale_staging, staged_folder, write_json, write_text
from luthier.core.hashing import hash_json
from luthier.corpus.clean import Cleaned, clean
from luthier.corpus.folder import KIND, MANIFEST, check_file, is_corpus_folder, read_manifest
from luthier.corpus.outcome import Written, write_corpus
from luthier.corpus.parts import part_paths
from luthier.corpus.pipeline import PlannedStep, Report
from luthier.corpus.readers.source import Source
from luthier.corpus.runners import Runner
from luthier.corpus.sides import SKETCHES, SideChoice, audit_sides, choose_sides
from luthier.corpus.sources import resolve_val
from luthier.recipes.corpus_account import (
    corpus_warnings,
    describe_steps,
    duplicate_groups,
    formats_found,
    source_accounts,
)
from luthier.recipes.corpus_card import sampled_drops
from luthier.recipes.corpus_plan import (
    CORPUS_FORMAT,
    CorpusPlan,
    describe,
    planned,
    reading_key,
    train_sources,
)
from luthier.report.data_card import data_card

_OTHER_CACHE = "LUTHIER_CACHE to a folder"

ROW_STEPS = ("repair", "schema", "quality", "language", "pii")
"""Of the steps, those that a validation file goes through too: they look at each row alone."""


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """A corpus that is ready.

    Attributes:
        folder: Where it lies.
        manifest: What stands in its manifest.json.
        from_cache: Whether it was there already.
    """

    folder: Path
    manifest: dict[str, Any]
    from_cache: bool


def corpus_cache() -> Path:
    """Return the folder that keeps the results of steps."""
    return cache_folder("corpus")


def prepare_corpus(
    plan: CorpusPlan, folder: Path | None, runner: Runner, report: Report
) -> PreparedCorpus:
    """Prepare a corpus, or find it prepared.

    Args:
        plan: What is to be done.
        folder: Where it is to lie; None keeps it in the cache, under its key.
        runner: Who works on the batches; the result is the same for any.
        report: Told how far each step is.

    Raises:
        LuthierError: Anything that the user can mend; a folder is left whole or not at all.
    """
    train, val = train_sources(plan), resolve_val(plan.data, any_kind=True)
    steps = planned(plan, train, val)
    work = describe(plan, train, val, steps)
    key = hash_json(work)
    target = folder or corpus_cache() / f"corpus-{key[:16]}"
    refuse_foreign(target)
    found = found_corpus(target, key, plan.rate.tokenizer)
    if found is not None:
        return PreparedCorpus(target, found, from_cache=True)
    elsewhere = "another folder by --out (corpus_dir)"
    check_folder(target.parent, "the corpus", elsewhere)
    check_folder(corpus_cache() / "steps", "what the steps leave", _OTHER_CACHE)
    remove_stale_staging(corpus_cache() / "steps")
    job = _Job(plan, train, val, steps, {"key": key, **work}, runner, report)
    with disk_errors(corpus_cache(), "what the steps leave", _OTHER_CACHE):
        results = job.work()
    with disk_errors(target, "the corpus", elsewhere), staged_folder(target) as staging:
        report("writing", 0, 0)
        manifest = job.write(results, staging)
    return PreparedCorpus(target, manifest, from_cache=False)


def refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder that is something else than a prepared corpus.

    Raises:
        RunError: It is a file, or holds other things.
    """
    if not folder.exists() or is_corpus_folder(folder):
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    raise RunError(
        "this is there already, and is no corpus that luthier prepared",
        where=str(folder),
        mend="Name another folder by --out, or remove it yourself.",
    )


def found_corpus(folder: Path, key: str, tokenizer: str | None = None) -> dict[str, Any] | None:
    """Return the manifest of a folder that holds just what a key stands for, whole; else None.

    Args:
        folder: Where it may be.
        key: What it must stand for.
        tokenizer: Whose tokens its account must count; None takes any account.
    """
    if not is_corpus_folder(folder):
        return None
    manifest = read_manifest(folder)
    if manifest.get("key") != key:
        return None
    if tokenizer is not None and manifest["statistics"]["tokenizer"] != tokenizer:
        return None
    try:
        for name, listed in manifest["files"].items():
            check_file(folder, name, listed)
    except LuthierError:
        return None
    return manifest


@dataclass(frozen=True, slots=True)
class _Results:
    """What the steps came to, before anything is written."""

    cleaned: Cleaned
    val: Cleaned | None
    sides: SideChoice | None
    split: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Job:
    """One preparation."""

    plan: CorpusPlan
    train: Sequence[Source]
    val: Sequence[Source]
    steps: Sequence[PlannedStep]
    facts: dict[str, Any]
    runner: Runner
    report: Report

    def work(self) -> _Results:
        """Read, clean and split."""
        plan = self.plan
        cleaned = self._clean(self.train, "train", self.steps)
        parts = part_paths(cleaned.folder)
        if self.val:
            row_steps = [step for step in self.steps if step.step.name in ROW_STEPS]
            val = self._clean(self.val, "val", row_steps)
            self.report("split: comparing validation with training", 0, 0)
            val_parts = part_paths(val.folder)
            split = audit_sides(
                parts, val_parts, plan.split, plan.rate, self.runner, cleaned.sketches()
            )
            return _Results(cleaned, val, None, split)
        if not plan.data.val_size:
            return _Results(cleaned, None, None, None)
        self.report("split: drawing validation rows", 0, 0)
        sides = choose_sides(
            parts,
            plan.data.val_size,
            plan.seed,
            plan.split,
            plan.rate,
            self.runner,
            cleaned.sketches(),
        )
        return _Results(cleaned, None, sides, sides.account)

    def write(self, results: _Results, folder: Path) -> dict[str, Any]:
        """Write everything into a folder, and return its manifest."""
        flags = results.sides.is_val if results.sides is not None else None
        val = results.val.outcomes if results.val is not None else ()
        written = write_corpus(folder, results.cleaned.outcomes, flags, val, self.plan.rate)
        manifest = self._manifest(results, written)
        write_json(folder / MANIFEST, manifest)
        card = data_card(manifest, sampled_drops(results.cleaned))
        write_text(folder / "data.html", card.html)
        write_text(folder / "data.md", card.markdown)
        return manifest

    def _clean(self, sources: Sequence[Source], side: str, steps: Sequence[PlannedStep]) -> Cleaned:
        prefix = "validation file: " if side == "val" else ""
        return clean(
            sources,
            reading_key(self.facts, side, sources),
            self.plan.data,
            steps,
            corpus_cache() / "steps",
            seed=self.plan.seed,
            runner=self.runner,
            report=lambda name, done, total: self.report(prefix + name, done, total),
            keep_sketches=SKETCHES,
        )

    def _manifest(self, results: _Results, written: Written) -> dict[str, Any]:
        steps = describe_steps(results.cleaned, self.steps)
        sources = [*self.train, *sorted(self.val, key=lambda source: source.key)]
        inputs = [*self.facts["inputs"]["train"], *self.facts["inputs"]["val"]]
        rate = self.plan.rate
        formats = formats_found(results.cleaned.outcomes[0])
        if results.val is not None:
            formats |= formats_found(results.val.outcomes[0])
        return {
            "kind": KIND,
            # Equal versions: equal rows, from equal inputs, by equal settings and libraries.
            "data_version": hash_json([CORPUS_FORMAT, self.facts["key"], written.rows_sha256]),
            "rows_sha256": written.rows_sha256,
            "luthier": __version__,
            "created": now(),
            **self.facts,
            "sources": source_accounts(sources, inputs, written, formats),
            "steps": steps,
            "statistics": {
                "tokens_are": "estimated",
                "tokenizer": rate.tokenizer,
                "before": written.before.as_json(),
                "after": written.after.as_json(),
                "duplicate_groups": duplicate_groups(results.cleaned),
            },
            "split": results.split,
            "warnings": [n.as_json() for n in corpus_warnings(steps, results.split)],
            "files": written.files,
        }

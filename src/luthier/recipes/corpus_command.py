"""What `luthier prepare` was told, as a plan: settings, defaults, workers, a look at a sample."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.core.errors import SettingsError
from luthier.core.units import MIB
from luthier.corpus.clean import Cleaned
from luthier.corpus.lengths import TokenRate
from luthier.corpus.pipeline import Part, Report, run_steps
from luthier.corpus.read import read_batches
from luthier.corpus.readers.source import Source
from luthier.corpus.runners import InProcess, Runner, default_runner
from luthier.corpus.sources import input_files, resolve_val
from luthier.corpus.steps.registry import STANDARD
from luthier.corpus.text.fields import num_rows, texts_of
from luthier.recipes.config_file import Entry, read_config_file
from luthier.recipes.config_flags import CommandLine, one_config
from luthier.recipes.config_layout import leaves, sections
from luthier.recipes.config_resolve import resolve
from luthier.recipes.corpus_account import describe_steps
from luthier.recipes.corpus_card import sampled_drops
from luthier.recipes.corpus_plan import CorpusPlan, planned, train_sources

_CONFIGS = (".yaml", ".yml", ".toml")
MAX_SETTINGS_BYTES = MIB
"""A longer .json file is data: it is not read to find out."""

_LITTLE_BYTES = 16 * MIB
_RATE_ROWS = 300
"""Rows of each source whose tokens are counted to learn the tokenizer's rate."""


@dataclass(frozen=True, slots=True)
class PrepareCommand:
    """What is to be prepared, and how.

    Attributes:
        plan: The settings of the data.
        model: The model whose tokens are counted; empty where none is named.
        num_workers: Processes; None for one a core.
    """

    plan: CorpusPlan
    model: str
    num_workers: int | None


@dataclass(frozen=True, slots=True)
class SampleLook:
    """What the steps would do to a sample.

    Attributes:
        steps: The account of each step.
        samples: Dropped rows by reason.
    """

    steps: list[dict[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]


def resolve_prepare(command: CommandLine) -> PrepareCommand:
    """Resolve the settings of a preparation; a model is welcome, and not needed.

    Raises:
        SettingsError: Anything about the settings is wrong, or files are named in two ways.
    """
    config, files = command.config, list[str]()
    for word in command.words:
        if is_settings_file(Path(word)):
            config = one_config(config, word)
        else:
            files.append(word)
    entries = [] if config is None else read_config_file(config, frozenset(sections()))
    flags = [*command.entries]
    if files:
        _refuse_two_lists(flags, files)
        flags.append(Entry("train_file", files, "command line"))
        replaced = {"train_file", "dataset", "sources"}
        entries = [entry for entry in entries if entry.name not in replaced]
    given = {entry.name: entry.value for entry in (*entries, *flags)}
    if "model_name_or_path" not in given:
        flags.append(Entry("model_name_or_path", "", "not set"))
    if "steps" not in given:
        flags.append(Entry("steps", _default_steps(given), "default of prepare"))
    resolved = resolve(entries, flags).config
    if resolved.data.max_samples is not None:
        raise SettingsError(
            "max_samples is set: it is for training, and a prepared corpus keeps all its rows",
            where="max_samples",
            mend="Take it out, or draw rows by the step sample: --sample_size N.",
        )
    return PrepareCommand(
        CorpusPlan.of(resolved),
        resolved.model.model_name_or_path,
        resolved.tokens.preprocessing_num_workers,
    )


def _refuse_two_lists(flags: Sequence[Entry], files: Sequence[str]) -> None:
    if any(flag.name == "train_file" for flag in flags):
        raise SettingsError(
            f"--train_file is given, and beside it {', '.join(files)}",
            where="command line",
            mend="Name the files once: luthier prepare ONE OTHER ..., without --train_file.",
        )


def is_settings_file(path: Path) -> bool:
    """Tell a settings file from data: by its suffix, and a .json file by what it holds."""
    if path.suffix.lower() in _CONFIGS:
        return True
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    if path.stat().st_size > MAX_SETTINGS_BYTES:
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the reader of data will say what is wrong
        return False
    if not isinstance(found, dict):
        return False
    # Data may be under a key that is the name of a section, such as `data`: as a list.
    return any(
        name in leaves() or (name in sections() and isinstance(value, dict))
        for name, value in found.items()
    )


def _default_steps(given: Mapping[str, Any]) -> list[str]:
    """Return the standard steps, and those that a setting asks for."""
    steps = list(STANDARD)
    if given.get("val_file") or given.get("decontaminate_files"):
        steps.append("decontaminate")
    # As they were written: what is no list of sources is refused later, with its place.
    sources = given.get("sources")
    has_weights = isinstance(sources, list) and any(
        isinstance(source, Mapping) and source.get("weight") for source in sources
    )
    if has_weights or any(name.startswith("sample_") for name in given):
        steps.append("sample")
    return steps


def choose_runner(
    plan: CorpusPlan, num_workers: int | None, ray: str | bool | None = None
) -> Runner:
    """Return who does the work: Ray where it is asked for, else processes of this machine.

    Args:
        plan: What is to be prepared: little data is done sooner than processes start.
        num_workers: Processes; None for one a core.
        ray: Whether on Ray; a text is the cluster's address.

    Raises:
        MissingExtraError: Ray is not installed.
        LuthierError: There is no such cluster.
    """
    if not ray:
        sizes = [path.stat().st_size for path in input_files(train_sources(plan))]
        is_little = num_workers is None and sum(sizes) < _LITTLE_BYTES
        return InProcess() if is_little else default_runner(num_workers)
    from luthier.corpus.ray_runner import RayData, started

    address = ray if isinstance(ray, str) else None
    started(address)
    return RayData(address)


def with_token_rate(plan: CorpusPlan, model: str, report: Report) -> CorpusPlan:
    """Learn from a sample how many tokens the model's tokenizer makes of text.

    Args:
        plan: What is to be prepared.
        model: The model; empty leaves the plan as it is.
        report: Told that it is being done.

    Raises:
        ModelError: The tokenizer can't be loaded.
        DataError: A source can't be read.
    """
    if not model:
        return plan
    from luthier.dataset.tokenizer import load_tokenizer

    report("counting tokens of a sample", 0, 0)
    tokenizer = load_tokenizer(model)
    texts: list[str] = []
    for source in train_sources(plan):
        for columns in _first_rows(source, plan, _RATE_ROWS):
            texts += ["\n".join(texts_of(columns, row)) for row in range(num_rows(columns))]
    if not texts:
        return plan  # No row can be used; the preparation says why.
    counts = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return replace(plan, rate=TokenRate.of(texts, counts, Path(model).name))


def look_at_sample(plan: CorpusPlan, num_rows: int, report: Report) -> SampleLook:
    """Run the steps over the first rows of each source, and leave nothing behind.

    Args:
        plan: What would be prepared.
        num_rows: Of each source.
        report: Told how far each step is.

    Raises:
        LuthierError: As the preparation itself would.
    """
    sources = train_sources(plan)
    steps = planned(plan, sources, resolve_val(plan.data, any_kind=True))

    def batches() -> Iterator[Part]:
        for source in sources:
            yield from _first_parts(source, plan, num_rows)

    with tempfile.TemporaryDirectory(prefix="luthier-dry-run-") as scratch:
        outcomes = run_steps(
            batches, "sample", steps, Path(scratch), runner=InProcess(), report=report
        )
        cleaned = Cleaned(tuple(outcomes))
        return SampleLook(describe_steps(cleaned, steps), sampled_drops(cleaned))


def _first_rows(source: Source, plan: CorpusPlan, num_rows: int) -> Iterator[dict[str, Any]]:
    for result, _ in _first_parts(source, plan, num_rows):
        yield result.columns


def _first_parts(source: Source, plan: CorpusPlan, num_rows: int) -> Iterator[Part]:
    """Yield just so many rows of a source, or all that it has, as one part."""
    return islice(read_batches([source], plan.data, seed=plan.seed, batch_rows=num_rows), 1)

"""What the manifest of a corpus says of its making: steps, sources, groups, warnings.

In: the outcomes of steps. Out: plain values for manifest.json, which the data card is drawn from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.contracts.notice import Notice
from luthier.core.hashing import hash_text
from luthier.core.units import format_share
from luthier.corpus.clean import Cleaned
from luthier.corpus.outcome import Written
from luthier.corpus.pipeline import READ, PlannedStep, StepOutcome, dropped_paths
from luthier.corpus.readers.source import Source

MANY = 0.2
"""A step that drops more than this share of the rows is worth a warning."""

DUPLICATE_STEPS = ("exact", "near", "semantic")
_LARGEST = 10
_ON_PURPOSE = "not_sampled"
"""Why rows leave that a setting asked to leave: by the step `sample`, or on reading."""


def describe_steps(cleaned: Cleaned, steps: Sequence[PlannedStep]) -> list[dict[str, Any]]:
    """Return the account of reading and of each step, with its settings."""
    settings = [{}, *(dict(step.settings) for step in steps)]
    found: list[dict[str, Any]] = []
    for outcome, chosen in zip(cleaned.outcomes, settings, strict=True):
        account = outcome.account
        found.append(
            {
                "name": account.name,
                "rows_in": account.rows_in,
                "rows_out": account.rows_out,
                "dropped": account.dropped,
                "counts": _over_sources(account.counts) if account.name == READ else account.counts,
                "settings": chosen,
                "seconds": account.seconds,
                "from_cache": outcome.from_cache,
            }
        )
    return found


def _over_sources(counts: Mapping[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, count in counts.items():
        total[name.partition("@")[0]] += count
    return dict(total.most_common())


def formats_found(reading: StepOutcome) -> dict[str, dict[str, int]]:
    """Return for each source how many of its rows are of which format, as reading counted them."""
    found: dict[str, dict[str, int]] = {}
    for name, count in reading.account.counts.items():
        kind, _, rest = name.partition("_")
        format_, _, source = rest.partition("@")
        if kind == "format":
            found.setdefault(source, {})[format_] = count
    return found


def source_accounts(
    sources: Sequence[Source],
    inputs: Sequence[Mapping[str, Any]],
    written: Written,
    formats: Mapping[str, Mapping[str, int]],
) -> list[dict[str, Any]]:
    """Return what each source gave, and how many of its rows are left; files of one name are one.

    Args:
        sources: In the order of `inputs`.
        inputs: What is known of their content: hash and size, or the hub's fingerprint.
        written: The counts.
        formats: What `formats_found` returned, for all that was read.
    """
    found: dict[str, dict[str, Any]] = {}
    for source, facts in zip(sources, inputs, strict=True):
        account = found.setdefault(
            source.name,
            {
                "name": source.name,
                "path": str(source.path or source.hub),
                "bytes": 0,
                "sha256": None,
                "formats": dict(formats.get(source.name, {})),
                "rows": written.before.sources[source.name],
                "rows_left": written.after.sources[source.name],
                "weight": source.weight,
            },
        )
        account["bytes"] += facts.get("bytes") or 0
        content = facts.get("sha256") or facts.get("fingerprint")
        known = account["sha256"]
        account["sha256"] = content if known is None else hash_text(f"{known} {content}")
        if known is not None and source.path is not None:
            account["path"] = str(_shared_folder(Path(account["path"]), source.path))
    return list(found.values())


def duplicate_groups(cleaned: Cleaned) -> dict[str, Any]:
    """Return for each step that looks for duplicates its groups: how many, how large."""
    found: dict[str, Any] = {}
    for outcome in cleaned.outcomes:
        if outcome.account.name not in DUPLICATE_STEPS:
            continue
        sizes = _group_sizes(outcome)
        largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
        found[outcome.account.name] = {
            "groups": len(sizes),
            "rows": sizes.total(),
            # The row that is kept is one of its group.
            "largest": [[name, count + 1] for name, count in largest],
        }
    return found


def corpus_warnings(
    steps: Sequence[Mapping[str, Any]], split: Mapping[str, Any] | None
) -> list[Notice]:
    """Return what a person should look at before training on this corpus."""
    found: list[Notice] = []
    for step in steps:
        reasons = step["dropped"].items()
        num_dropped = sum(count for reason, count in reasons if reason != _ON_PURPOSE)
        if num_dropped > MANY * step["rows_in"]:
            share = format_share(num_dropped, step["rows_in"])
            reason = f"dropped {num_dropped:,} of {step['rows_in']:,} rows ({share}): look at some"
            found.append(Notice(step["name"], "", "", reason))
    if split is not None and split["audit"]["share"] > 0:
        share = format_share(split["audit"]["num_relatives"], split["val"]["rows"])
        reason = f"{share} of the validation rows have a near-twin in training: they measure memory"
        found.append(Notice("val_file", "", "", reason))
    if split is not None and split["val"]["rows"] == 0:
        found.append(Notice("val_file", "", "", "no validation row is left"))
    return found


def _shared_folder(known: Path, path: Path) -> Path:
    """Return the nearest folder of a file that another file or folder lies in or is."""
    return next((one for one in path.parents if known.is_relative_to(one)), path.parent)


def _group_sizes(outcome: StepOutcome) -> Counter[str]:
    import pyarrow.parquet as pq

    sizes: Counter[str] = Counter()
    for path in dropped_paths(outcome.folder):
        with pq.ParquetFile(path) as file:
            matched = file.read(columns=["matched_id"]).column(0).to_pylist()
        sizes.update(name for name in matched if name is not None)
    return sizes

"""Sampling: a mixture of sources in given shares, and bounds on how many rows there are.

In: rows. Out: the rows that are not drawn, each with the bound that left it out. Rows are drawn by
a hash of their content, so neither their order nor that of the files matters. The bounds of a
source and of a category come first: rows are gone through in the order of their hashes, and taken
where both have room. Of what is left the largest mixture is made that the sources allow: no row is
repeated, so the source that is scarcest for its weight sets the size. In each source the rows of
the least hashes are drawn; when rows are added, a row that was drawn leaves only where the new ones
take its place under a bound.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.errors import SettingsError, did_you_mean
from luthier.core.hashing import keyed_fraction
from luthier.corpus.steps.exact import ExactDuplicates
from luthier.corpus.steps.settings import SampleSettings


@dataclass(frozen=True, slots=True)
class Sample:
    """The step. The same rows are drawn in whatever order they come."""

    settings: SampleSettings = field(default_factory=SampleSettings)
    name: str = "sample"

    def sketch(self, columns: Columns) -> Columns:
        """Return id, source, category and place in the draw of each row.

        Args:
            columns: Rows; a source or category that is missing counts as empty.
        """
        known = ExactDuplicates().sketch(columns)
        keys: list[str] = known["exact_key"]
        return {
            "id": known["id"],
            "source": known["source"],
            "category": list(columns.get("category", [None] * len(keys))),
            "sample_key": keys,
            "sample_place": [keyed_fraction(key, self.settings.sample_seed) for key in keys],
        }

    def decide(self, sketches: Columns) -> list[Drop]:
        """Return the rows that are not drawn, ordered by id.

        Args:
            sketches: What `sketch` returned for all rows, in any order.

        Raises:
            SettingsError: `sample_weights` names a source that no row has or that has none left
                under the other bounds, or it leaves no source.
        """
        weights = self._weights(sketches["source"])
        order = sorted(
            range(len(sketches["id"])),
            key=lambda row: (
                sketches["sample_place"][row],
                sketches["sample_key"][row],
                sketches["id"][row],
            ),
        )
        left, reasons = self._bounded(sketches, order)
        reasons |= self._mixed(sketches["source"], left, weights)
        drops = [
            Drop(sketches["id"][row], "not_sampled", detail) for row, detail in reasons.items()
        ]
        return sorted(drops, key=lambda drop: drop.id)

    def _weights(self, sources: Sequence[str]) -> dict[str, Fraction]:
        """Return the weight of each source that has rows; nothing where no weight is given."""
        given, known = self.settings.sample_weights, sorted(set(sources))
        for name in given:
            if name not in known:
                raise SettingsError(
                    f"sample_weights: no row is of a source {name}", mend=did_you_mean(name, known)
                )
        if not given:
            return {}
        # By what was written: 0.1 is a tenth, and not the nearest number that a float can hold.
        weights = {name: Fraction(str(given.get(name, 1))) for name in known}
        if not any(weights.values()):
            raise SettingsError(
                "sample_weights: every source weighs 0, so no row would be left",
                mend="Give a weight above 0 to a source.",
            )
        return weights

    def _bounded(self, sketches: Columns, order: Sequence[int]) -> tuple[list[int], dict[int, str]]:
        """Return the rows that the bounds of source and category leave, and why others go."""
        most = {
            "source": self.settings.sample_max_per_source,
            "category": self.settings.sample_max_per_category,
        }
        taken = {column: Counter[str]() for column in most}
        left: list[int] = []
        reasons: dict[int, str] = {}
        for row in order:
            names = {
                column: sketches[column][row]
                for column, bound in most.items()
                if bound is not None and sketches[column][row] is not None
            }
            full = [column for column, name in names.items() if taken[column][name] == most[column]]
            if full:
                column = full[0]
                reasons[row] = (
                    f"sample_max_per_{column} is {most[column]}, for the {column} {names[column]}"
                )
                continue
            left.append(row)
            for column, name in names.items():
                taken[column][name] += 1
        return left, reasons

    def _mixed(
        self, sources: Sequence[str], rows: Sequence[int], weights: Mapping[str, Fraction]
    ) -> dict[int, str]:
        """Return the rows that the mixture or its size leaves out, and why."""
        of_source: defaultdict[str, list[int]] = defaultdict(list)
        for row in rows:
            of_source[sources[row]].append(row)
        have = {name: len(of_source[name]) for name in sorted({*of_source, *weights})}
        shares = _whole(weights or {name: Fraction(count) for name, count in have.items()})
        for name, share in shares.items():
            if share and not have[name]:
                raise SettingsError(
                    f"sample_weights: sample_max_per_category leaves no row of the source {name}",
                    mend=f"Raise sample_max_per_category, or give {name} the weight 0.",
                )
        total = _largest_mixture(have, shares)
        size = min(total, self.settings.sample_size or total)
        largest, wanted = _quotas(shares, total), _quotas(shares, size)
        reasons: dict[int, str] = {}
        for name, members in of_source.items():
            for at, row in enumerate(members[wanted[name] :], wanted[name]):
                is_size = at < largest[name]
                reasons[row] = (
                    f"sample_size is {size}"
                    if is_size
                    else f"sample_weights: the mixture has {largest[name]} of {len(members)} rows "
                    f"of the source {name}"
                )
        return reasons


def _whole(weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Return the weights as whole numbers in the same proportion."""
    scale = lcm(*(weight.denominator for weight in weights.values()))
    return {name: int(weight * scale) for name, weight in weights.items()}


def _largest_mixture(have: Mapping[str, int], shares: Mapping[str, int]) -> int:
    """Return how many rows the largest mixture has that needs no row twice."""
    in_all = sum(shares.values())
    return min((have[name] * in_all // share for name, share in shares.items() if share), default=0)


def _quotas(shares: Mapping[str, int], size: int) -> dict[str, int]:
    """Divide a number of rows among sources, what is left over by largest remainder, then name."""
    # In whole numbers, for a remainder that depends on rounding would depend on the machine.
    in_all = sum(shares.values()) or 1
    quotas = {name: size * share // in_all for name, share in shares.items()}
    left = size - sum(quotas.values())
    by_remainder = sorted(shares, key=lambda name: (-(size * shares[name] % in_all), name))
    for name in by_remainder[:left]:
        quotas[name] += 1
    return quotas

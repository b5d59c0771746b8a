"""Two runs held against each other: their weights bit for bit, their losses step by step.

Comes in: two run folders. Goes out: whether they are the same run, and where they part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.engine.metrics_file import read_metrics
from luthier.recipes.outcome import read_tensor, tensor_bytes, tensor_files, weights_sha256
from luthier.recipes.run_folder import METRICS

COMPARED = (
    *("loss", "learning_rate", "grad_norm"),
    *("eval_loss", "eval_perplexity", "eval_token_accuracy", "eval_bits_per_byte"),
    *("reward", "reward_std", "completions/mean_length", "eval_reward"),
    *("eval_rewards/accuracies", "eval_rewards/margins", "eval_kl"),
)
"""The metrics that a run decides; the others are times, rates and sizes."""


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor that is another.

    Attributes:
        name: Its name.
        largest: Largest absolute difference of two values; None where there is nothing to subtract.
        mean: Mean absolute difference.
        problem: Why there is nothing to subtract; empty otherwise.
    """

    name: str
    largest: float | None = None
    mean: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LossDifference:
    """The first metric that is another.

    Attributes:
        kind: `train` or `eval`.
        step: Of which step.
        name: Which metric.
        then: Its value in the earlier run; None where it was not finite.
        now: Its value in the later one.
    """

    kind: str
    step: int
    name: str
    then: float | None
    now: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of comparing.

    Attributes:
        then: Hash of the earlier run's weights, as its manifest says or its files are; None where
            neither is there.
        now: That of the later run.
        changed_since: Whether the earlier run's files are no longer what its manifest says.
        num_tensors: Tensors of the later run.
        tensors: Those that differ, the worst first; empty where the earlier files are gone.
        num_records: Records of metrics.jsonl that stand in both.
        num_alone: Records that stand in one of them alone.
        first_loss: The first metric that differs.
    """

    then: str | None
    now: str | None
    changed_since: bool
    num_tensors: int
    tensors: tuple[TensorDifference, ...]
    num_records: int
    num_alone: int
    first_loss: LossDifference | None

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the same, bit for bit."""
        return self.now is not None and self.then == self.now

    @property
    def identical(self) -> bool:
        """Whether weights and losses are the same."""
        return self.same_weights and self.first_loss is None


def compare_runs(earlier: Path, later: Path, recorded: str | None) -> Comparison:
    """Compare two finished runs.

    Args:
        earlier: The folder of the run.
        later: The folder of its reproduction.
        recorded: The hash of the earlier weights in its manifest; None where it has none.

    Raises:
        RunError: A line of a metrics file is no record.
    """
    found, now = weights_sha256(earlier), weights_sha256(later)
    then = recorded or found
    differ = found is not None and found != now
    left, right = (_by_step(read_metrics(folder / METRICS)) for folder in (earlier, later))
    both = left.keys() & right.keys()
    return Comparison(
        then=then,
        now=now,
        changed_since=None not in (recorded, found) and recorded != found,
        num_tensors=len(tensor_files(later)),
        tensors=tuple(_sorted(_tensor_differences(earlier, later))) if differ else (),
        num_records=len(both),
        num_alone=len(left.keys() ^ right.keys()),
        first_loss=first_difference(left, right),
    )


def first_difference(
    left: Mapping[tuple[int, str], Mapping[str, Any]],
    right: Mapping[tuple[int, str], Mapping[str, Any]],
) -> LossDifference | None:
    """Return the first metric that two runs disagree on, over the records that both have.

    Args:
        left: The earlier run's records by step and kind.
        right: The later one's.
    """
    # A step comes before the evaluation that follows it.
    for step, kind in sorted(left.keys() & right.keys(), key=lambda at: (at[0], at[1] == "eval")):
        then, now = left[step, kind], right[step, kind]
        for name in COMPARED:
            if then.get(name) != now.get(name):
                return LossDifference(kind, step, name, then.get(name), now.get(name))
    return None


def _by_step(records: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], Mapping[str, Any]]:
    # A run that was stopped and gone on with has saved once more.
    found = {(record["step"], record["kind"]): record for record in records}
    return {at: record for at, record in found.items() if at[1] != "save"}


def _tensor_differences(earlier: Path, later: Path) -> Iterator[TensorDifference]:
    left, right = tensor_files(earlier), tensor_files(later)
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            place = later if name in right else earlier
            yield TensorDifference(name, problem=f"only in {place}")
            continue
        then, now = read_tensor(left[name], name), read_tensor(right[name], name)
        if (then.dtype, then.shape) != (now.dtype, now.shape):
            described = [f"{t.dtype} {list(t.shape)}" for t in (then, now)]
            yield TensorDifference(name, problem=" -> ".join(described))
        elif tensor_bytes(then) != tensor_bytes(now):
            apart = (then.double() - now.double()).abs()
            yield TensorDifference(name, apart.max().item(), apart.mean().item())


def _sorted(found: Iterator[TensorDifference]) -> list[TensorDifference]:
    # Where nothing can be subtracted comes first, then the largest; NaN is larger than all.
    def size(one: TensorDifference) -> float:
        if one.largest is None or one.largest != one.largest:
            return float("inf")
        return one.largest

    return sorted(found, key=lambda one: -size(one))

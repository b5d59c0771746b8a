"""What is asked of an evaluation, what is measured for it, and what one model came to.

The records that pass between the wiring (`evaluate.py`) and the scores (`evaluation_scores.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from luthier.evaluation.generation import Answer
from luthier.evaluation.intervals import Estimate
from luthier.evaluation.metrics.own import OwnMetric
from luthier.evaluation.row_losses import RowLoss
from luthier.evaluation.settings import GenerationSettings


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What somebody wants to know of a model; the flags of `luthier eval`.

    Attributes:
        model: A run folder, a checkpoint, a model or adapter folder, or a hub name.
        data: A file of rows; None: the run's own validation rows.
        metrics: Names of metrics; None: perplexity, and with `generate` what suits the data.
        own_metrics: Further metrics, as FILE.py:FUNCTION.
        generate: Whether the model answers the rows even if no metric is named.
        predict: Whether its answers are written to a file.
        base: The model to hold it against; `OWN_BASE`: the one that it was made from.
        tasks: Benchmark tasks of lm-eval.
        num_rows: Only the first so many rows, or of each task so many.
        batch_size: Rows computed at once.
        max_new_tokens: Longest answer.
        out: Folder for the results; None: `evaluations` in the run's folder.
        name: What the files are called; None: after the data.
    """

    model: str
    data: str | None = None
    metrics: Sequence[str] | None = None
    own_metrics: Sequence[str] = ()
    generate: bool = False
    predict: bool = False
    base: str | None = None
    tasks: Sequence[str] = ()
    num_rows: int | None = None
    batch_size: int = 8
    max_new_tokens: int = 512
    out: str | None = None
    name: str | None = None

    @property
    def only_tasks(self) -> bool:
        """Whether benchmark tasks are all that is asked for."""
        others = (self.data, self.metrics, self.own_metrics, self.generate, self.predict)
        return bool(self.tasks) and not any(others)

    def of(self, role: str) -> str:
        """Return how a line that tells of one model ends: with its role, where there are two."""
        return "" if self.base is None else f" ({role})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        perplexity: Whether the loss of the rows is taken.
        metrics: Metrics of answers, by name.
        own: The user's.
        predict: Whether the answers themselves are wanted.
        settings: How answers are generated.
    """

    perplexity: bool
    metrics: Sequence[str]
    own: Sequence[OwnMetric]
    predict: bool
    settings: GenerationSettings

    @property
    def needs_answers(self) -> bool:
        """Whether the model has to answer."""
        return bool(self.metrics or self.own or self.predict)


@dataclass(slots=True)
class Measured:
    """What one model came to.

    Attributes:
        name: Of the model.
        losses: By the number of the row.
        answers: By the number of the row.
        left_out: Why rows are missing from the losses, and from the answers.
        tasks: What benchmark tasks gave, by task and metric.
    """

    name: str
    losses: dict[int, RowLoss] = field(default_factory=dict[int, RowLoss])
    answers: dict[int, Answer] = field(default_factory=dict[int, Answer])
    left_out: list[dict[int, str]] = field(default_factory=list[dict[int, str]])
    tasks: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])

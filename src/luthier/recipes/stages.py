"""What the stage of a run decides: the one table that a new stage joins.

A stage says how rows are made, what is learned from them, and what is measured. All else (loop,
checkpoints, batches, tuning) is the same for every stage, and never asks which one it is. A stage
that needs another part replaced, such as how the model is loaded and saved, gives `Stage` a field
for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luthier.contracts.notice import Notice
from luthier.contracts.training import Evaluator, Objective
from luthier.dataset.documents import DOCUMENTS
from luthier.dataset.side import CONVERSATIONS, RowKind
from luthier.dataset.templates import resolve_template
from luthier.evaluation.bits_per_byte import BitsPerByte
from luthier.objectives.head import Head
from luthier.objectives.sft import SupervisedFineTuning
from luthier.recipes.run_config import RunConfig

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

Inputs = Callable[["Batch"], dict[str, Any]]
"""Makes a model's keyword arguments of a batch."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training.

    Attributes:
        settle_tokenizer: Sets the tokenizer up (tokenizer, the setting `template`) as rows of this
            stage are to be tokenised, and as it is saved; with notices of what was replaced.
        rows: How rows come about.
        objective: Builds the loss (label smoothing, the model's head or None, its inputs, whether
            each token's loss is multiplied by its probability).
        evaluator: Adds to what is measured on the validation rows (evaluator, rows).
        auto_packing: What `packing: auto` is with a model whose rows can be packed.
    """

    settle_tokenizer: Callable[[Any, str], tuple[Any, Sequence[Notice]]]
    rows: RowKind
    objective: Callable[[float, Head | None, Inputs, bool], Objective]
    evaluator: Callable[[Evaluator, Any], Evaluator]
    auto_packing: Literal["padding_free", True]


def stage_of(config: RunConfig) -> Stage:
    """Return the stage of a run."""
    return STAGES[config.run.stage]


STAGES: Mapping[str, Stage] = {
    "sft": Stage(
        settle_tokenizer=resolve_template,
        rows=CONVERSATIONS,
        objective=SupervisedFineTuning,
        evaluator=lambda evaluator, _rows: evaluator,
        auto_packing="padding_free",
    ),
    "pt": Stage(
        # A base model has no chat template, and needs none.
        settle_tokenizer=lambda tokenizer, _template: (tokenizer, ()),
        rows=DOCUMENTS,
        objective=SupervisedFineTuning,
        evaluator=BitsPerByte.of,
        auto_packing=True,
    ),
}
"""Each stage by the name that the setting `stage` has for it."""

"""What the stage of a run decides: the one table that a new stage joins.

A stage says how rows are made and laid out, what is learned from them, and what is measured. All
else (loop, checkpoints, tuning) is the same for every stage, and never asks which one it is. A
stage that needs another part replaced, such as how the model is loaded and saved, gives `Stage` a
field for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from luthier.batches.collate import Collate
from luthier.batches.cutting import split_batch
from luthier.batches.flat import build_collator
from luthier.batches.pairs import build_pair_collator, pair_capacity
from luthier.batches.settings import BatchSettings
from luthier.contracts.notice import Notice
from luthier.contracts.training import EpochBatches, Evaluator, Objective
from luthier.dataset.documents import DOCUMENTS
from luthier.dataset.judged import PAIRS, VERDICTS
from luthier.dataset.padding import resolve_for_rewards
from luthier.dataset.prompts import PROMPTS
from luthier.dataset.side import CONVERSATIONS, RowKind
from luthier.dataset.templates import resolve_template
from luthier.engine.memory import Split, undivided
from luthier.evaluation.bits_per_byte import BitsPerByte
from luthier.models.packing_support import PackingSupport, check_packed, packing_support
from luthier.models.reward_model import ModelKind
from luthier.models.segments import packed_inputs
from luthier.models.shared_prefixes import (
    check_shared_prefixes,
    hidden_states,
    shared_prefix_support,
)
from luthier.objectives.find_head import find_head
from luthier.objectives.grpo import AnswerPolicy, GroupRelativePolicyOptimization
from luthier.objectives.head import Head
from luthier.objectives.kto import KahnemanTverskyOptimization
from luthier.objectives.pair_rewards import RewardScorer, reward_head
from luthier.objectives.pair_scores import AnswerScorer, PairScorer, count_pairs
from luthier.objectives.preference import PreferenceOptimization
from luthier.objectives.reward import RewardModelling
from luthier.objectives.sft import SupervisedFineTuning, model_inputs
from luthier.recipes.rollouts import (
    check_rollouts,
    reward_evaluation,
    rollout_stream,
    with_answers,
)
from luthier.recipes.run_config import RunConfig

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.recipes.job import Job


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows lie in batches.

    Attributes:
        collator: Builds what makes batches of rows (settings, pad id).
        capacity: Tokens that a packed row may hold, of `cutoff_len`.
        support: Says from a model's config whether its rows can be packed.
        check: Tries it on a loaded model; returns why they can't.
        takes_flash_attention: Whether packed rows may be computed by FlashAttention 2.
        split: Cuts a batch where memory is short.
    """

    collator: Callable[[BatchSettings, int], Collate]
    capacity: Callable[[int], int]
    support: Callable[[Any], PackingSupport]
    check: Callable[[Any], str | None]
    takes_flash_attention: bool = True
    split: Split = split_batch


ROWS = Layout(build_collator, lambda cutoff_len: cutoff_len, packing_support, check_packed)
"""Each row by itself."""

SHARED_PROMPTS = Layout(
    build_pair_collator,
    pair_capacity,
    shared_prefix_support,
    check_shared_prefixes,
    takes_flash_attention=False,
)
"""Two answers a row, which share their prompt where the model allows it."""

UNCUT_ANSWERS = replace(SHARED_PROMPTS, split=undivided)
"""The same; but what a batch is compared with is estimated from all of it, so it is never cut."""

REWARDED_ANSWERS = replace(
    SHARED_PROMPTS, check=partial(check_shared_prefixes, outputs=hidden_states)
)
"""The same for a model that gives each answer a number."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training.

    Attributes:
        settle_tokenizer: Sets the tokenizer up (tokenizer, the setting `template`) as rows of this
            stage are to be tokenised, and as it is saved; with notices of what was replaced.
        rows: How rows come about.
        objective: Builds the loss (settings, the model's head or None, whether for training).
        layout: How rows lie in batches.
        evaluator: Adds to what is measured on the validation rows (evaluator, rows).
        auto_packing: What `packing: auto` is with a model whose rows can be packed.
        needs_reference: Whether the model before training is what the trained one is compared with.
        sections: Names of the sections of settings that this stage reads beside the common ones.
        model_kind: What the model is loaded and saved for.
        find_head: Finds the head of the loaded and tuned model, or says why there is none.
        check: Looks at what the settings name, before anything is loaded.
        batches: Makes the batches that are trained on (job, batches of prepared rows).
        as_computed: Turns settings and the lengths of prepared rows into those of what is trained
            on, where it is not these rows: time and memory are estimated from them.
        not_estimated: What of a step the estimate of the time leaves out, in words.
        measure: Builds the evaluator (job, validation rows, whether to give up), where the loss on
            the rows is not what a model is measured by.
        ignores: Columns of prepared rows that other stages of the same rows read, and this does
            not: where there are any, the user is told.
    """

    settle_tokenizer: Callable[[Any, str], tuple[Any, Sequence[Notice]]]
    rows: RowKind
    objective: Callable[[RunConfig, Head | None, bool], Objective]
    layout: Layout = ROWS
    evaluator: Callable[[Evaluator, Any], Evaluator] = lambda evaluator, _rows: evaluator
    auto_packing: Literal["padding_free", True] = "padding_free"
    needs_reference: Callable[[RunConfig], bool] = lambda _config: False
    sections: tuple[str, ...] = ()
    model_kind: ModelKind = "causal_lm"
    find_head: Callable[[Any], tuple[Head | None, Notice | None]] = find_head
    check: Callable[[RunConfig], None] = lambda _config: None
    batches: Callable[[Job, EpochBatches], EpochBatches] = lambda _job, rows: rows
    as_computed: Callable[[RunConfig, Sequence[int]], tuple[RunConfig, Sequence[int]]] = (
        lambda config, lengths: (config, lengths)
    )
    not_estimated: str | None = None
    measure: Callable[[Job, Any, Callable[[], bool]], Evaluator] | None = None
    ignores: tuple[str, ...] = ()

    def ignored_columns(self, rows: Any) -> tuple[Notice, ...]:
        """Return a notice for each column of some rows (a Dataset) that says nothing here."""
        reason = "this stage does not read it; reward models (stage: rm) do"
        return tuple(
            Notice(name, "", "", reason) for name in self.ignores if name in rows.column_names
        )


def stage_of(config: RunConfig) -> Stage:
    """Return the stage of a run."""
    return STAGES[config.run.stage]


def batch_inputs(batch: Batch) -> dict[str, Any]:
    """Return the model's keyword arguments for a batch of rows, packed or padded."""
    return packed_inputs(batch) if "cu_seqlens" in batch else model_inputs(batch)


def _supervised(config: RunConfig, head: Head | None, in_training: bool) -> Objective:
    asked = config.objective
    if not in_training:
        # A perplexity is of the answers as they stand.
        return SupervisedFineTuning(head=head, inputs=batch_inputs)
    return SupervisedFineTuning(
        asked.label_smoothing_factor, head, batch_inputs, dft=asked.use_dft_loss
    )


def _preference(config: RunConfig, head: Head | None, _in_training: bool) -> Objective:
    settings = config.preference
    return PreferenceOptimization(settings, PairScorer(head, settings.needs_reference), count_pairs)


def _kto(config: RunConfig, head: Head | None, _in_training: bool) -> Objective:
    return KahnemanTverskyOptimization(config.preference, AnswerScorer(head), count_pairs)


def _reward(config: RunConfig, head: Head | None, _in_training: bool) -> Objective:
    assert head is not None, "a reward model that was loaded has a head"
    return RewardModelling(config.reward, RewardScorer(head), count_pairs)


def _grpo(config: RunConfig, head: Head | None, _in_training: bool) -> Objective:
    policy = AnswerPolicy(head, batch_inputs, config.rollouts.temperature)
    longest = config.rollouts.max_completion_length
    return GroupRelativePolicyOptimization(config.grpo, policy, longest)


_PREFERENCE = Stage(
    settle_tokenizer=resolve_template,
    rows=PAIRS,
    objective=_preference,
    layout=SHARED_PROMPTS,
    needs_reference=lambda config: config.preference.needs_reference,
    sections=("preference",),
    ignores=("margin",),
)

STAGES: Mapping[str, Stage] = {
    "sft": Stage(settle_tokenizer=resolve_template, rows=CONVERSATIONS, objective=_supervised),
    "pt": Stage(
        # A base model has no chat template, and needs none.
        settle_tokenizer=lambda tokenizer, _template: (tokenizer, ()),
        rows=DOCUMENTS,
        objective=_supervised,
        evaluator=BitsPerByte.of,
        auto_packing=True,
    ),
    "dpo": _PREFERENCE,
    "orpo": _PREFERENCE,
    "simpo": _PREFERENCE,
    "cpo": _PREFERENCE,
    "kto": Stage(
        settle_tokenizer=resolve_template,
        rows=VERDICTS,
        objective=_kto,
        layout=UNCUT_ANSWERS,
        needs_reference=lambda _config: True,
        sections=("preference",),
    ),
    "rm": Stage(
        settle_tokenizer=resolve_for_rewards,
        rows=PAIRS,
        objective=_reward,
        layout=REWARDED_ANSWERS,
        sections=("reward",),
        model_kind="reward",
        find_head=lambda model: (reward_head(model), None),
    ),
    "grpo": Stage(
        settle_tokenizer=resolve_template,
        rows=PROMPTS,
        objective=_grpo,
        sections=("grpo", "rollouts"),
        check=check_rollouts,
        batches=rollout_stream,
        as_computed=with_answers,
        not_estimated="drawing the answers",
        measure=reward_evaluation,
    ),
}
"""Each stage by the name that the setting `stage` has for it. Those that compare two answers differ
in `pref_loss` alone, which the stage sets (`RunConfig`)."""

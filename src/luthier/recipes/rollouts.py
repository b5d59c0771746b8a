"""A job in which the model itself answers: its batches are drawn from it, its answers rewarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from luthier.contracts.training import EpochBatches, Evaluator
from luthier.core.errors import SettingsError
from luthier.objectives.grpo import GroupRelativePolicyOptimization
from luthier.recipes.rollout_file import ROLLOUTS, RolloutFile
from luthier.recipes.run_config import RunConfig
from luthier.rollouts.draw import Drawer
from luthier.rollouts.evaluation import RewardEvaluation
from luthier.rollouts.rewards import reward_functions
from luthier.rollouts.stream import RolloutStream

if TYPE_CHECKING:
    from luthier.recipes.job import Job


def check_rollouts(config: RunConfig) -> None:
    """Look whether answers can be judged and compared, before anything is loaded.

    Raises:
        SettingsError: A reward function is not there, or KL is asked for and nothing would hold the
            reference.
    """
    reward_functions(config.rollouts)
    if config.grpo.beta and config.tuning.finetuning_type != "lora":
        raise SettingsError(
            "beta compares with the model before training, which only an adapter leaves as it was",
            where="beta",
            mend="Set finetuning_type: lora, or beta: 0, which most take today.",
        )


def with_answers(config: RunConfig, lengths: Sequence[int]) -> tuple[RunConfig, Sequence[int]]:
    """Return settings and lengths as they would be if the answers stood in the data.

    Time and memory are estimated from them. Each answer is taken to be as long as it may be.

    Args:
        config: All settings; the batch size counts prompts.
        lengths: Tokens of each prompt.
    """
    asked, size = config.rollouts, config.batches.rows_per_batch
    batches = {"per_device_train_batch_size": size * asked.num_generations}
    training = {"num_train_epochs": config.training.num_train_epochs * asked.num_iterations}
    settings = config.model_copy(
        update={
            "batches": config.batches.model_copy(update=batches),
            "training": config.training.model_copy(update=training),
        }
    )
    rows = [length + asked.max_completion_length for length in lengths]
    return settings, [length for length in rows for _ in range(asked.num_generations)]


def rollout_stream(job: Job, prompts: EpochBatches) -> RolloutStream:
    """Return batches of the model's own answers to the prompts of a job.

    Args:
        job: Its model draws them as it is at each step.
        prompts: Batches of prompts.
    """
    config = job.config
    objective = job.training_objective()
    assert isinstance(objective, GroupRelativePolicyOptimization), "answers are drawn for grpo"
    drawer = Drawer(
        model=job.model,
        tokenizer=job.data.tokenizer,
        stop_token_ids=job.data.stop_token_ids,
        rows=job.data.prepared.train,
        rewards=reward_functions(config.rollouts),
        settings=config.rollouts,
        policy=objective.policy,
        collate=job.collate(),
        precision=job.precision,
        beta=config.grpo.beta,
        tell=RolloutFile(job.folder / ROLLOUTS),
    )
    return RolloutStream(
        prompts, drawer, job.collate(), config.rollouts.num_iterations, config.run.seed
    )


def reward_evaluation(job: Job, rows: Any, is_stopped: Callable[[], bool]) -> Evaluator:
    """Return what measures a model by the rewards of its answers to validation prompts.

    Args:
        job: Settings and tokenizer.
        rows: The prompts.
        is_stopped: Asked between batches: whether to give up.
    """
    config = job.config
    return RewardEvaluation(
        tokenizer=job.data.tokenizer,
        stop_token_ids=job.data.stop_token_ids,
        rows=rows,
        rewards=reward_functions(config.rollouts),
        max_new_tokens=config.rollouts.max_completion_length,
        batch_size=config.batches.per_device_eval_batch_size,
        precision=job.precision,
        is_stopped=is_stopped,
    )

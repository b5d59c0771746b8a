"""Settings that are set and would do nothing, or that contradict each other, over sections.

Each rule is a line of data. A rule speaks only where the user gave the setting a value other than
its default, so that a run.yaml, which spells out all settings, is as good as the file it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from luthier.corpus.sources import has_validation
from luthier.engine.settings import GuardSettings
from luthier.models.settings import LoraTuning
from luthier.objectives.settings import GrpoSettings
from luthier.recipes.run_config import NAMED_AFTER_LOSS, STEP_SETTINGS, RunConfig
from luthier.rollouts.settings import RolloutSettings
from luthier.trackers.settings import WITH_HISTOGRAMS


@dataclass(frozen=True, slots=True)
class Rule:
    """One combination that makes no sense.

    Attributes:
        name: The setting that is of no use or in contradiction.
        broken: Whether a configuration breaks the rule.
        problem: What is wrong, following the setting's name.
        mend: What to do.
        even_default: Whether naming the setting breaks the rule even with its default value.
    """

    name: str
    broken: Callable[[RunConfig], bool]
    problem: str
    mend: str
    even_default: bool = False


def _no_validation(config: RunConfig) -> bool:
    return not has_validation(config.data)


def _not_lora(config: RunConfig) -> bool:
    return config.tuning.finetuning_type != "lora"


def _by_transformers(config: RunConfig) -> bool:
    return config.run.trainer == "transformers"


def _is_pretraining(config: RunConfig) -> bool:
    return config.run.stage == "pt"


def _is_judged(config: RunConfig) -> bool:
    return config.run.stage not in ("sft", "pt")


def _answers_itself(config: RunConfig) -> bool:
    return config.run.stage == "grpo"


def _ranks(config: RunConfig) -> bool:
    return _is_judged(config) and config.run.stage not in ("kto", "grpo")


def _is_rewarding(config: RunConfig) -> bool:
    return config.run.stage == "rm"


def _is_not(*stages: str) -> Callable[[RunConfig], bool]:
    return lambda config: config.run.stage not in stages


def _trains_on_an_adapter(config: RunConfig) -> bool:
    return config.model.trains_on_adapter


def _merges_adapters(config: RunConfig) -> bool:
    return config.model.create_new_adapter or len(config.model.adapters) > 1


def _takes_from_base(config: RunConfig) -> bool:
    return isinstance(config.tuning, LoraTuning) and config.tuning.takes_from_base


def _without_step(name: str) -> Callable[[RunConfig], bool]:
    return lambda config: name not in config.preparation.steps


def _step_rules() -> Iterator[Rule]:
    """Yield for each setting of a step that it needs the step."""
    for name, model in STEP_SETTINGS.items():
        for leaf in model.model_fields:
            yield Rule(
                leaf,
                _without_step(name),
                f"is set, and the step {name} is not among the steps of this run",
                f"Add {name} to steps, or take {leaf} out.",
            )


_NEEDS_VALIDATION = "is set, and there are no validation rows"
_GIVE_VALIDATION = "Give val_file, or val_size to cut some from the training data."
_QUANTISED = "is for LoRA on a frozen base; quantised weights can't be trained themselves"
_USE_LORA = "Set finetuning_type: lora, or take this setting out."
_SAVING = ("save_steps", "save_total_limit", "save_in_background", "on_full_disk")
_NO_CHECKPOINTS = "is set, and trainer: transformers writes no checkpoints"
_ONE_RATE = "is set, and trainer: transformers has one learning rate here"
_USE_LUTHIER = "Use trainer: luthier, or take this setting out."
_ADAPTER_SHAPE = (
    *("lora_target", "lora_rank", "lora_alpha", "lora_dropout"),
    *("lora_init", "use_rslora", "use_dora", "additional_target"),
)
_GIVEN_BY_ADAPTER = "is set, and the adapter of adapter_name_or_path has its own"
_USE_ADAPTER_AS_IS = "Take it out, or start a new adapter: create_new_adapter: true."

_OF_CONVERSATIONS = (
    *("template", "default_system", "train_on_prompt", "mask_history"),
    *("on_long_row", "min_answer_share", "min_answer_chars"),
)

_OF_PAIRS = ("pref_ftx", "dpo_label_smoothing", "ld_alpha", "reference_free")
_OF_LOG_PROBS = ("pref_loss", "pref_beta", *_OF_PAIRS)
_REWARDS = "is set, and stage: rm compares rewards, not log-probabilities"
_JUDGED = "is set, and answers are judged as a whole: the prompt has no part in it"
_NO_TOKENS = "is set, and it is the loss of tokens that it changes, not of answers"
_TAKE_OUT = "Take it out."
_TAKE_OUT_OR_DPO = "Take it out, or set stage: dpo."

_OF_ANSWERS = (
    *("on_long_row", "min_answer_share", "min_answer_chars"),
    *("task_column", "neftune_noise_alpha"),
)
"""Settings of answers that stand in the data, and of the loss on them."""

_WITH_REWARD_FUNCS = ("reward_weights", "reward_pattern")
"""Settings that can't stand without `reward_funcs`, which has the rule."""

STEP_RULES: tuple[Rule, ...] = tuple(_step_rules())

RULES: tuple[Rule, ...] = (
    *STEP_RULES,
    Rule(
        "split_likeness",
        lambda c: not c.preparation.steps or _no_validation(c),
        "is set, and no corpus is split",
        "Give steps and val_size, or take it out.",
    ),
    Rule("eval_steps", _no_validation, _NEEDS_VALIDATION, _GIVE_VALIDATION),
    Rule(
        "eval_strategy",
        lambda c: _no_validation(c) and c.training.eval_strategy != "no",
        _NEEDS_VALIDATION,
        _GIVE_VALIDATION,
    ),
    Rule("per_device_eval_batch_size", _no_validation, _NEEDS_VALIDATION, _GIVE_VALIDATION),
    Rule(
        "stratify_by",
        lambda c: not c.data.val_size,
        "is set, and no validation rows are cut from the training data",
        "Give val_size, or take stratify_by out.",
    ),
    Rule(
        "dataset_dir",
        lambda c: c.data.dataset is None,
        "is set without dataset, which names an entry of its dataset_info.json",
        "Give dataset, or name the file itself with train_file.",
    ),
    Rule(
        "task_column",
        lambda c: not c.data.task_weights,
        "is set without task_weights, so the tasks would weigh the same",
        "Give task_weights, for example {math: 2.0}.",
    ),
    Rule(
        "min_answer_share",
        lambda c: c.tokens.on_long_row == "drop",
        "is set, and on_long_row: drop cuts no row",
        "Set on_long_row: cut, or take min_answer_share out.",
    ),
    Rule(
        "packing_window",
        lambda c: c.batches.packing is not True,
        "is set, and only packing: true looks at rows together",
        "Set packing: true, or take packing_window out.",
    ),
    Rule(
        "group_by_length",
        lambda c: c.batches.group_by_length and c.batches.packing is True,
        "is set, and packing: true fills every row",
        "Take one of the two out.",
    ),
    Rule(
        "packing",
        lambda c: _by_transformers(c) and c.batches.packing is not False,
        "is set, and trainer: transformers trains on padded rows",
        _USE_LUTHIER,
    ),
    Rule(
        "per_device_train_batch_size",
        lambda c: c.batches.is_auto and _by_transformers(c),
        "is auto, and trainer: transformers takes a number",
        "Give a number of rows, or use trainer: luthier.",
    ),
    Rule(
        "gradient_accumulation_steps",
        lambda c: c.batches.is_auto,
        "is set, and per_device_train_batch_size: auto chooses the micro-batches of a step",
        "Give train_batch_size, the rows of one step, in its place.",
    ),
    Rule(
        "train_batch_size",
        lambda c: not c.batches.is_auto,
        "is set, and only per_device_train_batch_size: auto cuts a step into micro-batches",
        "Set per_device_train_batch_size: auto, or give gradient_accumulation_steps in its place.",
    ),
    Rule("quantization_bit", _not_lora, _QUANTISED, _USE_LORA),
    Rule("bnb_4bit_quant_type", _not_lora, _QUANTISED, _USE_LORA, even_default=True),
    Rule("bnb_4bit_compute_dtype", _not_lora, _QUANTISED, _USE_LORA, even_default=True),
    Rule("bnb_4bit_use_double_quant", _not_lora, _QUANTISED, _USE_LORA, even_default=True),
    Rule(
        "adapter_name_or_path",
        _not_lora,
        "is a LoRA adapter, and finetuning_type is not lora",
        _USE_LORA,
    ),
    Rule(
        "save_total_limit",
        lambda c: c.training.save_strategy == "no",
        "is set, and save_strategy: no writes no checkpoint",
        "Take one of the two out.",
    ),
    Rule(
        "save_strategy",
        lambda c: _by_transformers(c) and c.training.save_strategy != "no",
        _NO_CHECKPOINTS,
        _USE_LUTHIER,
    ),
    Rule(
        "eval_strategy",
        lambda c: c.training.eval_strategy == "no" and not _no_validation(c),
        "is no, and validation rows are set aside that nothing would look at",
        "Take val_file or val_size out, or evaluate.",
    ),
    Rule(
        "resume_from_checkpoint",
        _by_transformers,
        "is set, and trainer: transformers has no exact resume",
        "Use trainer: luthier, whose checkpoints a run can go on from.",
    ),
    Rule(
        "allow_change",
        lambda c: c.checkpoints.resume_from_checkpoint is False,
        "is set, and the run goes on from no checkpoint",
        "Add --resume_from_checkpoint, or take it out.",
    ),
    Rule(
        "optim",
        lambda c: c.optimizer.optim == "muon" and not _not_lora(c),
        "is muon, which makes the step of a whole matrix orthogonal, and lora trains two factors",
        "Set finetuning_type: full or freeze, or another optim.",
    ),
    Rule(
        "optim",
        lambda c: _by_transformers(c) and c.optimizer.optim not in ("adamw_torch", "adafactor"),
        "is set, and trainer: transformers has adamw_torch and adafactor here",
        _USE_LUTHIER,
    ),
    Rule(
        "optim",
        lambda c: (
            c.optimizer.optim == "schedule_free_adamw"
            and c.schedule.lr_scheduler_type != "constant"
        ),
        "is schedule_free_adamw, whose average of the weights takes the place of a falling rate",
        "Set lr_scheduler_type: constant (warmup_steps or warmup_ratio stay), or another optim.",
    ),
    Rule("loraplus_lr_ratio", _by_transformers, _ONE_RATE, _USE_LUTHIER),
    Rule("layerwise_lr_decay", _by_transformers, _ONE_RATE, _USE_LUTHIER),
    Rule("early_stopping_patience", _no_validation, _NEEDS_VALIDATION, _GIVE_VALIDATION),
    *(
        Rule(name, _by_transformers, "is set, and only luthier's own loop looks", _USE_LUTHIER)
        for name in GuardSettings.model_fields
    ),
    *(Rule(name, _by_transformers, _NO_CHECKPOINTS, _USE_LUTHIER) for name in _SAVING),
    Rule(
        "sample_prompts",
        _by_transformers,
        "is set, and only luthier's own loop lets the model answer",
        _USE_LUTHIER,
    ),
    Rule(
        "sample_prompts",
        lambda c: c.run.stage == "rm",
        "is set, and a reward model gives numbers, not answers",
        _TAKE_OUT,
    ),
    *(
        Rule(
            name,
            lambda c: not c.sampling.sample_prompts,
            "is set, and there are no sample_prompts",
            "Give sample_prompts, or take it out.",
        )
        for name in ("sample_steps", "sample_max_new_tokens")
    ),
    *(
        Rule(name, _by_transformers, "is set, and only luthier's own loop has it", _USE_LUTHIER)
        for name in ("callbacks", "log_histograms")
    ),
    *(
        Rule(
            name,
            lambda c: not c.tracking.trackers,
            "is set, and report_to names no tracker",
            "Give report_to, or take it out.",
        )
        for name in ("project", "run_name", "logging_dir")
    ),
    Rule(
        "log_histograms",
        lambda c: not WITH_HISTOGRAMS & set(c.tracking.trackers),
        "is set, and report_to names no tracker that draws histograms",
        f"Add {', '.join(sorted(WITH_HISTOGRAMS))} to report_to, or take it out.",
    ),
    *(
        Rule(
            name,
            _is_pretraining,
            "is set, and stage: pt learns from documents, which have no turns and are never cut",
            "Take it out, or set stage: sft.",
        )
        for name in _OF_CONVERSATIONS
    ),
    Rule(
        "pref_loss",
        lambda c: c.run.stage in NAMED_AFTER_LOSS and c.preference.pref_loss != c.run.stage,
        "is set, and this stage is named after its loss",
        "Take it out, or set stage: dpo.",
    ),
    Rule(
        "pref_loss",
        lambda c: c.run.stage == "dpo" and c.preference.pref_loss in NAMED_AFTER_LOSS,
        "is set, and is a stage of its own here",
        "Give it as the stage: stage: orpo, simpo or cpo.",
    ),
    Rule(
        "pref_loss",
        lambda c: not _ranks(c),
        "is set, and this stage does not rank answers",
        "Set stage: dpo, or take it out.",
    ),
    Rule(
        "pref_beta",
        lambda c: not _is_judged(c) or _answers_itself(c),
        "is set, and this stage judges no answers of the data",
        "Set stage: dpo or kto, or take it out.",
    ),
    *(
        Rule(
            name,
            lambda c: not _ranks(c),
            "is set, and this stage does not rank answers",
            "Set stage: dpo, or take it out.",
        )
        for name in _OF_PAIRS
    ),
    *(
        Rule(name, _is_not("kto"), "is set, and only stage: kto looks at it", _TAKE_OUT)
        for name in ("kto_chosen_weight", "kto_rejected_weight")
    ),
    *(Rule(name, _is_rewarding, _REWARDS, _TAKE_OUT_OR_DPO) for name in _OF_LOG_PROBS),
    Rule(
        "center_rewards_coefficient",
        _is_not("rm"),
        "is set, and only stage: rm looks at it",
        "Set stage: rm, or take it out.",
    ),
    *(Rule(name, _is_judged, _JUDGED, _TAKE_OUT) for name in ("train_on_prompt", "mask_history")),
    *(
        Rule(name, _is_judged, _NO_TOKENS, _TAKE_OUT)
        for name in ("label_smoothing_factor", "use_dft_loss")
    ),
    Rule(
        "trainer",
        lambda c: _is_judged(c) and _by_transformers(c),
        "is transformers, which has the stages sft and pt here",
        "Use trainer: luthier.",
    ),
    Rule(
        "per_device_train_batch_size",
        lambda c: c.run.stage == "kto" and c.batches.per_device_train_batch_size in (1, "auto"),
        "is set, and kto estimates what it compares with from a whole micro-batch",
        "Give 2 rows or more; 8 are usual.",
        even_default=True,
    ),
    *(
        Rule(name, _is_not("grpo"), "is set, and only stage: grpo looks at it", _TAKE_OUT)
        for name in (*GrpoSettings.model_fields, *RolloutSettings.model_fields)
        if name not in _WITH_REWARD_FUNCS
    ),
    *(
        Rule(name, _answers_itself, "is set, and stage: grpo trains on prompts alone", _TAKE_OUT)
        for name in _OF_ANSWERS
    ),
    Rule(
        "packing",
        lambda c: _answers_itself(c) and c.batches.packing is True,
        "is true, and rows are filled before the model has answered",
        "Set packing: padding_free, which computes no padding either.",
    ),
    Rule(
        "per_device_train_batch_size",
        lambda c: _answers_itself(c) and c.batches.is_auto,
        "is auto, and what fits is measured on rows that the model has not written yet",
        "Give a number of prompts. Where memory runs out, batches of answers are halved.",
    ),
    Rule(
        "reward_max_chars",
        lambda c: "length" not in c.rollouts.reward_funcs,
        "is set, and the reward length is not among reward_funcs",
        "Add length to reward_funcs, or take it out.",
    ),
    *(
        Rule(
            name,
            lambda c: c.rollouts.num_iterations == 1,
            "is set, and with num_iterations: 1 the ratio is always 1",
            "Raise num_iterations, or take it out.",
        )
        for name in ("epsilon", "epsilon_high")
    ),
    Rule(
        "create_new_adapter",
        lambda c: not c.model.adapters,
        "is set without adapter_name_or_path, and a run without one trains a new adapter anyway",
        "Take it out, or give adapter_name_or_path.",
    ),
    Rule(
        "adapter_name_or_path",
        lambda c: _merges_adapters(c) and c.quantization.bits is not None,
        "is merged into the base, and a quantised base can't take it without loss",
        "Merge it into the unquantised model first, or take the quantisation out.",
    ),
    Rule(
        "resize_vocab",
        lambda c: bool(c.model.resize_vocab) and not c.model.new_tokens,
        "is set, and there are no new tokens",
        "Give new_special_tokens or add_tokens, or take it out.",
    ),
    Rule(
        "resize_vocab",
        lambda c: c.model.resize_vocab is False and bool(c.model.new_tokens),
        "is false, and new tokens need rows that can be trained",
        "Take it out, or take the new tokens out.",
    ),
    Rule(
        "lora_init",
        lambda c: _takes_from_base(c) and c.quantization.bits is not None,
        "takes its part out of the base, and a quantised base can't give it without loss",
        "Set lora_init: default, or take the quantisation out.",
    ),
    Rule(
        "lora_init",
        lambda c: (
            isinstance(c.tuning, LoraTuning)
            and c.tuning.lora_init == "eva"
            and c.run.stage not in ("sft", "pt")
        ),
        "is eva, which looks at rows of one text, and this stage compares texts",
        "Set lora_init: default, or stage: sft or pt.",
    ),
    *(
        Rule(name, _trains_on_an_adapter, _GIVEN_BY_ADAPTER, _USE_ADAPTER_AS_IS)
        for name in _ADAPTER_SHAPE
    ),
)

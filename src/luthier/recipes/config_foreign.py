"""What to answer to a name that is no setting.

Names that stand in the settings files of other trainers have an answer of their own, for the
nearest name of ours would mislead (`do_train` is not `trainer`). They stay errors: a setting that
does nothing is never taken in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from luthier.core.errors import SettingsError, nearest

TAKE_OUT = "Take it out."

FOREIGN: Mapping[str, str] = {
    "add_special_tokens": "It is called new_special_tokens.",
    "cache_dir": "Take it out; models lie where HF_HOME says, prepared data in prepared_dir.",
    "compute_type": "Write bf16: true or fp16: true, or neither for the best that is there.",
    "dataloader_pin_memory": TAKE_OUT,
    "ddp_timeout": "Take it out; one process trains.",
    "do_eval": "Take it out; val_file or val_size switch evaluation on.",
    "do_predict": "Take it out; `luthier generate` answers prompts.",
    "do_train": "Take it out; `luthier train` trains.",
    "eval_dataset": "Name the file with val_file, or cut rows with val_size.",
    "evaluation_strategy": "It is called eval_strategy.",
    "fp32": "Write bf16: false.",
    "load_best_model_at_end": "Take it out; the best checkpoint is kept, see its manifest.json.",
    "load_in_4bit": "Write quantization_bit: 4.",
    "load_in_8bit": "Write quantization_bit: 8.",
    "lr": "It is called learning_rate.",
    "lora_r": "It is called lora_rank.",
    "max_length": "It is called cutoff_len.",
    "max_prompt_length": "With stage: grpo it is called cutoff_len.",
    "max_seq_length": "It is called cutoff_len.",
    "neat_packing": "Write packing: true; packed conversations never see each other.",
    "plot_loss": "Take it out; metrics.jsonl in output_dir holds every point.",
    "pure_bf16": "Write bf16: true; what is trained stays in float32.",
    "save_only_model": "Take it out; checkpoints hold all that going on needs, and `model` beside.",
    "sweep": "Take it out, or run `luthier sweep` on this file.",
    "target_modules": "It is called lora_target.",
    "use_fast_tokenizer": TAKE_OUT,
    "use_unsloth": TAKE_OUT,
    "use_vllm": "Take it out; in training, answers are drawn by transformers.",
    "vllm_mode": "Take it out; in training, answers are drawn by transformers.",
}
"""What to do about each name."""


def unknown_name(name: str, where: str, known: Iterable[str]) -> SettingsError:
    """Build the error for a name that is no setting.

    Args:
        name: As the user wrote it.
        where: File and line, or flag.
        known: The names that would have been right.
    """
    mend = FOREIGN.get(name.replace("-", "_"))
    if mend is None:
        close = nearest(name, known)
        mend = f"Did you mean {close}?" if close else "`luthier config` lists all settings."
    return SettingsError(f"no setting is named {name}", where=where, mend=mend)

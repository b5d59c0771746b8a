"""Settings of the model: which one, how it is tuned, how it is quantised."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from luthier.contracts.settings import Settings


class ModelSettings(Settings):
    """The model that training starts from."""

    model_name_or_path: str
    """A local model folder in the Hugging Face layout, or a hub name."""

    adapter_name_or_path: str | None = None
    """A LoRA adapter to train on from. Of several, between commas, the last is trained on and the
    others are merged into the base; what is saved holds all of them."""

    create_new_adapter: bool = False
    """Merge all adapters of adapter_name_or_path into the base, and train a new one."""

    model_revision: str = "main"
    """Branch, tag or commit of a hub model."""

    trust_remote_code: bool = False
    """Run Python code that the model folder brings. It can do anything that you can."""

    new_special_tokens: list[str] = Field(default_factory=list)
    """Tokens to add that are marks, not words, such as `<tool_call>`: a comma string or a list.
    Text that is shown leaves them out."""

    add_tokens: list[str] = Field(default_factory=list)
    """Tokens to add that are words: a comma string or a list."""

    resize_vocab: bool | None = None
    """Give new tokens rows in embeddings and head, and train these (with LoRA: these alone).
    Default: where there are new tokens. true insists that there are."""

    flash_attn: Literal["auto", "fa2", "sdpa", "eager"] = "auto"
    """Attention kernel. A bare --flash_attn means fa2. What is missing is replaced and said."""

    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, about a third more time. auto: only
    where a run would not fit the memory without it."""

    torch_compile: bool = False
    """Compile the layers (torch.compile): minutes before the first step, then fewer passes over
    memory."""

    use_liger_kernel: bool = False
    """On a GPU, compute norms, rotary positions and activations by the kernels of Liger."""

    @field_validator("model_name_or_path")
    @classmethod
    def _expand_home(cls, value: str) -> str:
        return _at_home(value)

    @field_validator("adapter_name_or_path")
    @classmethod
    def _expand_homes(cls, value: str | None) -> str | None:
        if value is None:
            return None
        names = [name.strip() for name in value.split(",")]
        if not all(names):
            raise ValueError("adapter_name_or_path has a comma with no adapter beside it")
        return ",".join(map(_at_home, names))

    @field_validator("new_special_tokens", "add_tokens", mode="before")
    @classmethod
    def _split_tokens(cls, value: object) -> object:
        if isinstance(value, str):
            return [token.strip() for token in value.split(",") if token.strip()]
        return [] if value is None else value

    @model_validator(mode="after")
    def _tokens_once(self) -> ModelSettings:
        seen: set[str] = set()
        for token in self.new_tokens:
            if not token.strip() or token in seen:
                what = "twice" if token in seen else "and it is nothing but space"
                raise ValueError(f"new_special_tokens and add_tokens have {token!r} {what}")
            seen.add(token)
        return self

    @property
    def new_tokens(self) -> list[str]:
        """The tokens to add, the special ones first."""
        return [*self.new_special_tokens, *self.add_tokens]

    @property
    def adapters(self) -> list[str]:
        """The adapters that training starts from, in their order."""
        return self.adapter_name_or_path.split(",") if self.adapter_name_or_path else []

    @property
    def trains_on_adapter(self) -> bool:
        """Whether the last of them is what is trained, and no new one."""
        return bool(self.adapters) and not self.create_new_adapter

    @field_validator("flash_attn", mode="before")
    @classmethod
    def _bare_flag(cls, value: object) -> object:
        # `--flash_attn` and `flash_attn: true` ask for FlashAttention 2, as in the lecture.
        if isinstance(value, bool):
            return "fa2" if value else "auto"
        return value


class LoraTuning(Settings):
    """Low-rank adapters (LoRA, arXiv 2106.09685); the base model stays as it is."""

    finetuning_type: Literal["lora"] = "lora"
    """Which parameters are trained: lora, full or freeze."""

    lora_target: str | list[str] = "all"
    """Modules that get an adapter: names, a comma string, `all` linear layers but the head, or a
    regular expression for whole paths, such as `model\\.layers\\.(0|1)\\..*_proj`."""

    lora_rank: int = Field(default=8, gt=0)
    """Rank of the adapters."""

    lora_alpha: int | None = Field(default=None, gt=0)
    """Scale of the adapters. Default: twice the rank."""

    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapters."""

    lora_init: str = "default"
    """How adapters begin: default (B is 0), gaussian (the same, A normal), pissa or
    pissa_niter_[n] (the base's largest singular directions, arXiv 2404.02948; exact, or fast by n
    iterations), olora (by QR, arXiv 2406.01775), eva (the directions in which a layer's inputs
    vary most on the run's own rows, arXiv 2410.07170). What is saved opens on the base as it is."""

    use_rslora: bool = False
    """Scale by alpha/sqrt(rank) (rsLoRA, arXiv 2312.03732)."""

    use_dora: bool = False
    """Train magnitude and direction apart (DoRA, arXiv 2402.09353)."""

    additional_target: str | list[str] | None = None
    """Modules that are trained whole and saved beside the adapter."""

    loraplus_lr_ratio: float | None = Field(default=None, gt=0)
    """Learning rate of the B matrices over that of the A's (LoRA+, arXiv 2402.12354, which advises
    16 and a somewhat lower learning rate). Default: the same."""

    @field_validator("lora_target", "additional_target", mode="before")
    @classmethod
    def _split_commas(cls, value: object, info: ValidationInfo) -> object:
        # A regular expression may have commas of its own.
        is_kept = info.field_name == "lora_target" and is_pattern(value)
        return value if is_kept else split_names(value)

    @field_validator("lora_target")
    @classmethod
    def _compiles(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"lora_target is no regular expression: {error}") from None
        return value

    @field_validator("lora_init")
    @classmethod
    def _known_init(cls, value: str) -> str:
        if not re.fullmatch(r"default|gaussian|eva|olora|pissa|pissa_niter_[1-9]\d*", value):
            raise ValueError("it can be default, gaussian, pissa, pissa_niter_[n], olora or eva")
        return value

    @model_validator(mode="after")
    def _plain_magnitudes(self) -> LoraTuning:
        if self.use_dora and self.takes_from_base:
            raise ValueError(f"use_dora is not used with lora_init: {self.lora_init}")
        return self

    @property
    def takes_from_base(self) -> bool:
        """Whether the base loses at the start what the adapters begin with."""
        return self.lora_init not in ("default", "gaussian", "eva")

    @field_validator("lora_target")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("lora_target names no module: give names or all")
        return value


class FullTuning(Settings):
    """Every parameter is trained."""

    finetuning_type: Literal["full"] = "full"
    """Which parameters are trained: lora, full or freeze."""

    layerwise_lr_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Learning rate of each layer over that of the layer above it (arXiv 1801.06146); 0.9 is usual.
    Default: the same for all."""


class FreezeTuning(Settings):
    """Some layers are trained whole, the others stay as they are."""

    finetuning_type: Literal["freeze"] = "freeze"
    """Which parameters are trained: lora, full or freeze."""

    freeze_trainable_layers: int = 2
    """How many layers are trained: the last n, or the first n where n is negative."""

    freeze_chosen_layers: list[int] | None = None
    """Numbers of the layers that are trained, counted from 0, in place of
    freeze_trainable_layers."""

    freeze_trainable_modules: str | list[str] = "all"
    """Modules in those layers that are trained, for example `mlp` or `q_proj,v_proj`."""

    freeze_extra_modules: str | list[str] | None = None
    """Modules outside the layers that are trained too, for example `lm_head,norm`."""

    layerwise_lr_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Learning rate of each layer over that of the layer above it (arXiv 1801.06146); 0.9 is usual.
    Default: the same for all."""

    freeze_cache: bool = True
    """Compute the frozen layers below the first trained one once for each row, not each epoch, and
    keep what they gave, where that is exact."""

    freeze_cache_memory_gib: float | None = Field(default=None, ge=0)
    """Memory for it, in GiB. Default: a quarter of what is available."""

    freeze_cache_disk_gib: float | None = Field(default=None, ge=0)
    """Room for it in output_dir once memory is full, in GiB; freed when the run ends. Default: a
    fifth of what is free."""

    @field_validator("freeze_extra_modules", "freeze_trainable_modules", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return split_names(value)

    @field_validator("freeze_trainable_layers")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("freeze_trainable_layers can't be 0: nothing would be trained")
        return value

    @field_validator("freeze_chosen_layers", "freeze_trainable_modules")
    @classmethod
    def _not_empty(cls, value: Any, info: ValidationInfo) -> Any:
        if value in ([], ""):
            raise ValueError(f"{info.field_name} is empty: nothing would be trained")
        return value

    @model_validator(mode="after")
    def _one_choice(self) -> FreezeTuning:
        default = type(self).model_fields["freeze_trainable_layers"].default
        if self.freeze_chosen_layers is not None and self.freeze_trainable_layers != default:
            raise ValueError("freeze_trainable_layers is not used by freeze_chosen_layers")
        return self


TuningSettings = Annotated[
    LoraTuning | FullTuning | FreezeTuning, Field(discriminator="finetuning_type")
]


class QuantizationSettings(Settings):
    """QLoRA (arXiv 2305.14314): the frozen base model in 4 or 8 bits, through bitsandbytes."""

    quantization_bit: Literal[4, 8] | None = None
    """Bits of the base model's weights. Left out, a `bnb_4bit_...` setting asks for 4."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Number format of 4-bit weights."""

    bnb_4bit_compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type that 4-bit weights are expanded to for each product."""

    bnb_4bit_use_double_quant: bool = True
    """Quantise the quantisation constants too: 0.4 bits a parameter less."""

    @model_validator(mode="after")
    def _one_width(self) -> QuantizationSettings:
        unused = sorted(self.model_fields_set - {"quantization_bit"})
        if self.quantization_bit == 8 and unused:
            raise ValueError(f"{unused[0]} is not used by quantization_bit: 8")
        return self

    @property
    def bits(self) -> int | None:
        """Bits that are asked for: by quantization_bit, or as 4 by any bnb_4bit setting."""
        if "quantization_bit" in self.model_fields_set:
            return self.quantization_bit
        return 4 if self.model_fields_set else None

    @property
    def is_firm(self) -> bool:
        """Whether quantization_bit itself is set.

        The lecture's lora_qlora.yaml carries `bnb_4bit_quant_type` alone: there, a machine without
        bitsandbytes trains LoRA on plain weights and says so. A quantization_bit is an order.
        """
        return self.quantization_bit is not None


def is_pattern(value: object) -> bool:
    """Whether a name of modules is a regular expression: it has signs that no name has."""
    return isinstance(value, str) and any(sign in value for sign in "*+?[](){}|^$\\")


def _at_home(name: str) -> str:
    return str(Path(name).expanduser()) if name.startswith("~") else name


def split_names(value: object) -> object:
    """Turn `q_proj,v_proj` into a list; `all`, also as the only name of a list, stays `all`."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    return "all" if value == ["all"] else value

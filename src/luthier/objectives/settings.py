"""Settings of the objectives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from luthier.contracts.settings import Settings

PreferenceLossName = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "sigmoid_norm",
    "orpo",
    "simpo",
    "cpo",
]

WITHOUT_REFERENCE = frozenset({"orpo", "simpo", "cpo"})
"""Losses of the policy alone: no reference model is run, and none is held."""

WITH_SMOOTHING = frozenset({"sigmoid", "sigmoid_norm", "robust", "exo_pair", "simpo", "cpo"})
"""Losses that know what a label is worth that may be wrong."""

_SHORT_NAMES = {"exo": "exo_pair", "nca": "nca_pair", "bco": "bco_pair", "sppo": "sppo_hard"}


class ObjectiveSettings(Settings):
    """What the loss is."""

    label_smoothing_factor: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target's probability that is spread evenly over the vocabulary."""

    use_dft_loss: bool = False
    """Multiply each token's loss by its probability, taken as a constant (DFT, arXiv 2508.05629):
    answers that the model finds unlikely are not forced on it. The log's loss is that product."""

    neftune_noise_alpha: float | None = Field(default=None, gt=0.0)
    """Size of the noise on the input embeddings in training (NEFTune, arXiv 2310.05914): 5 is
    usual. Default: none."""

    @model_validator(mode="after")
    def _one_target(self) -> ObjectiveSettings:
        if self.use_dft_loss and self.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor is not used by use_dft_loss: true, whose weight is the "
                "probability of the one right token"
            )
        return self


class PreferenceSettings(Settings):
    """How answers are compared (pairs) or judged (`kto`). The names are LLaMA-Factory's."""

    pref_loss: PreferenceLossName = "sigmoid"
    """The loss of a pair: sigmoid (DPO), hinge, ipo, robust, exo_pair, nca_pair, bco_pair,
    sppo_hard, apo_zero, apo_down, sigmoid_norm; or orpo, simpo, cpo, which need no reference."""

    pref_beta: float = Field(default=0.1, gt=0.0)
    """How much a log-probability weighs: larger keeps the policy nearer to its reference. The tau
    of ipo and the lambda of orpo. SimPO's authors take 2."""

    pref_ftx: float = Field(default=0.0, ge=0.0)
    """Weight of a supervised term beside the pair's loss: the mean loss of the chosen answer's
    tokens (RPO's alpha)."""

    dpo_label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability that a pair's label is wrong: cDPO with sigmoid, rDPO with robust; exo_pair
    needs one (1e-3 in its paper)."""

    ld_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    """Weight of the tokens by which one answer is longer than the other (LD-DPO). Default: 1."""

    reference_free: bool = False
    """Compare the policy's own log-probabilities, as if the reference found all answers equal."""

    simpo_gamma: float = Field(default=0.5, ge=0.0)
    """Margin between the rewards of a pair that simpo asks for."""

    cpo_alpha: float = Field(default=1.0, ge=0.0)
    """Weight of the supervised term of cpo."""

    kto_chosen_weight: float = Field(default=1.0, ge=0.0)
    """Weight of desirable answers in kto."""

    kto_rejected_weight: float = Field(default=1.0, ge=0.0)
    """Weight of undesirable answers in kto."""

    @field_validator("pref_loss", mode="before")
    @classmethod
    def _full_name(cls, value: object) -> object:
        return _SHORT_NAMES.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_the_loss(self) -> PreferenceSettings:
        loss = self.pref_loss
        if self.dpo_label_smoothing and loss not in WITH_SMOOTHING:
            raise ValueError(f"dpo_label_smoothing is not used by pref_loss: {loss}")
        if loss == "exo_pair" and not self.dpo_label_smoothing:
            raise ValueError("pref_loss: exo_pair needs a dpo_label_smoothing, for example 1e-3")
        if loss in WITHOUT_REFERENCE and (self.ld_alpha is not None or self.reference_free):
            name = "reference_free" if self.reference_free else "ld_alpha"
            raise ValueError(f"{name} is not used by pref_loss: {loss}")
        for name, owner in (("simpo_gamma", "simpo"), ("cpo_alpha", "cpo")):
            default = type(self).model_fields[name].default
            if getattr(self, name) != default and loss != owner:
                raise ValueError(f"{name} is not used by pref_loss: {loss}")
        return self

    @model_validator(mode="after")
    def _judges_something(self) -> PreferenceSettings:
        if not self.kto_chosen_weight and not self.kto_rejected_weight:
            raise ValueError("kto_chosen_weight and kto_rejected_weight can't both be 0")
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether the reference's log-probabilities of pairs are needed."""
        return self.pref_loss not in WITHOUT_REFERENCE and not self.reference_free

    @property
    def supervised_weight(self) -> float:
        """Weight of the chosen answer's mean token loss: the loss's own, and `pref_ftx`."""
        own = {"orpo": 1.0, "cpo": self.cpo_alpha}
        return own.get(self.pref_loss, 0.0) + self.pref_ftx


class GrpoSettings(Settings):
    """How answers of the model's own change it (`stage: grpo`). The names are TRL's."""

    epsilon: float = Field(default=0.2, gt=0.0, lt=1.0)
    """How far below 1 the ratio of a token's probabilities, now and when it was drawn, still
    counts. It moves where num_iterations is above 1."""

    epsilon_high: float | None = Field(default=None, gt=0.0)
    """How far above 1 it still counts (0.28 in DAPO, arXiv 2503.14476). Default: epsilon."""

    beta: float = Field(default=0.0, ge=0.0)
    """Weight of the divergence (KL) from the model below the adapter, token by token. 0: none is
    computed. It needs finetuning_type: lora, whose base is the reference."""

    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "dapo"
    """What all is divided by. grpo: a mean over each answer, then over answers; dapo: all tokens
    of the step count the same (TRL's bnpo too); dr_grpo: a constant, max_completion_length, so that
    no answer gains by its length."""

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        # A mean over the tokens of a batch, which luthier always takes over the whole step.
        return "dapo" if value == "bnpo" else value


class RewardSettings(Settings):
    """How a reward model is trained."""

    center_rewards_coefficient: float = Field(default=0.0, ge=0.0)
    """Weight of the square of a pair's summed rewards: it keeps rewards around 0, which the loss
    of a pair by itself leaves open. 0.01 is usual."""

"""The losses of preference optimisation, each a function of the two answers of a pair.

In: for each of P pairs a log-ratio of the chosen and one of the rejected answer, log policy(y|x) -
log reference(y|x); in the losses that know no reference, log policy(y|x) alone; in those named in
`LENGTH_AVERAGED`, divided by the answer's tokens. Out: P losses, for the caller to sum. Nothing
here knows a model or a batch. Written so that no difference of log-probabilities, however large,
overflows: log sigmoid is never the logarithm of a rounded sigmoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import logsigmoid

PairLoss = Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]
"""From (P,) chosen, (P,) rejected, beta and label smoothing to (P,) losses."""


def sigmoid(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """DPO; with label smoothing, conservative DPO: the pair is turned round with that probability.

    Source:
        arXiv 2305.18290, equation 7; smoothing: "A note on DPO with noisy preferences"
        (https://ericmitchell.ai/cdpo.pdf). TRL 1.16 ignores smoothing here.
    """
    return smoothed(beta * (chosen_P - rejected_P), smoothing)


def hinge(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """SLiC's hinge on the log-ratios.

    Source:
        arXiv 2305.10425, in the form that arXiv 2309.06657 gives it, on log-ratios.
    """
    del smoothing
    return torch.relu(1 - beta * (chosen_P - rejected_P))


def ipo(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """IPO: the difference is drawn to 1 / (2 beta), not ever further up.

    Source:
        arXiv 2310.12036, equation 17, beta being its tau. Log-ratios are averaged over tokens: the
        paper does not say so, TRL does, after asking its authors.
    """
    del smoothing
    return (chosen_P - rejected_P - 1 / (2 * beta)) ** 2


def robust(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """rDPO: unbiased where labels are wrong with a known probability. It may be negative.

    Source:
        arXiv 2403.00409.
    """
    logits_P = beta * (chosen_P - rejected_P)
    straight_P, turned_P = -logsigmoid(logits_P), -logsigmoid(-logits_P)
    return ((1 - smoothing) * straight_P - smoothing * turned_P) / (1 - 2 * smoothing)


def exo_pair(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """EXO for pairs: the reverse KL from the policy's preference to the smoothed label.

    Args:
        chosen_P: Log-ratios.
        rejected_P: Log-ratios.
        beta: Their factor.
        smoothing: Above 0: the label's distribution has no logarithm otherwise.

    Source:
        arXiv 2402.00856, equation 16, with two answers.
    """
    logits_P = beta * (chosen_P - rejected_P)
    prefers_chosen_P = logits_P.sigmoid() * (logsigmoid(logits_P) - math.log1p(-smoothing))
    prefers_rejected_P = (-logits_P).sigmoid() * (logsigmoid(-logits_P) - math.log(smoothing))
    return prefers_chosen_P + prefers_rejected_P


def nca_pair(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """NCA for pairs: the chosen answer's own likelihood counts, not only the difference.

    Source:
        arXiv 2402.05369, with two answers.
    """
    del smoothing
    chosen_P, rejected_P = beta * chosen_P, beta * rejected_P
    return -logsigmoid(chosen_P) - (logsigmoid(-chosen_P) + logsigmoid(-rejected_P)) / 2


def bco_pair(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """BCO for pairs: each answer is classified by itself.

    Source:
        arXiv 2404.04656, without the running mean of rewards that the paper takes off both: a loss
        here has no memory. TRL 1.16 leaves it out too.
    """
    del smoothing
    return -logsigmoid(beta * chosen_P) - logsigmoid(-beta * rejected_P)


def sppo_hard(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """SPPO with hard labels: each log-ratio is drawn to plus or minus 1 / (2 beta).

    Source:
        arXiv 2405.00675, equation 4.7, with 1 and 0 for the probabilities that the answers win, and
        beta for 1 / eta.
    """
    del smoothing
    return (chosen_P - 0.5 / beta) ** 2 + (rejected_P + 0.5 / beta) ** 2


def apo_zero(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """APO-zero, for chosen answers that are better than the model's: up with them.

    Source:
        arXiv 2408.06266, equation 7.
    """
    del smoothing
    return (-beta * chosen_P).sigmoid() + (beta * rejected_P).sigmoid()


def apo_down(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """APO-down, for chosen answers that are worse than the model's: down with both.

    Source:
        arXiv 2408.06266, equation 8.
    """
    del smoothing
    return (beta * chosen_P).sigmoid() + (-beta * (chosen_P - rejected_P)).sigmoid()


def orpo(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float, smoothing: float
) -> torch.Tensor:
    """ORPO's odds-ratio term. Its supervised term is added by `preference.py`.

    Args:
        chosen_P: Mean log-probabilities of a token, so that exp() of them is below 1.
        rejected_P: The same.
        beta: The paper's lambda.
        smoothing: Not used.

    Source:
        arXiv 2403.07691, equations 4 and 7.
    """
    del smoothing
    log_odds_P = (chosen_P - log1mexp(chosen_P)) - (rejected_P - log1mexp(rejected_P))
    return -beta * logsigmoid(log_odds_P)


def simpo(
    chosen_P: torch.Tensor,
    rejected_P: torch.Tensor,
    beta: float,
    smoothing: float,
    gamma: float = 0.5,
) -> torch.Tensor:
    """SimPO, on mean log-probabilities of a token.

    Args:
        chosen_P: Mean log-probabilities of a token.
        rejected_P: The same.
        beta: Their factor.
        smoothing: Probability that the pair's label is wrong; TRL's addition.
        gamma: The margin that is asked for between the two rewards, beta times the means.

    Source:
        arXiv 2405.14734, equation 6.
    """
    return smoothed(beta * (chosen_P - rejected_P) - gamma, smoothing)


PAIR_LOSSES: Mapping[str, PairLoss] = {
    "sigmoid": sigmoid,
    "hinge": hinge,
    "ipo": ipo,
    "robust": robust,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    # Length-normalised DPO of Tulu 3 (arXiv 2411.15124): log-ratios are means over tokens.
    "sigmoid_norm": sigmoid,
    "orpo": orpo,
    "simpo": simpo,
    # CPO (arXiv 2401.08417, equation 3): DPO without its reference, beside a supervised term.
    "cpo": sigmoid,
}
"""By the value of `pref_loss`."""

LENGTH_AVERAGED = frozenset({"ipo", "sigmoid_norm", "orpo", "simpo"})
"""Losses of means over an answer's tokens; the others take sums."""


def smoothed(logits_P: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the cross-entropy of a label that is wrong with the probability `smoothing`."""
    return -(1 - smoothing) * logsigmoid(logits_P) - smoothing * logsigmoid(-logits_P)


def log1mexp(values_P: torch.Tensor) -> torch.Tensor:
    """Return log(1 - exp(x)) of numbers below 0, exact for small and for large ones.

    A probability that was rounded to 1 is taken for the nearest one below, so that the result and
    its gradient are finite.

    Source:
        Maechler, "Accurately computing log(1 - exp(-|a|))".
    """
    below_P = values_P.clamp(max=-torch.finfo(values_P.dtype).eps)
    is_small_P = below_P > -math.log(2)
    # Each branch gets numbers that suit it: a NaN in one not taken would reach the gradient.
    of_small_P = torch.log(-torch.expm1(below_P.where(is_small_P, -math.log(2))))
    of_large_P = torch.log1p(-torch.exp(below_P.where(~is_small_P, -math.log(2))))
    return of_small_P.where(is_small_P, of_large_P)

"""What a learning-rate range test tells: a smoothed curve, and a rate if the curve has a valley.

Pure functions of two lists of numbers.

Source: the choices are those of fastai's `lr_find`, where `valley` is ESRI's:
https://github.com/fastai/fastai/blob/2.7.18/fastai/callback/schedule.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

SMOOTHED_SHARE = 0.05
"""Share of the whole test that a smoothed loss looks back over. Twice as much moves the minimum to
half its rate, for it brings in the rise behind it."""

MIN_SIGNAL = 6.0
"""Standard deviations of a smoothed loss that a fall or rise must have to be one."""

NOISE_POINTS = 12
"""Losses before the minimum, at least, whose noise counts by itself: it grows with the rate."""

MIN_SIGNAL_THERE = 3.0
"""The same of the noise there."""

MIN_FALL = 0.005
"""Share of the first loss that a fall must have: less teaches nothing in so few steps."""

MIN_RISE = 0.1
"""Share of the fall that the loss must rise again behind its minimum."""

CLEAR_SIGNAL = 15.0
"""Standard deviations of the noise there from which on a fall is called clear."""

CLEAR_SPREAD = 10.0
"""Factor within which `minimum / 10` and `steepest` must lie for a curve to be called clear."""

TAKEN = "minimum / 10"
"""The choice that is suggested; see `suggest`."""

FEWEST_POINTS = 8
"""Fewer losses than these are no curve."""


@dataclass(frozen=True, slots=True)
class RangeCurve:
    """What a range test has measured.

    Attributes:
        rates: Growing learning rates.
        losses: The loss after the update of each rate; finite.
        start: The loss before the first update.
        has_diverged: The test ended because the loss rose too far or was no finite number.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    start: float
    has_diverged: bool


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A smoothed curve, as many points as the measured one."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]


Verdict = Literal["clear", "faint", "no_fall", "no_rise", "too_few", "no_start"]
"""A valley that stands far out of the noise or less far, or why there is none: the loss falls at no
rate, or never rises again; there are too few losses, or the first is no finite number."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The rates that a curve suggests, and how sure that is.

    Attributes:
        verdict: Without a valley nothing is suggested.
        rate: The one to take.
        choices: All by their names, `rate` first: `minimum / 10`, `steepest`, `valley`.
        minimum: The rate of the lowest smoothed loss.
        fall: From the untrained model's loss to the lowest smoothed one.
        noise: Standard deviation of a smoothed loss near the minimum.
    """

    verdict: Verdict
    rate: float | None = None
    choices: Mapping[str, float] = field(default_factory=dict)
    minimum: float | None = None
    fall: float | None = None
    noise: float | None = None

    @property
    def spread(self) -> float:
        """Factor between the suggested rate and the rate of the steepest fall."""
        one, other = self.choices[TAKEN], self.choices["steepest"]
        return max(one, other) / min(one, other)


def smoothing_beta(num_rates: int) -> float:
    """Return the decay with which a smoothed loss looks back over a twentieth of the test."""
    return max(0.0, 1.0 - 1.0 / (SMOOTHED_SHARE * num_rates))


def smooth(rates: Sequence[float], losses: Sequence[float], beta: float) -> Smoothed:
    """Take an exponential moving average, divided by the weights that it has seen so far.

    The logarithms of the rates are averaged with the same weights. An average lags behind; so a
    straight stretch of the curve stays where it is.

    Args:
        rates: Positive.
        losses: As many.
        beta: Share of the earlier average that is kept, below 1.
    """
    at, level, weight = 0.0, 0.0, 0.0
    smooth_rates: list[float] = []
    smooth_losses: list[float] = []
    for rate, loss in zip(rates, losses, strict=True):
        at = beta * at + (1.0 - beta) * math.log(rate)
        level = beta * level + (1.0 - beta) * loss
        weight = beta * weight + (1.0 - beta)
        smooth_rates.append(math.exp(at / weight))
        smooth_losses.append(level / weight)
    return Smoothed(tuple(smooth_rates), tuple(smooth_losses))


def suggest(curve: RangeCurve, smoothed: Smoothed, beta: float) -> Suggestion:
    """Read a learning rate off a curve.

    A valley is a fall and a rise that both stand out of the noise. What is suggested is a tenth of
    the rate at the minimum: of the three choices noise moves it least. Where the noise is a sixth
    of the fall, it scatters by less than 0.2 decades and `steepest` by more (the tests say so);
    `valley` lies far below both, for a smooth curve begins to fall where nobody would see it.

    Args:
        curve: As it was measured.
        smoothed: As `smooth` returned it.
        beta: What it was smoothed with.
    """
    if not math.isfinite(curve.start):
        return Suggestion("no_start")
    if len(curve.losses) < FEWEST_POINTS:
        return Suggestion("too_few")
    # The first averages are of few losses: any of them may be low by chance.
    first = min(round(1 / (1 - beta)), len(smoothed.losses) - 1)
    lowest = first + _argmin(smoothed.losses[first:])
    minimum = smoothed.rates[lowest]
    until = max(lowest + 1, len(curve.losses) // 3)
    since = max(0, until - max(NOISE_POINTS, len(curve.losses) // 5))
    noise = noise_of(curve.losses[:until], beta)
    noise_there = max(noise, noise_of(curve.losses[since:until], beta))
    fall = curve.start - smoothed.losses[lowest]
    rise = smoothed.losses[-1] - smoothed.losses[lowest]
    found = Suggestion("no_fall", minimum=minimum, fall=fall, noise=noise_there)
    if fall < max(MIN_SIGNAL * noise, MIN_SIGNAL_THERE * noise_there, MIN_FALL * abs(curve.start)):
        return found
    if not curve.has_diverged and rise < max(MIN_SIGNAL * noise, MIN_RISE * fall):
        return replace(found, verdict="no_rise")
    choices = {
        "minimum / 10": minimum / 10,
        "steepest": steepest(smoothed, curve.start, lowest),
        "valley": valley(smoothed),
    }
    found = replace(found, rate=choices[TAKEN], choices=choices)
    is_clear = fall > CLEAR_SIGNAL * noise_there and found.spread <= CLEAR_SPREAD
    return replace(found, verdict="clear" if is_clear else "faint")


def steepest(smoothed: Smoothed, start: float, lowest: int) -> float:
    """Return the rate at which the smoothed loss falls fastest over the logarithm of the rate.

    Only the fall is searched: from the last point that has a tenth of it behind it at most, down
    to the minimum. Noise before it is no fall.

    Args:
        smoothed: The curve.
        start: The loss before the first update.
        lowest: Number of its lowest point.
    """
    tenth = start - 0.1 * (start - smoothed.losses[lowest])
    begin = max((i for i in range(lowest) if smoothed.losses[i] >= tenth), default=0)
    slopes = [
        (smoothed.losses[i + 1] - smoothed.losses[i])
        / math.log(smoothed.rates[i + 1] / smoothed.rates[i])
        for i in range(begin, lowest)
    ]
    at = begin + _argmin(slopes) if slopes else lowest
    return math.sqrt(smoothed.rates[at] * smoothed.rates[min(at + 1, lowest)])


def valley(smoothed: Smoothed) -> float:
    """Return the rate in the middle of the longest falling subsequence, as fastai's `valley` does.

    fastai's own goes a third of the way down and half of a third further, which is the middle.
    """
    losses = smoothed.losses
    length, before = [1] * len(losses), [-1] * len(losses)
    for i in range(len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and length[i] < length[j] + 1:
                length[i], before[i] = length[j] + 1, j
    end = begin = _argmin([-count for count in length])
    while before[begin] >= 0:
        begin = before[begin]
    return smoothed.rates[(begin + end) // 2]


def noise_of(losses: Sequence[float], beta: float) -> float:
    """Return the standard deviation of a smoothed loss, from what single losses jump about.

    Second differences leave a slope out; their median leaves outliers out.

    Args:
        losses: Measured ones, down to the minimum.
        beta: What they are smoothed with.
    """
    jumps = [abs(losses[i - 1] - 2 * losses[i] + losses[i + 1]) for i in range(1, len(losses) - 1)]
    if not jumps:
        return 0.0
    single = 1.4826 * median(jumps) / math.sqrt(6)
    return single * math.sqrt((1.0 - beta) / (1.0 + beta))


def _argmin(values: Sequence[float]) -> int:
    return min(range(len(values)), key=values.__getitem__)

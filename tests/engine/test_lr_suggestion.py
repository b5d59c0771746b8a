"""What is read off a curve: smoothing that does not shift, valleys found, and none invented."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import pstdev

import pytest

from luthier.engine.lr_suggestion import (
    RangeCurve,
    Smoothed,
    Suggestion,
    noise_of,
    smooth,
    smoothing_beta,
    steepest,
    suggest,
    valley,
)

START = 2.0


def the_rates(count: int, low: float = 1e-7, high: float = 1.0) -> list[float]:
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]


def a_loss(rate: float) -> float:
    """A fall of 0.8 that is steepest at 1e-3, and a rise from about 1e-2 on."""
    return START - 0.8 / (1 + 1e-3 / rate) + 0.5 * (rate / 3e-2) ** 1.5


MINIMUM = min(the_rates(1000), key=a_loss)


def a_curve(count: int = 100, noise: float = 0.0, seed: int = 0) -> RangeCurve:
    draw = random.Random(seed)
    rates = [rate for rate in the_rates(count) if a_loss(rate) < 4 * START]
    losses = tuple(a_loss(rate) + draw.gauss(0, noise) for rate in rates)
    return RangeCurve(tuple(rates), losses, START, has_diverged=True)


def read(curve: RangeCurve) -> Suggestion:
    beta = smoothing_beta(len(the_rates(100)))
    return suggest(curve, smooth(curve.rates, curve.losses, beta), beta)


def test_smoothing_starts_without_a_bias():
    smoothed = smooth([1.0, 10.0, 100.0], [4.0, 2.0, 2.0], 0.5)
    # Weights 1; 1/2 and 1, over 1.5; 1/4, 1/2 and 1, over 1.75.
    assert smoothed.losses == pytest.approx([4.0, 4 / 1.5, 4 / 1.75])
    assert smoothed.rates == pytest.approx([1.0, 10 ** (1 / 1.5), 10 ** (2.5 / 1.75)])


def test_without_a_look_back_nothing_is_smoothed():
    smoothed = smooth([1e-3, 1e-2], [3.0, 1.0], 0.0)
    assert smoothed.losses == (3.0, 1.0)
    assert smoothed.rates == pytest.approx((1e-3, 1e-2))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(("slope", "level", "count"), [(-0.3, 2.0, 100), (2.0, -5.0, 7), (0, 1, 2)])
def test_a_straight_curve_stays_where_it_is(beta: float, slope: float, level: float, count: int):
    rates = the_rates(count)
    smoothed = smooth(rates, [level + slope * math.log(rate) for rate in rates], beta)
    for rate, loss in zip(smoothed.rates, smoothed.losses, strict=True):
        assert loss == pytest.approx(level + slope * math.log(rate), abs=1e-9)


@pytest.mark.parametrize(("count", "beta"), [(10, 0.0), (20, 0.0), (40, 0.5), (100, 0.8)])
def test_a_twentieth_of_the_test_is_looked_back_over(count: int, beta: float):
    assert smoothing_beta(count) == pytest.approx(beta)


def test_a_known_valley_is_found():
    found = read(a_curve())
    assert found.verdict == "clear"
    assert found.minimum is not None
    assert found.rate is not None
    assert found.minimum == pytest.approx(MINIMUM, rel=0.7)
    assert found.choices["steepest"] == pytest.approx(1e-3, rel=0.6)
    assert found.rate == found.choices["minimum / 10"] == found.minimum / 10
    assert found.fall == pytest.approx(START - min(map(a_loss, the_rates(100))), rel=0.2)
    assert found.spread == pytest.approx(found.choices["steepest"] / found.rate)


@pytest.mark.parametrize("count", [50, 100, 300])
def test_the_suggestion_does_not_hang_on_the_number_of_steps(count: int):
    curve, beta = a_curve(count), smoothing_beta(count)
    found = suggest(curve, smooth(curve.rates, curve.losses, beta), beta)
    assert found.rate == pytest.approx(MINIMUM / 10, rel=0.8)


def test_noise_moves_the_suggestion_less_than_the_steepest_fall():
    found = [read(a_curve(noise=0.1, seed=seed)) for seed in range(40)]
    assert all(one.rate is not None for one in found)
    tenths = [math.log10(one.choices["minimum / 10"]) for one in found]
    steeps = [math.log10(one.choices["steepest"]) for one in found]
    assert pstdev(tenths) < 0.2 < pstdev(steeps)


def test_a_noisy_valley_is_not_called_clear():
    verdicts = {read(a_curve(noise=0.2, seed=seed)).verdict for seed in range(20)}
    assert "clear" not in verdicts
    assert "faint" in verdicts


def test_noise_near_the_minimum_counts_by_itself():
    draw = random.Random(4)
    quiet = a_curve()
    noises = [0.2 if rate > 3e-4 else 0.001 for rate in quiet.rates]
    losses = [loss + draw.gauss(0, n) for loss, n in zip(quiet.losses, noises, strict=True)]
    found = read(replace(quiet, losses=tuple(losses)))
    # Over all losses down to the minimum the median jump is that of the quiet ones.
    assert noise_of(losses[:60], smoothing_beta(100)) < 0.005
    assert found.noise == pytest.approx(0.2 / 3, rel=0.6)
    assert found.verdict == "faint"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("has_diverged", [True, False])
def test_noise_alone_has_no_valley(seed: int, has_diverged: bool):
    draw = random.Random(seed)
    losses = tuple(draw.gauss(START, 0.2) for _ in range(100))
    found = read(RangeCurve(tuple(the_rates(100)), losses, START, has_diverged))
    assert (found.verdict, found.rate, found.choices) == ("no_fall", None, {})


def test_a_fall_that_teaches_next_to_nothing_is_none():
    losses = tuple(START - 0.004 * i / 99 for i in range(100))
    found = read(RangeCurve(tuple(the_rates(100)), losses, START, has_diverged=True))
    assert found.verdict == "no_fall"


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_curve_that_falls_to_its_end_has_no_valley(noise: float):
    draw = random.Random(1)
    losses = tuple(START - i / 100 + draw.gauss(0, noise) for i in range(100))
    found = read(RangeCurve(tuple(the_rates(100)), losses, START, has_diverged=False))
    assert (found.verdict, found.rate) == ("no_rise", None)
    assert found.minimum is not None


def test_a_curve_that_rises_from_the_beginning_has_no_valley():
    losses = tuple(START + i / 100 for i in range(100))
    found = read(RangeCurve(tuple(the_rates(100)), losses, START, has_diverged=True))
    assert (found.verdict, found.rate) == ("no_fall", None)


def test_where_it_diverged_no_rise_is_asked_for():
    losses = tuple(START - i / 100 for i in range(100))
    curve = RangeCurve(tuple(the_rates(100)), losses, START, has_diverged=True)
    assert read(curve).rate is not None


def test_few_losses_and_a_broken_model():
    few = RangeCurve((1e-3,) * 7, (1.0,) * 7, START, has_diverged=True)
    assert read(few).verdict == "too_few"
    assert read(RangeCurve((), (), START, has_diverged=True)).verdict == "too_few"
    assert read(RangeCurve((), (), math.nan, has_diverged=True)).verdict == "no_start"


def test_the_steepest_fall_is_looked_for_in_the_fall_alone():
    rates = tuple(10.0**power for power in range(-8, 0))
    # A steep bump at the beginning; the fall itself starts at the fourth point.
    losses = (2.0, 2.9, 2.0, 2.0, 1.9, 1.3, 1.2, 1.6)
    at = steepest(Smoothed(rates, losses), START, 6)
    assert at == pytest.approx(math.sqrt(rates[4] * rates[5]))


def test_the_valley_is_the_middle_of_the_longest_fall():
    rates = tuple(10.0**power for power in range(-7, 0))
    assert valley(Smoothed(rates, (3.0, 5.0, 4.0, 3.5, 3.0, 2.0, 6.0))) == rates[3]
    assert valley(Smoothed(rates, (3.0, 2.0, 2.5, 1.5, 1.0, 4.0, 5.0))) == rates[2]


def test_noise_is_what_single_losses_jump_about():
    draw = random.Random(3)
    jumping = [5.0 - i / 10 + draw.gauss(0, 0.3) for i in range(3000)]
    assert noise_of(jumping, 0.0) == pytest.approx(0.3, rel=0.1)
    assert noise_of(jumping, 0.9) == pytest.approx(0.3 * math.sqrt(0.1 / 1.9), rel=0.1)
    assert noise_of([1.0, 2.0, 3.0, 4.0], 0.5) == 0.0
    assert noise_of([1.0, 2.0], 0.5) == 0.0

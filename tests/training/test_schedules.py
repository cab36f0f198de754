"""Up to the peak and down again, whatever the numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab.training.schedules import Constant, Cosine, InverseSqrt, Linear, WarmupStableDecay

EVERY = [Constant, InverseSqrt, WarmupStableDecay, Linear, Cosine]
FALLING = [WarmupStableDecay, Linear, Cosine]


def build(kind, total, warmup):
    more = {"decay_fraction": 0.5} if kind is WarmupStableDecay else {}
    return kind(total_steps=total, warmup_steps=warmup, **more)


def curve(schedule, total):
    return [schedule(step) for step in range(total)]


@given(kind=st.sampled_from(EVERY), total=st.integers(2, 200), share=st.floats(0, 0.5))
def test_it_rises_to_the_peak_and_never_again(kind, total, share):
    warmup = max(1, int(total * share))
    factors = curve(build(kind, total, warmup), total)
    assert factors[0] == 1 / warmup
    assert factors[: warmup - 1] == sorted(factors[: warmup - 1])
    assert factors[warmup - 1] == max(factors) == 1
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)


@given(kind=st.sampled_from(FALLING), total=st.integers(2, 200))
def test_zero_is_reached_when_the_run_is_over_and_no_sooner(kind, total):
    schedule = build(kind, total, warmup=0)
    assert schedule(total - 1) > 0
    assert schedule(total) == schedule(total + 10) == 0


@given(kind=st.sampled_from([Linear, Cosine]), floor=st.floats(0, 1))
def test_it_falls_to_the_floor(kind, floor):
    schedule = kind(total_steps=100, warmup_steps=10, floor=floor)
    assert min(schedule(step) for step in range(10, 100)) >= floor
    assert schedule(100) == floor


def test_the_plateau_lasts_until_the_decay():
    factors = curve(WarmupStableDecay(total_steps=100, decay_fraction=0.4), 100)
    assert factors[:61] == [1.0] * 61
    assert factors[80] == 0.5


def test_a_cosine_falls_as_its_paper_has_it():
    schedule = Cosine(total_steps=400, warmup_steps=0)
    expected = [(1 + math.cos(math.pi * step / 400)) / 2 for step in (100, 200, 300)]
    assert [schedule(step) for step in (100, 200, 300)] == pytest.approx(expected)


def test_inverse_sqrt_halves_when_the_steps_quadruple():
    schedule = InverseSqrt(warmup_steps=100)
    assert schedule(99) == 1
    assert schedule(399) == 0.5


@pytest.mark.parametrize("kind", EVERY)
def test_a_run_that_is_all_warm_up(kind):
    if kind is WarmupStableDecay:
        pytest.skip("its decay needs room")
    assert curve(build(kind, 10, warmup=10), 12)[9] == 1


@pytest.mark.parametrize("kind", EVERY)
def test_a_warm_up_longer_than_the_run_is_refused(kind):
    with pytest.raises(ValueError, match=r"^schedule.warmup_steps: 500 warm-up steps are longer than the run of 200"):
        build(kind, 200, warmup=500)


@pytest.mark.parametrize("kind", FALLING)
def test_without_a_number_of_steps_it_says_what_to_do(kind):
    with pytest.raises(ValueError, match=rf"^schedule: {kind.__name__} .* set max_steps"):
        build(kind, None, warmup=5)


@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("warmup_steps", lambda: Constant(warmup_steps=-1)),
        ("warmup_steps", lambda: InverseSqrt(warmup_steps=0)),
        ("warmup_steps", lambda: WarmupStableDecay(total_steps=100, warmup_steps=70, decay_fraction=0.4)),
        ("total_steps", lambda: Constant(total_steps=0)),
        ("decay_fraction", lambda: WarmupStableDecay(total_steps=10, decay_fraction=0.0)),
        ("decay_fraction", lambda: WarmupStableDecay(total_steps=10, decay_fraction=1.5)),
        ("floor", lambda: Linear(total_steps=10, warmup_steps=1, floor=-0.1)),
        ("floor", lambda: Cosine(total_steps=10, warmup_steps=1, floor=2.0)),
    ],
)
def test_impossible_values_are_named(option, make):
    with pytest.raises(ValueError, match=rf"^schedule.{option}: "):
        make()

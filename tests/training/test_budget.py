"""A run ends at the first limit that it reaches."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab.training.progress import Budget, Progress

NONE = {"max_steps": None, "max_epochs": None, "max_tokens": None, "max_minutes": None}
EPOCH = {"steps_per_epoch": 10, "tokens_per_epoch": 995}


@given(
    steps=st.none() | st.integers(1, 500),
    epochs=st.none() | st.integers(1, 9),
    tokens=st.none() | st.integers(100, 9000),
)
def test_the_smallest_limit_counts(steps, epochs, tokens):
    limits = {"max_steps": steps, "max_epochs": epochs, "max_tokens": tokens}
    if all(limit is None for limit in limits.values()):
        return
    budget = Budget(**EPOCH, **{**NONE, **limits})
    reached = [limit for limit in (steps, epochs and 10 * epochs, tokens and tokens * 10 // 995) if limit is not None]
    assert budget.total_steps == min(reached)
    assert budget.out_of_steps(Progress(step=min(reached)))
    assert not budget.out_of_steps(Progress(step=min(reached) - 1)) and not budget.out_of_time()


def test_a_token_budget_is_met_to_within_a_step():
    budget = Budget(**EPOCH, **{**NONE, "max_tokens": 5000})
    assert abs(budget.total_steps / 10 * 995 - 5000) < 100


def test_minutes_end_a_run_that_has_no_other_limit():
    budget = Budget(**EPOCH, **{**NONE, "max_minutes": 0.0005})
    assert budget.total_steps is None and not budget.out_of_steps(Progress(step=10**9))
    time.sleep(0.05)
    assert budget.out_of_time()


@pytest.mark.parametrize("limits, said", [({}, "no limit"), ({"max_tokens": 50}, "max_tokens")])
def test_a_budget_without_end_or_without_a_step_is_refused(limits, said):
    with pytest.raises(ValueError, match=said):
        Budget(**EPOCH, **{**NONE, **limits})

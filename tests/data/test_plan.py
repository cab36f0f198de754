"""The plan: every unit exactly once an epoch, whatever the devices, and the same again for the same seed."""

import time
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_lab.data.packing import Blocks
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.steps import Batch, Steps
from transformer_lab.data.store import Corpus, Ragged

SIZES = {"num_units": st.integers(1, 400), "units_per_step": st.integers(1, 50), "seed": st.integers(0, 2**40)}


@dataclass(frozen=True, eq=False)
class Pieces(Batch):
    pieces: list


def epoch_of(plan, epoch):
    first = epoch * plan.steps_per_epoch
    return np.concatenate([plan.step(first + k) for k in range(plan.steps_per_epoch)])


@settings(deadline=None)
@given(**SIZES, epoch=st.integers(0, 5))
def test_each_unit_comes_once_an_epoch(num_units, units_per_step, seed, epoch):
    plan = BatchPlan(num_units=num_units, units_per_step=units_per_step, seed=seed, data="d")
    assert sorted(epoch_of(plan, epoch)) == list(range(num_units))


@settings(deadline=None)
@given(**SIZES, number=st.integers(0, 10**12))
def test_a_step_is_a_function_of_its_number_alone(num_units, units_per_step, seed, number):
    make = lambda: BatchPlan(num_units=num_units, units_per_step=units_per_step, seed=seed, data="d")  # noqa: E731
    asked_before = make()
    asked_before.step(number + 3)
    assert (asked_before.step(number) == make().step(number)).all()


def test_epochs_seeds_and_data_have_orders_of_their_own():
    orders = [
        epoch_of(BatchPlan(num_units=500, units_per_step=7, seed=seed, data=data), epoch).tolist()
        for seed in (0, 1)
        for data in "ab"
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 8
    # No order is close to another, nor to the data's own: about 1 unit of 500 stands where it stood.
    for one in [*orders, list(range(500))]:
        assert sum(sum(a == b for a, b in zip(one, other, strict=True)) > 8 for other in orders) <= 1


def test_neighbours_are_scattered():
    """The mean distance of units that follow each other is a third of the range, as in a random order."""
    order = epoch_of(BatchPlan(num_units=10_000, units_per_step=10, seed=3, data="d"), 0)
    assert abs(np.abs(np.diff(order)).mean() / 10_000 - 1 / 3) < 0.02


@settings(deadline=None, max_examples=30)
@given(world_size=st.integers(1, 4), micro_batch_tokens=st.integers(1, 200), number=st.integers(0, 20))
def test_devices_and_micro_batches_share_a_step_without_loss(world_size, micro_batch_tokens, number):
    corpus = Corpus({"tokens": Ragged(np.arange(1000, dtype=np.uint16), np.array([0, 1000]))}, ("tokens",), 1000)
    packing = Blocks(corpus, 16)
    plan = BatchPlan(num_units=packing.num_units, units_per_step=12, seed=0, data="d")

    def take(corpus, pieces, key):
        assert key == plan.key(number // plan.steps_per_epoch)
        return Pieces(
            num_tokens=int(pieces["length"].sum()), num_targets={"tokens": len(pieces)}, pieces=pieces.tolist()
        )

    sizes = {"packing": packing, "plan": plan, "collate": take, "micro_batch_tokens": micro_batch_tokens}
    whole = Steps(**{**sizes, "micro_batch_tokens": 10**9})[number]
    parts = [Steps(**sizes, rank=rank, world_size=world_size)[number] for rank in range(world_size)]
    pieces = [piece for part in parts for batch in part.micro_batches for piece in batch.pieces]
    assert sorted(pieces) == sorted(whole.micro_batches[0].pieces)
    assert sum(part.tokens for part in parts) == whole.tokens
    assert sum(part.num_targets.get("tokens", 0) for part in parts) == whole.num_targets["tokens"]
    for part in parts:
        assert all(batch.num_tokens <= max(16, micro_batch_tokens) for batch in part.micro_batches)


def test_a_step_far_into_a_huge_epoch_is_computed_not_walked_to():
    plan = BatchPlan(num_units=10_000_000, units_per_step=64, seed=0, data="d")
    started = time.perf_counter()
    plan.step(57 * plan.steps_per_epoch - 2)
    assert time.perf_counter() - started < 1  # walking there would take minutes

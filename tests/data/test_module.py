"""The loaders: every step has the same examples whatever the ranks and workers, also when a run goes on with others."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from transformer_lab.data.module import DataModule, StepSampler
from transformer_lab.data.packing import Blocks
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.sealed import Sealed, seal
from transformer_lab.data.steps import LET_GO_EVERY, Batch, Steps
from transformer_lab.data.store import Corpus, Ragged

CORPUS = Corpus({"tokens": Ragged(np.arange(1000, dtype=np.uint16), np.array([0, 1000]))}, ("tokens",), 1000)
PACKING = Blocks(CORPUS, 16)
PLAN = BatchPlan(num_units=PACKING.num_units, units_per_step=7, seed=0, data="d")
MACHINES = list(itertools.product((1, 2, 3, 4), (0, 1, 4)))  # ranks, and loader workers of each


@dataclass(frozen=True, eq=False)
class Starts(Batch):
    begins: list


def take(corpus, pieces, key):
    return Starts(
        num_tokens=int(pieces["length"].sum()), num_targets={"tokens": len(pieces)}, begins=pieces["start"].tolist()
    )


def read(machine, first, last):
    """What all ranks together read in each of these steps."""
    world_size, workers = machine
    found = {number: [] for number in range(first, last)}
    for rank in range(world_size):
        steps = Steps(packing=PACKING, plan=PLAN, collate=take, micro_batch_tokens=32, rank=rank, world_size=world_size)
        sampler = StepSampler(now=lambda: first, due=lambda: False, every=10**9, last=last)
        module = DataModule(
            steps=steps, sampler=sampler, evaluation_sets={}, corpora={}, workers=workers, pin_memory=False
        )
        for step, number in zip(module.train_dataloader(), found, strict=True):
            assert step.number == number
            found[number] += [begin for batch in step.micro_batches for begin in batch.begins]
    return [sorted(begins) for begins in found.values()]


EPOCH = [sorted(PACKING.pieces(PLAN.step(number))["start"].tolist()) for number in range(PLAN.steps_per_epoch)]


@pytest.mark.parametrize(
    "machine", [(1, 4), (3, 1), *(pytest.param(one, marks=pytest.mark.battery) for one in MACHINES)]
)
def test_an_epoch_is_the_same_on_every_number_of_ranks_and_workers_also_gone_on_with_by_others(machine):
    """R5."""
    assert read(machine, 0, len(EPOCH)) == EPOCH
    assert sorted(itertools.chain(*EPOCH)) == list(range(0, 1000, 16))
    for left_at, other in zip((1, 4), ((2, 0), (4, 1)), strict=True):
        assert read(machine, 0, left_at) + read(other, left_at, len(EPOCH)) == EPOCH


def from_files():
    """Megabytes of files in this process' memory."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssFile"))


def test_a_run_does_not_hold_all_that_it_has_read_of_a_large_corpus(tmp_path):
    megabytes = 256
    (tmp_path / "values").write_bytes(bytes(megabytes << 20))
    seal(tmp_path)
    values = Sealed(tmp_path).array("values", "uint16")
    packing = Blocks(Corpus({"tokens": Ragged(values, np.array([0, len(values)]))}, ("tokens",), 1), 256)
    plan = BatchPlan(num_units=packing.num_units, units_per_step=7, seed=0, data="d")
    steps = Steps(packing=packing, plan=plan, collate=take, micro_batch_tokens=10**9)
    before = from_files()
    assert values[::1024].sum() == 0
    assert from_files() - before > 0.9 * megabytes
    for number in range(LET_GO_EVERY):
        steps[number]
    assert from_files() - before < 0.1 * megabytes

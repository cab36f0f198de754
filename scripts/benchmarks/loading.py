"""The loader: rows of 50 tokens from a corpus on disk to the batches of a step."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import Contender, Pace
from benchmarks.setting import Setting, rows
from transformer_lab.data.module import DataModule, StepSampler
from transformer_lab.data.packing import SPAN, Packs
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.sealed import Sealed, seal
from transformer_lab.data.steps import Steps
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.tasks.language_modeling import Collate

TITLE = "loader"
UNIT = "rows"
CASES = ("",)
ROWS, LENGTH, BATCH, VOCAB = 200_000, 50, 64, 8192


class OurLoader:
    differs = ""

    def __init__(self, name: str, column: Ragged, workers: int) -> None:
        self.name = name
        corpus = Corpus({"tokens": column}, ("tokens",), 1)

        def whole(corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
            offsets = corpus["tokens"].offsets[begin : end + 1]
            lengths = np.diff(offsets)
            return np.rec.fromarrays((offsets[:-1], lengths), dtype=SPAN), lengths, 0

        packs = Packs(corpus=corpus, capacity=LENGTH, layout=SPAN, pieces=whole, cache_key="whole")
        plan = BatchPlan(num_units=packs.num_units, units_per_step=BATCH, seed=0, data="benchmark")
        steps = Steps(packing=packs, plan=plan, collate=Collate(0), micro_batch_tokens=1 << 20)
        self.next = 0
        sampler = StepSampler(now=lambda: self.next, due=lambda: False, every=1 << 60, last=None)
        loaders = DataModule(
            steps=steps, sampler=sampler, evaluation_sets={}, corpora={}, workers=workers, pin_memory=False
        )
        self.loader = loaders.train_dataloader()

    def run(self, steps: int) -> Pace:
        source = iter(self.loader)
        next(source)  # its workers have started
        started = time.perf_counter()
        for _ in range(steps):
            self.next = next(source).number
        return Pace(steps * BATCH, time.perf_counter() - started, steps)


class Rows(Dataset[torch.Tensor]):
    def __init__(self, column: Ragged) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self.column[row].astype(np.int64))


class TorchLoader:
    differs = "one row at a time, stacked"

    def __init__(self, name: str, column: Ragged, workers: int) -> None:
        self.name = name
        self.loader: Any = DataLoader(Rows(column), batch_size=BATCH, shuffle=True, num_workers=workers)

    def run(self, steps: int) -> Pace:
        source = iter(self.loader)
        next(source)
        started = time.perf_counter()
        for _ in range(steps):
            next(source)
        return Pace(steps * BATCH, time.perf_counter() - started, steps)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    folder = tempfile.TemporaryDirectory()
    made = rows(np.full(ROWS, LENGTH), VOCAB)
    (Path(folder.name) / "values").write_bytes(made.values[:].tobytes())
    seal(Path(folder.name))
    column = Ragged(Sealed(Path(folder.name)).array("values", "uint16"), made.offsets)

    def ours(name: str, workers: int) -> Contender:
        loader = OurLoader(name, column, workers)
        loader.folder = folder  # type: ignore[attr-defined]  # stays for as long as it is read
        return loader

    for workers in (0, 2):
        for name, make in (("transformer_lab", ours), ("torch DataLoader", lambda n, w: TorchLoader(n, column, w))):
            words = f"{name}, {workers} workers" if workers else name
            yield words, lambda make=make, words=words, workers=workers: make(words, workers)  # type: ignore[misc]


def seek(examples: int = 10_000_000, epoch: int = 7, tries: int = 50) -> float:
    """Milliseconds to find which examples make a step in the middle of an epoch of so many; the median."""
    plan = BatchPlan(num_units=examples, units_per_step=BATCH, seed=0, data="benchmark")
    draw = np.random.default_rng(0)
    times = []
    for _ in range(tries):
        step = epoch * plan.steps_per_epoch + int(draw.integers(plan.steps_per_epoch))
        started = time.perf_counter()
        plan.step(step)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))

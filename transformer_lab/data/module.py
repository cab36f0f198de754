"""The loaders that Lightning asks for."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from transformer_lab.data import workers
from transformer_lab.data.examples import Split
from transformer_lab.data.steps import Batch, EvaluationSet, Step, Steps
from transformer_lab.data.store import Corpus


class StepSampler(Sampler[int]):
    """The numbers of the steps from where the run stands to the next validation; has no state of its own.

    Where that validation is `due` already, the step before it comes once more, to be passed over.
    """

    def __init__(self, *, now: Callable[[], int], due: Callable[[], bool], every: int, last: int | None) -> None:
        if every < 1:
            raise ValueError(f"validate_every_steps: {every} is too small; at least 1")
        self.now, self.due, self.every, self.last = now, due, every, last

    def __iter__(self) -> Iterator[int]:
        step = self.now()
        if self.due():
            yield step - 1
            return
        yield step
        while not self.ends(step := step + 1):
            yield step

    def ends(self, step: int) -> bool:
        """Whether a validation follows once `step` steps are done."""
        return step % self.every == 0 or step == self.last


class Shard(Dataset[Batch | None]):
    """The batches of one rank; None in the end where another rank has one more, so that all do the same."""

    def __init__(self, batches: EvaluationSet, rank: int, world_size: int) -> None:
        self.batches, self.rank, self.world_size = batches, rank, world_size

    def __len__(self) -> int:
        return -(-len(self.batches) // self.world_size)

    def __getitem__(self, index: int) -> Batch | None:
        own = index * self.world_size + self.rank
        return self.batches[own] if own < len(self.batches) else None


class Loader(DataLoader[Any]):
    """Starts its workers while signals wait: none of them is ever without a way to meet one."""

    def __iter__(self) -> Any:
        with workers.blocked():
            return super().__iter__()


class DataModule(LightningDataModule):
    """Training by steps; validation over the whole split.

    What Lightning calls an epoch are the steps up to a validation. Epochs of the data are counted by the plan.
    """

    def __init__(
        self,
        *,
        steps: Steps,
        sampler: StepSampler,
        evaluation_sets: dict[Split, EvaluationSet],
        corpora: dict[Split, Corpus],
        workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__()
        self.steps, self.sampler, self.evaluation_sets, self.corpora = steps, sampler, evaluation_sets, corpora
        self.workers, self.pin_memory = workers, pin_memory

    def train_dataloader(self) -> DataLoader[Step]:
        return self._loader(self.steps, sampler=self.sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(Shard(self.evaluation_sets["validation"], self.steps.rank, self.steps.world_size))

    def _loader(self, dataset: Steps | Shard, **more: Any) -> DataLoader[Any]:
        # Items are whole steps already, so nothing is left to collate (batch_size=None).
        return Loader(
            dataset,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            worker_init_fn=partial(workers.begin, os.getpid()),
            **more,
        )

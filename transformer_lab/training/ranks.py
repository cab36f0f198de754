"""Ranks: the processes that train one model together, each with a shard of every step, and what they exchange.

With one process alone, everything here costs nothing and changes nothing.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from transformer_lab.training.contact import meet, minutes, place
from transformer_lab.training.faults import (
    Halted,
    LostContact,
    NoContact,
    NoWord,
    lost_contact,
    out_of_memory,
    worker_died,
)
from transformer_lab.training.waiting import Watch, waiting

T = TypeVar("T")
PATIENCE = timedelta(hours=6)  # while one rank of a machine prepares the data for the others

NEARLY = 0.9  # of a limit: ranks that wait for the same one give up at about the same time, and see each other go
GONE = "hardware.devices: another rank is gone, so this one cannot go on"

_limit = timedelta(minutes=10)  # of every other wait; `joined` is told
_patient: distributed.ProcessGroup | None = None  # all ranks once more, with PATIENCE


def rank() -> int:
    """Of this process among all; torchrun's variables, which `launch` sets as well."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device: torch.device, limit: timedelta) -> Iterator[None]:
    """Get into contact with the other ranks, for as long as this lasts; wait for none of them longer than `limit`.

    Raises ValueError or NoContact where that fails, and LostContact for an error inside that says others are gone.
    """
    if world_size() == 1:
        yield
        return
    watch = Watch(first=_first())
    watch.start()
    try:
        _join(device, limit)
        yield
    except RuntimeError as error:  # NCCL's come later than what they are about
        if isinstance(error, Halted) or not lost_contact(error):
            raise
        raise LostContact(GONE) from error
    finally:
        watch.close()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _join(device: torch.device, limit: timedelta) -> None:
    global _limit, _patient
    with waiting("the other ranks to get into contact", limit):
        store = meet(limit)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["LOCAL_WORLD_SIZE"])))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    through = os.environ.get("GLOO_SOCKET_IFNAME", "the network that their names lead to")
    failed = (
        f"{place()}: the ranks have met there, but cannot talk to each other through {through}; "
        "GLOO_SOCKET_IFNAME=INTERFACE names another way"
    )
    try:
        with waiting("the other ranks to get into contact", limit, failed):  # gloo may wait for ever for a call
            distributed.init_process_group(backend, store=store, timeout=limit, rank=rank(), world_size=world_size())
            _patient = distributed.new_group(backend="gloo", timeout=PATIENCE)
    except RuntimeError as error:
        raise NoContact(failed) from error
    _limit = limit


def _first() -> bool:
    """Of this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def first_of_machine() -> Iterator[None]:
    """The first rank of each machine goes ahead, the others follow: what it has put in the cache, they find there."""
    if not _first():
        _wait_patiently()
    yield
    if _first():
        _wait_patiently()


def _wait_patiently() -> None:
    if world_size() > 1:
        with together("the first rank of each machine, which prepares the data,", PATIENCE):
            distributed.barrier(_patient)


@contextmanager
def together(whom: str = "the other ranks", limit: timedelta | None = None) -> Iterator[None]:
    """What is done here needs all ranks; raises LostContact where one fails to take part.

    gloo has no type for what goes wrong, and many words for it: so it counts that it goes wrong here, and when.
    """
    limit, began = limit or _limit, time.monotonic()
    try:
        with waiting(whom, limit):
            yield
    except RuntimeError as error:
        if out_of_memory(error) or worker_died(error):
            raise
        if time.monotonic() - began < NEARLY * limit.total_seconds():
            raise LostContact(GONE) from error
        raise NoWord(
            f"hardware.timeout_minutes: no word from the other ranks for {minutes(limit)}, so this one cannot go on"
        ) from error


def barrier() -> None:
    """… until every rank has come here."""
    if world_size() > 1:
        with together():
            distributed.barrier()


def broadcast(value: T) -> T:
    """What rank 0 has."""
    if world_size() == 1:
        return value
    values = [value]
    with together():
        distributed.broadcast_object_list(values)
    return values[0]


def all_gather(value: T) -> list[T]:
    """What each rank has, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with together():
        distributed.all_gather_object(values, value)
    return values


def shard(count: int) -> range:
    """Of so many items those of this rank; the ranks take turns."""
    return range(rank(), count, world_size())


def all_reduce(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes its sum over all ranks."""
    if world_size() > 1:
        with together():
            for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()


def gradients(module: nn.Module) -> list[Tensor]:
    """Of all trained parameters, zero where a rank had nothing to learn from."""
    found = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(parameter.grad)
    return found

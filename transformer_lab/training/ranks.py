"""Ranks: the processes that train one model together, each with a share of every step, and what they agree on.

With one process alone, everything here costs nothing and changes nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
MEETING = "TRANSFORMER_LAB_RANKS"  # names a file of ours, where ranks of one machine meet without an open port
PATIENCE = timedelta(hours=6)  # one prepares the data while the others wait; a rank that is dead is noticed at once


def rank() -> int:
    """Of this process among all; torchrun's variables, which `launch` sets as well."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Get into contact with the other ranks, for as long as this lasts."""
    if world_size() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["LOCAL_WORLD_SIZE"])))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    where = os.environ.get(MEETING, "env://")
    distributed.init_process_group(backend, where, timeout=PATIENCE, rank=rank(), world_size=world_size())
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def first_of_machine() -> Iterator[None]:
    """The first rank of each machine goes ahead, the others follow: what it has put in the cache, they find there."""
    first = world_size() == 1 or os.environ["LOCAL_RANK"] == "0"
    if not first:
        wait()
    yield
    if first:
        wait()


def wait() -> None:
    """… until every rank has come here."""
    if world_size() > 1:
        distributed.barrier()


def agree(value: T) -> T:
    """What rank 0 has."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def gathered(value: T) -> list[T]:
    """What each rank has, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def share(count: int) -> range:
    """Of so many items those of this rank; the ranks take turns."""
    return range(rank(), count, world_size())


def add_up(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes its sum over all ranks."""
    if world_size() > 1:
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

"""What ends a run before its time, each told in one line."""

import traceback

import torch

from transformer_lab.folders import FULL


class Halted(RuntimeError):
    """The run cannot go on; the message says why, and what to do about it. Nothing that was saved is lost by it."""


class NotSaved(Halted):
    """A checkpoint could not be written."""


class Interrupted(Halted):
    """A process that the run needs was ended from outside; the run itself can go on another time."""


class LostContact(Interrupted):
    """Another rank is gone; why, only that one could tell."""


class NoWord(LostContact):
    """Another rank, or the way to it, stands still."""


class NoContact(Interrupted):
    """The ranks of a run have not found each other."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no room left. (PyTorch has no type for the latter.)"""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def no_room(error: BaseException | None) -> OSError | None:
    """The error, or the one behind it, that says that the disk is full."""
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__ or error.__context__
    return error


def worker_died(error: BaseException) -> bool:
    """Whether an error says that a loader process is gone: PyTorch's own word (it has no type for it), or a connection
    that broke while something was fetched from that process."""
    if isinstance(error, EOFError | OSError):
        return any(frame.name == "_try_get_data" for frame in traceback.extract_tb(error.__traceback__))
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def lost_contact(error: RuntimeError) -> bool:
    """Whether an error says by itself that another rank is gone. (gloo has no type for it.)"""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)

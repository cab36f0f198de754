"""Loader workers leave signals to the run: what is sent to all processes at once reaches it, and it then ends them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What asks a run to save and leave: schedulers, terminals, Ctrl-C, limits of time.
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
TOLD_APART = hasattr(signal, "sigwaitinfo")  # who has sent a signal: without that, a worker obeys them all


@contextmanager
def blocked() -> Iterator[None]:
    """Signals wait, also in processes that are started here, until each lets them through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS if TOLD_APART else ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin(parent: int, worker: int) -> None:
    """In a new worker: end with the parent, and at its word alone.

    PyTorch's workers end with their parent, but not if it is dead before they begin to look: that is seen here.
    """
    served = multiprocessing.get_start_method() == "forkserver"  # by a process that is the parent of all
    if not (multiprocessing.parent_process().is_alive() if served else os.getppid() == parent):  # type: ignore[union-attr]
        os._exit(1)
    if TOLD_APART:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_obey, args=(parent,), daemon=True).start()


def _obey(parent: int) -> None:
    while True:
        if signal.sigwaitinfo(SIGNALS).si_pid == parent:
            os._exit(0)

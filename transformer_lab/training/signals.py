"""Signals that ask a run to end, such as SIGTERM and Ctrl-C: the step in hand is finished and saved, then it leaves."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn

from transformer_lab.data.workers import SIGNALS

log = logging.getLogger(__name__)
EXIT = 128  # a process that a signal ends has this much more than its number as exit code: 130 and 143


class Signals(Callback):
    """Ends training by SystemExit at the next step, or batch of a validation; a second Ctrl-C ends it at once.

    The first signal counts. One that is ignored when the run begins, as nohup has it, stays so. `unread` says that
    nobody reads any more what the run says, which is taken for SIGPIPE. What is to be saved is up to the other
    callbacks' `on_exception`.
    """

    def __init__(self, *, unread: Callable[[], bool]) -> None:
        self.unread = unread
        # Asked for now: once training begins, it is Lightning that listens.
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        self.obeyed: list[int] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def note(number: int, frame: FrameType | None) -> None:
            pl_module.received = pl_module.received or number
            if signal.SIGINT in self.obeyed:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            log.info("%s: saving after this step; Ctrl-C ends the run at once", signal.Signals(number).name)

        here = threading.current_thread() is threading.main_thread()  # no other may ask for signals
        self.obeyed = [number for number in SIGNALS if here and signal.getsignal(number) != signal.SIG_IGN]
        for number in self.obeyed:
            signal.signal(number, note)
        if trainer.received_sigterm:  # to Lightning, which has listened until now, and would end with exit code 0
            self._leave(signal.SIGTERM)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        # Several ranks leave together: at a step at whose start all of them knew.
        self._notice(pl_module)
        self._leave(pl_module.leaving if trainer.world_size > 1 else pl_module.received)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING:
            self._notice(pl_module)
            self._leave(pl_module.received)

    def _notice(self, pl_module: Any) -> None:
        if pl_module.received is None and self.unread():
            pl_module.received = int(signal.SIGPIPE)

    def _leave(self, number: int | None) -> None:
        if number is not None:
            raise SystemExit(EXIT + number)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        for number in self.obeyed:
            signal.signal(number, self.before[number])
        self.obeyed = []


@contextmanager
def children_wait() -> Iterator[None]:
    """What is raised when a child is found dead, wherever the process happens to be (PyTorch does so for its loader
    workers), is raised once this is over."""
    before = signal.getsignal(signal.SIGCHLD)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    died: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGCHLD, lambda *given: died.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
    if died:
        before(*died[-1])

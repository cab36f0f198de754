"""SIGTERM and SIGINT (Ctrl-C): the step in hand is finished and saved, then the run ends."""

import logging
import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn

log = logging.getLogger(__name__)
EXIT = 128  # a process that a signal ends has this much more than its number as exit code: 130 and 143


class Signals(Callback):
    """Ends training by SystemExit at the next step or batch of a validation; a second Ctrl-C ends it at once.

    What is to be saved then is up to the other callbacks' `on_exception`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        log.info("%s: saving after this step; Ctrl-C ends the run at once", signal.Signals(number).name)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._leave()

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._leave()

    def _leave(self) -> None:
        if self.received is not None:
            raise SystemExit(EXIT + self.received)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

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
    """Ends training by SystemExit at the next step, or batch of a validation; a second Ctrl-C ends it at once.

    What is to be saved then is up to the other callbacks' `on_exception`.
    """

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def note(number: int, frame: FrameType | None) -> None:
            pl_module.received = number
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            log.info("%s: saving after this step; Ctrl-C ends the run at once", signal.Signals(number).name)

        self.before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        # Several ranks leave together: at a step at whose start all of them knew.
        self._leave(pl_module.leaving if trainer.world_size > 1 else pl_module.received)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING:
            self._leave(pl_module.received)

    def _leave(self, number: int | None) -> None:
        if number is not None:
            raise SystemExit(EXIT + number)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

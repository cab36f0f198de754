"""What a rank says while it waits for others, and what ties it to whoever started it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

log = logging.getLogger(__name__)
STARTED_BY = os.getppid()


class _Wait:
    """What the main thread waits for at present; None between two waits."""

    def __init__(self, whom: str, limit: timedelta | None) -> None:
        self.whom, self.limit, self.since = whom, limit, time.monotonic()


_now: _Wait | None = None


@contextmanager
def waiting(whom: str, limit: timedelta | None) -> Iterator[None]:
    """This rank waits, for as long as this lasts; `limit` is when it will give up."""
    global _now
    before, _now = _now, _Wait(whom, limit)
    try:
        yield
    finally:
        _now = before


class Watch(threading.Thread):
    """Says each minute for what the main thread waits, and ends the process if that which has started it is gone.

    Of several ranks on a machine, the first speaks. A torchrun that is killed leaves its ranks behind: they get a
    SIGTERM from here, so that all save and leave together.
    """

    def __init__(self, *, first: bool, started_by: int = STARTED_BY, minute: float = 60.0) -> None:
        super().__init__(name="watch", daemon=True)
        self.started_by, self.minute = started_by, minute
        self.over = threading.Event()
        log.setLevel(logging.INFO if first else logging.CRITICAL)  # though other machines' logs are silent

    def run(self) -> None:
        said: tuple[_Wait | None, int] = None, 0
        while not self.over.wait(min(1.0, self.minute / 2)):
            if os.getppid() != self.started_by:
                log.warning("What has started this rank (process %s) is gone, so it ends as well", self.started_by)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            wait = _now
            number = int((time.monotonic() - wait.since) / self.minute) if wait else 0
            if wait and number and said != (wait, number):
                said = wait, number
                limit = f"; the limit is {wait.limit.total_seconds() / 60:g}" if wait.limit else ""
                log.info("Waiting for %s for %s minute%s%s", wait.whom, number, "s" * (number > 1), limit)

"""What a rank says while it waits for others, and what ties it to whoever started it."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

log = logging.getLogger(__name__)
STARTED_BY = os.getppid()  # where that is not another Python of this program, which says so itself
STUCK = 3.0  # seconds that a wait has lasted when a signal is taken to have come in it


class _Wait:
    """What the main thread waits for at present; None between two waits."""

    def __init__(self, whom: str, limit: timedelta | None, last_word: str | None) -> None:
        self.whom, self.limit, self.last_word, self.since = whom, limit, last_word, time.monotonic()

    def over(self) -> bool:
        """Whether it is to be ended from outside."""
        return bool(self.last_word and self.limit and time.monotonic() - self.since > self.limit.total_seconds())


_now: _Wait | None = None


@contextmanager
def waiting(whom: str, limit: timedelta | None, last_word: str | None = None) -> Iterator[None]:
    """This rank waits, for as long as this lasts; `limit` is when it will give up.

    Of what does not give up by itself the process is ended, with a last word.
    """
    global _now
    before, _now = _now, _Wait(whom, limit, last_word)
    try:
        yield
    finally:
        _now = before


def _left_alone() -> bool:
    """Whether what has started this process is gone."""
    starter = multiprocessing.parent_process()
    return os.getppid() != STARTED_BY if starter is None else not starter.is_alive()


class Watch(threading.Thread):
    """Says each minute for what the main thread waits, and ends the process if that which has started it is gone.

    Of several ranks on a machine, the first speaks. A torchrun that is killed leaves its ranks behind: they get a
    SIGTERM from here, so that all save and leave together. A second Ctrl-C ends a wait: the handlers of signals run in
    the main thread, which hears of none until the other ranks answer. To be made there.
    """

    def __init__(self, *, first: bool, minute: float = 60.0) -> None:
        super().__init__(name="watch", daemon=True)
        self.minute = minute
        self.over = threading.Event()
        self.signals, written = os.pipe()  # of each signal its number, as soon as it is here
        for end in (self.signals, written):
            os.set_blocking(end, False)
        self.before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        self.interrupted: _Wait | None = None  # the last wait that Ctrl-C came in
        log.setLevel(logging.INFO if first else logging.CRITICAL)  # though other machines' logs are silent

    def close(self) -> None:
        self.over.set()
        self.join()
        os.close(signal.set_wakeup_fd(self.before))
        os.close(self.signals)

    def run(self) -> None:
        said: tuple[_Wait | None, int] = None, 0
        while not self.over.wait(min(1.0, self.minute / 2)):
            wait = _now
            self._look_for_interrupts(wait)
            if wait and wait.over():
                print(f"error: {wait.last_word}", file=sys.stderr, flush=True)
                os._exit(1)
            if _left_alone():
                log.warning("What has started this rank is gone, so it ends as well")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            number = int((time.monotonic() - wait.since) / self.minute) if wait else 0
            if wait and number and said != (wait, number):
                said = wait, number
                limit = f"; the limit is {wait.limit.total_seconds() / 60:g}" if wait.limit else ""
                log.info("Waiting for %s for %s minute%s%s", wait.whom, number, "s" * (number > 1), limit)

    def _look_for_interrupts(self, wait: _Wait | None) -> None:
        try:
            come = signal.SIGINT in os.read(self.signals, 4096)  # once, though forked loader processes write here, too
        except BlockingIOError:
            return
        if wait is None or time.monotonic() - wait.since < STUCK or not come:
            return
        if self.interrupted is wait:
            os._exit(128 + signal.SIGINT)
        self.interrupted = wait
        log.info("SIGINT: seen to as soon as %s answer; Ctrl-C ends the run at once", wait.whom)

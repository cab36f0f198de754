"""A run in this process, or in as many as `hardware.devices` says; and how its end becomes an exit code."""

import gc
import os
import signal
import sys
import tempfile
import threading
from multiprocessing import forkserver
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any

from transformer_lab.composition.importing import importable
from transformer_lab.composition.problems import fail, full_error
from transformer_lab.data.sealed import Damaged
from transformer_lab.data.workers import SIGNALS, blocked
from transformer_lab.training.contact import MEETING
from transformer_lab.training.faults import Halted, Interrupted, LostContact, NoWord, no_room

Told = tuple[int, str, int, bool]  # how little a rank knows of the cause, its line, exit code, and `again` of `fail`
GRACE = 10.0  # seconds for the other ranks to leave on their own, and again after SIGTERM


def launch(values: dict[str, Any]) -> None:
    """Train with a checked config. Ends the process with one line for what can be told in one."""
    devices = values["hardware"].get("devices", 1)
    if devices > 1 and "RANK" not in os.environ:  # else torchrun or srun has started the ranks
        _launch_ranks(values, devices)
        return
    try:
        _train(values)
    except (ValueError, Halted) as error:
        if full_error():
            raise
        fail([str(error)], _code(error), again=_again(error))


def _train(values: dict[str, Any]) -> None:
    from transformer_lab.run.train import train  # its imports take seconds

    if not gc.isenabled():  # the command line's doing; in Python it is the user's own
        gc.freeze()  # what is imported stays
        gc.enable()

    def told(thread: threading.ExceptHookArgs) -> None:  # TensorBoard writes in one, and lets the run know
        if no_room(thread.exc_value) is None:
            threading.__excepthook__(thread)

    threading.excepthook = told
    try:
        train(**values)
    except OSError as error:
        if no_room(error) is None:
            raise
        what = error.filename or "a file of the run"
        raise Halted(f"{what} cannot be written: {error.strerror}; what was saved before stays") from error


def _code(error: BaseException) -> int:
    """2 for what the user has to change, 1 for a run that cannot go on."""
    return 2 if isinstance(error, ValueError) and not _again(error) else 1


def _again(error: BaseException) -> bool:
    """Whether the same command would go on: nothing has to be changed."""
    return isinstance(error, Interrupted | Damaged)


def _launch_ranks(values: dict[str, Any], devices: int) -> None:
    """Start a process for each rank, and end with all of them as soon as one ends badly."""
    from torch import multiprocessing

    method = _start_method(values["hardware"])
    with tempfile.TemporaryDirectory() as private:
        with blocked():  # for good in the processes that Python starts to help, which have nothing to save
            errors: SimpleQueue[Told] = multiprocessing.get_context(method).SimpleQueue()
            given = (devices, f"{private}/ranks", values, errors)
            ranks = multiprocessing.start_processes(_rank, given, nprocs=devices, join=False, start_method=method)

        def hand_on(number: int, frame: FrameType | None) -> None:
            for process in ranks.processes:
                if process.is_alive():
                    os.kill(process.pid, number)

        before = {number: signal.signal(number, hand_on) for number in SIGNALS}
        try:
            while not ranks.join(grace_period=GRACE):
                pass
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException) as error:
            told = []
            while not errors.empty():
                told.append(errors.get())
            if told:  # the cause is what one rank has to say, the others have only noticed
                _, line, code, again = min(told)
                fail([line], code, again=again)
            if isinstance(error, multiprocessing.ProcessRaisedException):
                raise
            if error.exit_code < 0:
                fail([f"hardware.devices: rank {error.error_index} was ended by {error.signal_name}"], 1, again=True)
            raise SystemExit(error.exit_code) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _start_method(hardware: dict[str, Any]) -> str:
    """Ranks on a CPU are forked from one process that has imported everything; CUDA cannot be used in a fork."""
    from transformer_lab.composition.build import build

    if sys.platform != "linux" or build(hardware).device.type != "cpu":
        return "spawn"
    forkserver.set_forkserver_preload(["transformer_lab.run.train"])
    return "forkserver"


def _rank(index: int, devices: int, meeting: str, values: dict[str, Any], errors: "SimpleQueue[Told]") -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    importable(values["extensions"])
    os.setpgrp()  # Ctrl-C reaches the parent alone, which hands it on once
    os.environ |= {
        MEETING: meeting,
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "GROUP_RANK": "0",
    }
    try:
        _train(values)
    except (ValueError, Halted) as error:
        if full_error():
            raise
        # Who has only noticed that another one is gone knows least; who has waited in vain, a little more.
        hearsay = isinstance(error, LostContact) + (isinstance(error, LostContact) and not isinstance(error, NoWord))
        errors.put((hearsay, str(error), _code(error), _again(error)))
        raise SystemExit(_code(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

"""From the command to the end of the first step, data prepared; against what importing torch and Lightning takes."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from benchmarks.measure import Contender, Pace
from benchmarks.setting import Setting
from benchmarks.storing import write_text

TITLE = "start to the first step"
UNIT = "starts"
CASES = ("",)
ROOT = Path(__file__).parents[2]


class Leave(Callback):
    """Ends the process behind its first step."""

    def on_train_batch_end(self, *_: Any) -> None:
        os._exit(0)


class Process:
    """A process from start to end, in CPU seconds, which on a machine that does other work are the steadier; or by the
    clock."""

    folder: tempfile.TemporaryDirectory[str] | None = None  # that it reads

    def __init__(self, name: str, words: list[str], differs: str = "", *, by_clock: bool = False) -> None:
        self.name, self.words, self.differs, self.by_clock = name, words, differs, by_clock

    def run(self, steps: int) -> Pace:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
        subprocess.run([sys.executable, *self.words], check=True, capture_output=True, env=environment)
        if self.by_clock:
            return Pace(1, time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Pace(1, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    folder = tempfile.TemporaryDirectory()
    write_text(Path(folder.name) / "text.txt", 1_000_000)
    leave = ["callbacks.leave._target_=benchmarks.starting.Leave", "extensions=[benchmarks]"]

    def ours() -> Contender:
        words = [
            "task=language_modeling",
            "data=text",
            f"data.path={folder.name}/text.txt",
            *leave,
            f"cache_dir={folder.name}/cache",
            f"run_dir={folder.name}/run",
            "resume=auto",
        ]
        process = Process("transformer_lab", [str(ROOT / "train.py"), *words])
        process.folder = folder  # stays for as long as it is read
        return process

    yield "transformer_lab", ours
    imports = "import torch, lightning.pytorch"
    yield "imports alone", lambda: Process("imports alone", ["-c", imports], imports)


def wall() -> float:
    """Seconds to the first step by the clock."""
    process = next(contenders(Setting("cpu", "fp32", "", "small")))[1]()
    process.run(1)  # prepares the data
    started = time.perf_counter()
    process.run(1)
    return time.perf_counter() - started

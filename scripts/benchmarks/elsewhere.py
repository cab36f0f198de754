"""An older clone of this project as a contender: in a process of its own, with the code and configs of its folder."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Contender, Pace
from benchmarks.setting import Setting

OURS = ("transformer_lab", "transformer_lab, default recipe")


class Elsewhere:
    """A contender that the clone in `folder` calls `wanted`; it works while it is asked to, and not else.

    Raises ImportError where that clone has no such contender, or one that cannot be built.
    """

    def __init__(self, folder: Path, work: str, setting: Setting, wanted: str, name: str, differs: str) -> None:
        self.name, self.differs, self.beside = name, differs, wanted
        words = [sys.executable, "-c", WORKER, str(folder), work, wanted, json.dumps(asdict(setting))]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        self.pid = self.process.pid
        self._answer()

    def run(self, steps: int) -> Pace:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return Pace(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.process.stderr.read().strip().splitlines() or ["it says nothing"]
            raise ImportError(f"{self.name}: {said[-1]}")
        found: dict[str, Any] = json.loads(line)
        return found


# What runs there: paths are those of the folder, so that nothing of this clone is measured.
WORKER = """
import importlib, json, os, sys, warnings
from dataclasses import asdict
folder, work, wanted, setting = sys.argv[1:]
sys.path[:0] = [folder, os.path.join(folder, "scripts")]
warnings.filterwarnings("ignore")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from benchmarks.setting import Setting
makers = dict(importlib.import_module(f"benchmarks.{work}").contenders(Setting(**json.loads(setting))))
contender = makers[wanted]()
print("{}", file=answers)
for steps in sys.stdin:
    print(json.dumps(asdict(contender.run(int(steps)))), file=answers)
"""


def contenders(folder: Path, work: str, setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """Our models as that clone builds them: in the precision of this one, and where that is not fp32, in fp32 too."""
    commit = subprocess.run(
        ["git", "-C", folder, "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    settings = (
        [setting]
        if not setting.machine.bf16
        else [replace(setting, precision="bf16"), replace(setting, precision="fp32")]
    )
    for wanted in OURS:
        for each in settings:
            precision = f", {each.precision}" if len(settings) > 1 else ""
            name = f"{wanted} at {commit or folder.name}{precision}"
            yield name, partial(Elsewhere, folder, work, each, wanted, name, "an older state of this project")

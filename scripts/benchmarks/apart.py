"""Each contender in a process of its own, of this clone or of an older one: what one imports, sets or leaves in memory
is nothing to the others, and its memory is its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.measure import Pace
from benchmarks.setting import Setting

ROOT = Path(__file__).parents[2]
OURS = ("transformer_lab", "transformer_lab, default recipe")


class Apart:
    """The contender of a row that the clone in `folder` calls `wanted`; it works while it is asked to, and not else.

    Raises ImportError where that clone has no such contender, or one that cannot be built.
    """

    def __init__(
        self, folder: Path, work: str, setting: dict[str, Any], wanted: str, name: str = "", differs: str | None = None
    ) -> None:
        self.name = name or wanted
        words = [sys.executable, "-c", WORKER, str(folder), work, wanted, json.dumps(setting)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        found = self._answer()
        self.differs: str = found["differs"] if differs is None else differs
        self.flops_per_token: float | None = found["flops_per_token"]
        self.cycle: int = found["cycle"]
        if name:
            self.beside = wanted

    def run(self, steps: int) -> Pace:
        return Pace(**self._ask(steps))

    def megabytes(self) -> float:
        """What it has needed at the most, its weights among it, beyond what it has imported."""
        return float(self._ask(0)["megabytes"])

    def close(self) -> None:
        """Let it go, with the folders that it has made."""
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def _ask(self, steps: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.process.communicate()[1].strip().splitlines() or ["it says nothing"]
            raise ImportError(said[-1])
        found: dict[str, Any] = json.loads(line)
        return found


# What runs there. Its paths are those of the folder, so that nothing of this clone is measured.
WORKER = """
import importlib, json, os, sys, warnings
from dataclasses import asdict
folder, work, wanted, setting = sys.argv[1:]
sys.path[:0] = [folder, os.path.join(folder, "scripts")]
warnings.filterwarnings("ignore")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
import torch
from benchmarks.measure import resident
from benchmarks.setting import Setting
setting = Setting(**json.loads(setting))
makers = dict(importlib.import_module(f"benchmarks.{work}").contenders(setting))
if wanted.endswith("in a plain loop"):
    next(iter(makers.values()))()  # whose model it is
contender = makers[wanted]()
pid = getattr(contender, "pid", "self")
if pid == "self":
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # what building it took at the most is no longer counted
module = getattr(contender, "module", None)
model = getattr(contender, "task", getattr(contender, "model", None))
cuda = setting.device.type == "cuda"
weights = 0 if model is None or cuda else sum(p.nbytes for p in model.parameters()) / 2**20
before = 0 if cuda else resident("VmRSS", pid) - weights
told = {"differs": contender.differs, "cycle": getattr(contender, "cycle", 0), "flops_per_token": None}
if module is not None:
    told["flops_per_token"] = getattr(module.speed, "flops_per_token", None)
print(json.dumps(told), file=answers)
for steps in sys.stdin:
    if int(steps):
        print(json.dumps(asdict(contender.run(int(steps)))), file=answers)
    else:
        most = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident("VmHWM", pid) - before
        print(json.dumps({"megabytes": most}), file=answers)
"""


def contenders(work: ModuleType, title: str, setting: Setting) -> Iterator[tuple[str, Callable[[], Apart]]]:
    """Those of a row of this clone."""
    for wanted, _ in work.contenders(setting):
        yield wanted, partial(Apart, ROOT, title, asdict(setting), wanted)


def older(folder: Path, work: ModuleType, title: str, setting: Setting) -> Iterator[tuple[str, Callable[[], Apart]]]:
    """Our models as the clone in a folder builds them: in the precision of this one, and where that is not fp32, in
    fp32 too. Each is compared with today's of the same recipe."""
    asked = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or folder.name
    settings = [setting]
    if setting.machine.bf16:
        settings = [replace(setting, precision=precision) for precision in ("bf16", "fp32")]
    for wanted in (name for name, _ in work.contenders(setting) if name in OURS):
        for each in settings:
            name = f"{wanted} at {commit}" + (f", {each.precision}" if len(settings) > 1 else "")
            known = {key: value for key, value in asdict(each).items() if key != "nanogpt"}
            yield name, partial(Apart, folder.resolve(), title, known, wanted, name, "an older state of this project")

"""Contenders side by side: alternating rounds, medians and ratios, and what the machine could do."""

import contextlib
import math
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

SECONDS = 3.0  # of a contender in a round, where nothing else is said


@dataclass(frozen=True)
class Pace:
    """What a contender did in a round: useful tokens (padding is none) or other items, in how many seconds."""

    items: float
    seconds: float
    steps: int = 1

    @property
    def rate(self) -> float:
        return self.items / self.seconds


class Contender(Protocol):
    name: str
    differs: str  # from the first contender of its row, in the maths or in what is done
    # beside: the name of the contender that it is compared with, where that is not the first
    # cycle: how many steps it takes at least, where its batches change their size from one to the next in an order

    def run(self, steps: int) -> Pace: ...


@dataclass(frozen=True)
class Result:
    """`ratio` is how many times as fast the first contender of the row is, or the one that it stands `beside`, in the
    same round: the median over the rounds, and its interval of 95 % (see `median_interval`)."""

    name: str
    differs: str
    rate: float
    milliseconds: float  # of a step
    ratio: tuple[float, float, float]


def alternate(
    contenders: Sequence[Contender], *, rounds: int, steps: int, say: Callable[[str], None], between: Callable[[], None]
) -> list[Result]:
    """One contender after the other, round by round, each round in another order; `between` comes once in each.

    With 0 steps, each contender takes as many as last three seconds.
    """
    chosen = {}
    for contender in contenders:
        say(f"warming up: {contender.name}")
        pace = contender.run(1)
        pace = contender.run(1)
        enough = min(500, max(2, round(SECONDS * pace.steps / pace.seconds)))
        chosen[contender.name] = steps or max(enough, getattr(contender, "cycle", 0))
    paces: dict[str, list[Pace]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        between()
        shift = number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            say(f"round {number + 1} of {rounds}: {contender.name}")
            paces[contender.name].append(contender.run(chosen[contender.name]))
    results = []
    for contender in contenders:
        own = paces[contender.name]
        other = paces[getattr(contender, "beside", contenders[0].name)]
        ratios = [mine.rate / theirs.rate for mine, theirs in zip(other, own, strict=True)]
        rate = statistics.median(pace.rate for pace in own)
        milliseconds = 1e3 * statistics.median(pace.seconds / pace.steps for pace in own)
        spread = statistics.median(ratios), *median_interval(ratios)
        results.append(Result(contender.name, contender.differs, rate, milliseconds, spread))
    return results


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Between which two of the values the median lies, by the binomial distribution of how many are below it, whatever
    they are distributed like (Hahn and Meeker, 1991, section 5.2); with fewer than 6, the least and the most."""
    ordered, n = sorted(values), len(values)
    below, rank = 2.0**-n, 0  # the chance that no more than `rank` values are below the median
    while below + math.comb(n, rank + 1) * 2.0**-n <= (1 - confidence) / 2:
        rank += 1
        below += math.comb(n, rank) * 2.0**-n
    return (ordered[rank], ordered[-1 - rank]) if 2.0**-n <= (1 - confidence) / 2 else (ordered[0], ordered[-1])


def machine(device: torch.device) -> str:
    """The processor and how many threads are used, or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads"


def resident(which: str, pid: int | str = "self") -> float:
    """Megabytes of a process in memory: now (VmRSS), at the most (VmHWM), or not from files (RssAnon).

    (The system's own count of the most, ru_maxrss, includes what the process was a copy of when it started.)
    """
    with open(f"/proc/{pid}/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))

"""What is wrong with words or values, and how it is told: one line with the key and the nearest right thing."""

import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NoReturn

from transformer_lab.terminal import one_line


@dataclass(frozen=True)
class Problem:
    """A value that cannot be used: the dotted path of its key, and why."""

    path: str
    what: str
    missing: bool = False  # required, and not set
    meant: str | None = None  # the name that was most likely meant

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Mistakes(ValueError):
    """All problems of some words or values together, one in a line."""

    def __init__(self, problems: Iterable[object]) -> None:
        self.problems = list(dict.fromkeys(map(str, problems)))
        super().__init__("\n".join(self.problems))


def missing(path: str) -> Problem:
    return Problem(path, "required, not set", missing=True)


def unknown(path: str, what: str, names: Collection[str], listed: Iterable[str] | None = None) -> Problem:
    """A name that does not exist; `listed` are shown where none of `names` is near."""
    near = nearest(path, names)
    others = ", ".join(names if listed is None else listed)
    hint = f"did you mean {near}?" if near else f"there are {others or 'none'}"
    return Problem(path, f"no such {what}; {hint}", meant=near)


def distance(a: str, b: str) -> int:
    """How many letters to insert, delete, change or swap with their neighbour (Damerau, 1964)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        above, before, row = before, row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(row[j] + 1, before[j + 1] + 1, before[j] + (x != y)))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                row[-1] = min(row[-1], above[j - 1] + 1)
    return row[-1]


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most likely meant: few typos, the right key of another section, a common beginning."""

    def rank(name: str) -> tuple[float, int]:
        elsewhere = word.rpartition(".")[2] == name.rpartition(".")[2]
        prefix = next((i for i, (x, y) in enumerate(zip(word, name, strict=False)) if x != y), len(name))
        return min(distance(word, name), 1.5 if elsewhere else 99), -prefix

    best = min(names, key=rank, default=None)
    return best if best and rank(best)[0] <= (3 if len(word) > 5 else 2) else None


class Refused(SystemExit):
    """The end of a process, or of a trial of a sweep, after some lines that said why."""

    code: int

    def __init__(self, lines: list[str], code: int, again: bool = False) -> None:
        super().__init__(code)
        self.lines, self.again = lines, again  # `again`: as it was interrupted, the same command goes on


def fail(found: Iterable[object], code: int = 2, *, again: bool = False) -> NoReturn:
    """End the process, each problem told in a line; 2 is the exit code for what the user has to change."""
    lines = [str(problem) for problem in found]
    for line in lines:
        print(f"error: {one_line(line)}", file=sys.stderr)
    raise Refused(lines, code, again)


def full_error() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"

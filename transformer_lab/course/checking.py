"""Exercises that know mistakes: what a learner has written is compared with the framework's own on random inputs, and
with what each usual mistake computes, so that a hint is certain and not guessed.
"""

import linecache
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

TRIES = 5  # random inputs of a check
CLOSE = 1e-4  # of the numbers' size: what single precision may differ by
OURS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"))


class Blank(Exception):
    """What is still to be written."""


class Told(Exception):
    """What is wrong, in words that are a hint already."""


class Draw(Random):
    """Random inputs: a seed gives the same ones anywhere."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._torch = torch.Generator().manual_seed(seed)

    def sizes(self, count: int, low: int = 3, high: int = 12) -> list[int]:
        """Different from each other, so that dimensions that have changed places show."""
        return self.sample(range(low, high), count)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._torch)


def _called(written: Callable[..., Any], *inputs: Any) -> Any:
    return written(*inputs)


@dataclass(frozen=True)
class Exercise:
    """One thing to write: a function, or a class that `ask` builds and calls.

    `draw` gives its inputs. `right` is the framework's own. `mistakes` are what learners write instead, each under the
    hint that it deserves; they are asked in the same way. `shape` says in letters what comes out: "(T, S)".
    """

    name: str
    draw: Callable[[Draw], tuple[Any, ...]]
    right: Callable[..., Any]
    mistakes: Mapping[str, Callable[..., Any]]
    shape: str = ""
    ask: Callable[..., Any] = _called

    def outcome(self, written: Callable[..., Any], inputs: tuple[Any, ...]) -> "Outcome":
        """What comes of it; draws of its own (dropout) are the same each time."""
        given = tuple(_copied(value) for value in inputs)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                value = self.ask(written, *given)
        except (Blank, Told):
            raise
        except Exception as error:  # a learner's code may do anything
            return Outcome(error=error)
        changed = [number for number, (x, y) in enumerate(zip(given, inputs, strict=True), 1) if not _same(x, y)]
        return Outcome(value, changed=changed)


@dataclass(frozen=True)
class Outcome:
    value: Any = None
    error: Exception | None = None
    changed: list[int] = field(default_factory=list)  # which of the inputs are others afterwards

    def like(self, other: "Outcome") -> bool:
        if self.error is not None or other.error is not None:
            return _told(self.error) == _told(other.error)
        return _same(self.value, other.value)


@dataclass(frozen=True)
class Verdict:
    """What a check found: shown in a notebook and in a terminal as text."""

    exercise: str
    passed: bool
    lines: tuple[str, ...]
    hint: str | None = None

    def __repr__(self) -> str:
        head = f"{self.exercise}: {'right' if self.passed else 'not there yet'}"
        hint = [f"  hint: {self.hint}"] if self.hint else []
        return "\n".join([head, *(f"  {line}" for line in self.lines), *hint])


def check(exercise: Exercise, written: Callable[..., Any], seeds: Iterable[int] = range(TRIES)) -> Verdict:
    """Whether something does what the exercise asks for, and where not, which mistake it is."""
    cases, wrong = [], ""
    for seed in seeds:
        inputs = exercise.draw(Draw(seed))
        try:
            found = exercise.outcome(written, inputs)
        except Blank as blank:
            return Verdict(exercise.name, False, (f"still to write: {blank}",))
        except Told as told:
            return Verdict(exercise.name, False, (), str(told))
        wrong = wrong or difference(exercise, found, inputs)
        cases.append((inputs, found))
    if not wrong:
        return Verdict(exercise.name, True, (f"as the framework's own in {len(cases)} of {len(cases)} random cases",))
    hints = (hint for hint, one in exercise.mistakes.items() if all(_is(exercise, one, *case) for case in cases))
    return Verdict(exercise.name, False, (wrong,), next(hints, None))


def _is(exercise: Exercise, mistake: Callable[..., Any], inputs: tuple[Any, ...], found: Outcome) -> bool:
    """Whether a mistake comes to the same as what was written."""
    try:
        return exercise.outcome(mistake, inputs).like(found)
    except Told:
        return False


def difference(exercise: Exercise, found: Outcome, inputs: tuple[Any, ...]) -> str:
    """In what an outcome is not what was to come out of these inputs; empty where it is."""
    expected = exercise.outcome(exercise.right, inputs)
    assert expected.error is None, expected.error
    if found.error is not None:
        return _told(found.error) + _place(found.error)
    if told := _apart(found.value, expected.value, exercise.shape, inputs):
        return told
    if found.changed:
        which = " and ".join(_ORDER[number - 1] for number in found.changed)
        return f"its {which} argument is another one afterwards: it was changed in place"
    if isinstance(expected.value, Tensor) and expected.value.requires_grad and not found.value.requires_grad:
        return "no gradient gets through it: all of it has to be done with tensors"
    return ""


def _apart(mine: Any, right: Any, shape: str, inputs: tuple[Any, ...]) -> str:
    """In what a value is not the right one."""
    if mine is None:
        return "it gives None: is there a return?"
    if isinstance(right, tuple):
        if not isinstance(mine, (tuple, list)) or len(mine) != len(right):
            return f"it gives {_short(mine)}, and {len(right)} things are to come out, {shape}"
        names = shape.strip("()").split(", ")
        parts = zip(
            names, (_apart(x, y, name, inputs) for x, y, name in zip(mine, right, names, strict=True)), strict=True
        )
        return next((f"{name}: {told}" for name, told in parts if told), "")
    if not isinstance(right, Tensor):
        given = " and ".join(_short(x) for x in inputs)
        return "" if _same(mine, right) else f"of {given} it gives {_short(mine)}, and {_short(right)} is right"
    if not isinstance(mine, Tensor):
        return f"it gives a {type(mine).__name__}, and a tensor is to come out"
    mine, right = mine.detach(), right.detach()
    if mine.shape != right.shape:
        given = " and ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else _short(x) for x in inputs)
        return f"of {given} it makes {tuple(mine.shape)}, and {shape} is {tuple(right.shape)}"
    if _kind(mine) != _kind(right):
        return f"it gives {_kind(mine)}, and {_kind(right)} are right"
    if _same(mine, right):
        return ""
    if (lost := mine.isnan().sum()) and not right.isnan().any():
        return f"{lost} of {mine.numel()} numbers are nan"
    apart = ((mine.double() - right.double()).abs() > CLOSE * _size(right.double())).nonzero().tolist()
    here, there = (_number(x[tuple(apart[0])].item()) for x in (mine, right))
    if not mine.ndim:
        return f"it gives {here}, and {there} is right"
    plain = [_short(x) for x in inputs if isinstance(x, (int, list))]
    given = f"of {' and '.join(plain)} " if plain else ""
    return f"{given}it has {here} at {apart[0]}, and {there} is right; {len(apart)} of {mine.numel()} are others"


_ORDER = ("first", "second", "third", "fourth", "fifth")


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        # No leaf: those cannot be changed in place, which would be told in PyTorch's words, and not in ours.
        return (value.clone().requires_grad_() if value.is_floating_point() else value).clone()
    return value


def _same(mine: Any, right: Any) -> bool:
    if mine is right:
        return True
    if isinstance(right, Tensor):
        if not isinstance(mine, Tensor) or mine.shape != right.shape or _kind(mine) != _kind(right):
            return False
        mine, right = mine.detach().double(), right.detach().double()
        return torch.allclose(mine, right, rtol=0, atol=CLOSE * _size(right), equal_nan=True)
    if isinstance(right, (list, tuple)):
        return (
            isinstance(mine, (list, tuple))
            and len(mine) == len(right)
            and all(_same(x, y) for x, y in zip(mine, right, strict=True))
        )
    if isinstance(right, float):
        mine = mine.item() if isinstance(mine, Tensor) and not mine.ndim else mine
        return isinstance(mine, (int, float)) and abs(mine - right) <= CLOSE * max(abs(right), 1e-3)
    return bool(type(mine) is type(right) and mine == right)


def _size(x: Tensor) -> float:
    """The largest of its numbers."""
    finite = x[x.isfinite()]
    return max(float(finite.abs().max()), 1e-3) if len(finite) else 1.0


def _number(x: float | bool) -> str:
    return str(x) if isinstance(x, bool) else f"{x:.4g}"


def _kind(x: Tensor) -> str:
    return "True and False" if x.dtype == torch.bool else "fractions" if x.is_floating_point() else "whole numbers"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _told(error: Exception | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {' '.join(str(error).split())}"


def _place(error: Exception) -> str:
    """The learner's own line that an error came from."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(OURS) and Path(frame.filename).name != CHECKS:
            line = (linecache.getline(frame.filename, frame.lineno or 0) or frame.line or "").strip()
            return f", in your line {frame.lineno}: {line}"
    return ""


CHECKS = "checks.py"  # what asks, in the folder of a lab


def filled(layer: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A learner's layer with the weights of the framework's, so that both have to compute the same."""
    own = layer.state_dict()
    if missing := sorted(weights.keys() - own.keys()):
        raise Told(f"what it learns is to be called {', '.join(sorted(weights))}; there is no {', '.join(missing)}")
    if more := sorted(own.keys() - weights.keys()):
        raise Told(f"it learns more than is asked for: {', '.join(more)}")
    for name, weight in weights.items():
        if own[name].shape != weight.shape:
            raise Told(f"{name} is {tuple(own[name].shape)}, and {tuple(weight.shape)} is asked for")
    layer.load_state_dict(dict(weights))
    return layer.eval()

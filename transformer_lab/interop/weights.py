"""Tensors of a model by two names and in two layouts: tables that are read both ways.

**D** width, **K** head width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Form:
    """How a tensor of theirs becomes one of ours, and back."""

    inward: "Callable[[Tensor], Tensor]"
    outward: "Callable[[Tensor], Tensor]"


SAME = Form(lambda x: x, lambda x: x)
TRANSPOSED = Form(lambda x: x.T, lambda x: x.T)


def halves(width: int, axis: int = 0) -> Form:
    """Channels i and i + width/2 belong together there, neighbours do here: those of a head, of queries and keys, that
    turn together; or sines and their cosines."""
    return Form(
        lambda x: x.unflatten(axis, (-1, 2, width // 2)).transpose(axis + 1, axis + 2).flatten(axis, axis + 2),
        lambda x: x.unflatten(axis, (-1, width // 2, 2)).transpose(axis + 1, axis + 2).flatten(axis, axis + 2),
    )


def times(factor: float) -> Form:
    """Ours is so many times theirs."""
    return Form(lambda x: x * factor, lambda x: x / factor)


def chained(first: Form, second: Form) -> Form:
    """One after the other, on the way in."""
    return Form(lambda x: second.inward(first.inward(x)), lambda x: first.outward(second.outward(x)))


@dataclass(frozen=True)
class Part:
    """One of our tensors, `rows` of one of theirs."""

    ours: str
    rows: int
    form: Form = SAME


@dataclass(frozen=True)
class Pair:
    """A tensor of theirs is one of ours, or several of ours one behind the other, once it is in the form `whole`."""

    theirs: str
    ours: str | tuple[Part, ...]
    form: Form = SAME
    otherwise: str | None = None  # which tensor it is where there is none of its name

    def inward(self, tensor: "Tensor") -> "Iterator[tuple[str, Tensor]]":
        """Raises ValueError where a tensor has not as many rows as its parts."""
        tensor = self.form.inward(tensor)
        if isinstance(self.ours, str):
            yield self.ours, tensor
            return
        if len(tensor) != (rows := sum(part.rows for part in self.ours)):
            raise ValueError(f"{self.theirs} is {' x '.join(map(str, tensor.shape))}, by its config {rows} rows")
        for part, rows_of in zip(self.ours, tensor.split([part.rows for part in self.ours]), strict=True):
            yield part.ours, part.form.inward(rows_of)

    def outward(self, ours: "Mapping[str, Tensor]") -> "Tensor":
        if isinstance(self.ours, str):
            return self.form.outward(ours[self.ours])
        import torch

        return self.form.outward(torch.cat([part.form.outward(ours[part.ours]) for part in self.ours]))

    @property
    def names(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else tuple(part.ours for part in self.ours)


def both(theirs: str, ours: str, form: Form = SAME, *, bias: bool = True) -> Iterator[Pair]:
    """A matrix, or the scale of a norm, and its bias."""
    yield Pair(f"{theirs}.weight", f"{ours}.weight", form)
    if bias:
        yield Pair(f"{theirs}.bias", f"{ours}.bias", SAME if form is TRANSPOSED else form)


def inward(pairs: Iterable[Pair], theirs: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Their tensors under our names. Raises ValueError for one that is not there."""
    found: dict[str, Tensor] = {}
    for pair in pairs:
        tensor = theirs.get(pair.theirs, theirs.get(pair.otherwise or ""))
        if tensor is None:
            raise ValueError(f"there is no tensor {pair.theirs}, which its config.json speaks of")
        found |= pair.inward(tensor)
    return found


def outward(pairs: Iterable[Pair], ours: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Our tensors under their names."""
    return {pair.theirs: pair.outward(ours).contiguous() for pair in pairs}

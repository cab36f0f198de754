"""Options of a model by two names, `hidden_size` of a config.json and `model.dim` of a run: tables read both ways."""

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

MODEL = ("model", "position", "norm", "mixer", "feed_forward", "residual")  # sections that make a model what it is
NOT_OF_THE_MODEL = ("model.dropout", "model.residual_init", "position.max_length")  # once it is made
MODELS = "transformer_lab.models"
NEEDED: Any = object()  # in place of a default: there is none


@dataclass(frozen=True)
class Theirs:
    """A config.json, and which of its keys have been read. `where` names it in errors."""

    values: Mapping[str, Any]
    where: str
    read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise ValueError(f"{self.where}: {_written(self.values)} is no object")

    def get(self, key: str, default: Any = NEEDED) -> Any:
        """What stands under a key; null there is the default. Raises ValueError where it is needed and not there."""
        self.read.add(key)
        found = self.values.get(key)
        if found is None and default is NEEDED:
            raise ValueError(f"{self.where}: there is no {key}")
        return default if found is None else found

    def whole(self, key: str, default: Any = NEEDED) -> int:
        """A whole number above 0."""
        found = self.get(key, default)
        if type(found) is not int or found < 1:
            raise ValueError(f"{self.where}: {key}: {_written(found)} is no number above 0")
        return found

    def number(self, key: str, default: Any = NEEDED) -> float:
        found = self.get(key, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise ValueError(f"{self.where}: {key}: {_written(found)} is no number")
        return float(found)

    def refused(self, key: str, value: Any, fitting: Any = ()) -> ValueError:
        would = ", ".join(map(_written, fitting))
        return ValueError(
            f"{self.where}: {key}: {_written(value)} has no option here" + (f"; {would} has" if would else "")
        )

    def refuse_rest(self, passed: set[str]) -> None:
        """Raises ValueError for a key that nothing has read, unless it is `passed` over knowingly, or says nothing."""
        known = self.read | passed
        for key, value in self.values.items():
            private = key.startswith("_")  # where it was loaded from, and the like
            if not private and key not in known and value not in (None, False, [], {}):
                raise self.refused(key, value)


@dataclass(frozen=True)
class Ours:
    """A run's config by dotted keys, with what its classes take where it says nothing; and what does not fit of it."""

    config: Mapping[str, Any]
    read: set[str] = field(default_factory=set)
    misfits: dict[str, list[Any]] = field(default_factory=dict)  # keys, with what would do

    def get(self, key: str) -> Any:
        self.read.add(key)
        section, _, name = key.partition(".")
        values = self.config.get(section) or {}
        return values[name] if name in values else default_of(values.get("_target_", ""), name)

    def want(self, key: str, *fitting: Any) -> bool:
        """Whether a key has one of these values; where it has not, that is noted."""
        fits = self.get(key) in fitting
        if not fits:
            self.misfits[key] = list(fitting)
        return fits

    def refuse_rest(self) -> None:
        """Notes what nothing has read and is not as it would be by default."""
        for section in MODEL:
            values = self.config.get(section) or {}
            for name, value in values.items():
                key = f"{section}.{name}"
                default = default_of(values["_target_"], name)
                if key not in self.read and key not in NOT_OF_THE_MODEL and value != default:
                    self.misfits[key] = [default]


@cache
def default_of(target: str, name: str) -> Any:
    """What a class, or one of its bases, takes for an argument that is not given; None where it must be given."""
    module, _, attribute = target.rpartition(".")
    if not module:
        return None
    found = getattr(importlib.import_module(module), attribute)
    kinds = list(inspect.getmro(found)) if inspect.isclass(found) else [found]
    if module.startswith(MODELS):  # what a model does not take itself, it hands to its stacks
        kinds.append(importlib.import_module(f"{MODELS}.stack").Stack)
    for kind in kinds:
        taken = inspect.signature(kind).parameters if kind is not object else {}
        if name in taken and taken[name].default is not inspect.Parameter.empty:
            return taken[name].default
    return None


class Option(ABC):
    """What a config.json says in some of its keys, and a run's config in some of its own."""

    @abstractmethod
    def inward(self, theirs: Theirs) -> dict[str, Any]:
        """Our dotted keys with their values. Raises ValueError, which names the key, where there is no such option."""

    @abstractmethod
    def outward(self, ours: Ours) -> dict[str, Any]:
        """Their keys with their values; what does not fit is noted in `ours`."""


@dataclass(frozen=True)
class Key(Option):
    """One key there is one key here, with the same value."""

    theirs: str
    ours: str
    default: Any = NEEDED  # what a config.json means that has no such key

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        return {self.ours: theirs.get(self.theirs, self.default)}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {self.theirs: ours.get(self.ours)}


@dataclass(frozen=True)
class Choice(Option):
    """A value of one key there is what some keys here are set to; of two that mean the same, the first is written."""

    theirs: str
    values: Mapping[Any, Mapping[str, Any]]
    default: Any = NEEDED

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        value = theirs.get(self.theirs, self.default)
        if not isinstance(value, (str, bool, int, float)) or value not in self.values:
            raise theirs.refused(self.theirs, value, self.values)
        return dict(self.values[value])

    def outward(self, ours: Ours) -> dict[str, Any]:
        for value, keys in self.values.items():
            if all(ours.get(key) == wanted for key, wanted in keys.items()):
                return {self.theirs: value}
        for key in next(iter(self.values.values())):
            ours.want(key, *dict.fromkeys(keys[key] for keys in self.values.values() if key in keys))
        return {}


@dataclass(frozen=True)
class Fixed(Option):
    """Keys of ours that all models of a family have alike, and that no key there speaks of."""

    values: Mapping[str, Any]

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        return dict(self.values)

    def outward(self, ours: Ours) -> dict[str, Any]:
        for key, value in self.values.items():
            ours.want(key, value)
        return {}


@dataclass(frozen=True)
class Ignored(Option):
    """Keys there that mean nothing to a class."""

    keys: tuple[str, ...]

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        theirs.read.update(self.keys)
        return {}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Usual(Option):
    """Keys there that have no option here, and do not need one as long as they have these values."""

    values: Mapping[str, Any]

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        for key, usual in self.values.items():
            if (value := theirs.get(key, usual)) != usual:
                raise theirs.refused(key, value, [usual])
        return {}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {}


def _written(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"

"""What a sweep searches: for each key its values or an interval, in Hydra's own words.

model.dim=64,128   choice(64, 128)   range(1, 5)   interval(0.1, 0.3)   tag(log, interval(1e-4, 1e-2))
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

LONGEST = 10_000  # values of a range


@dataclass(frozen=True)
class Values:
    """Some values, each as the words that set it; of several keys that are set together, several words."""

    name: str
    texts: tuple[str, ...]  # as people read them
    words: tuple[tuple[str, ...], ...]

    @property
    def ends(self) -> tuple[tuple[str, ...], ...]:
        return self.words

    def word(self, value: Any) -> tuple[str, ...]:
        return self.words[self.texts.index(value)]

    def describe(self) -> list[str]:
        return list(self.texts)


@dataclass(frozen=True)
class Interval:
    """All numbers between two, whole ones if both are whole; `key` sets them."""

    name: str
    key: str
    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[tuple[str, ...], ...]:
        return self.word(self.low), self.word(self.high)

    def word(self, value: Any) -> tuple[str, ...]:
        return (f"{self.key}={value!r}",)

    def describe(self) -> list[str]:
        return [f"{self.low!r} to {self.high!r}{', logarithmic' if self.log else ''}"]


class Space:
    """The words of a sweep: those that all trials share, and what differs between them.

    `params` come from a file, where keys joined by commas are set together (`model.dim,model.num_layers:
    choice([64,16],[128,4])`); the words of the command line come after them. `groups` are those of the config. Raises
    ValueError for what cannot be searched.
    """

    def __init__(
        self, parser: OverridesParser, params: Mapping[str, Any], words: Iterable[str], groups: Collection[str]
    ) -> None:
        fixed: dict[str, str] = {}
        searched: dict[str, Values | Interval] = {}
        for key, value in params.items():
            keys = {name: name if name in groups else f"++{name}" for name in key.replace(" ", "").split(",")}
            dimension = (
                _joint(parser, keys, value) if len(keys) > 1 else _dimension(parser, f"{keys.popitem()[1]}={value}")
            )
            if dimension is None:
                raise ValueError(f"hydra.sweeper.params.{key}: {value} is one value; set it where the others are set")
            searched[dimension.name] = dimension
        for word in words:
            dimension = _dimension(parser, word)
            name = word.partition("=")[0].lstrip("+")
            if dimension is None:
                fixed[name] = word
                searched.pop(name, None)
            else:
                searched[name] = dimension
                fixed.pop(name, None)
        self.fixed, self.searched = fixed, list(searched.values())

    @property
    def size(self) -> int | None:
        """How many combinations there are; None where an interval has no end of them."""
        if any(isinstance(each, Interval) for each in self.searched):
            return None
        return math.prod(len(each.ends) for each in self.searched)

    def combination(self, number: int) -> dict[str, str]:
        """The texts of a grid's combination: the last key changes first."""
        found = {}
        for each in reversed(self.searched):
            assert isinstance(each, Values)
            number, place = divmod(number, len(each.texts))
            found[each.name] = each.texts[place]
        return found

    def words(self, chosen: Mapping[str, Any]) -> list[str]:
        return [word for each in self.searched for word in each.word(chosen[each.name])]

    def samples(self, most: int) -> Iterator[list[str]]:
        """The words of every combination, intervals by their ends; of more than `most` every value once.

        Of a key with more than 4 `most` values so many, evenly spread: building one takes a tenth of a second.
        """
        ways = [each.ends for each in self.searched]
        count = math.prod(map(len, ways))
        if count <= most:
            for number in range(count):
                found: list[str] = []
                for some in reversed(ways):
                    number, place = divmod(number, len(some))
                    found = [*some[place], *found]
                yield found
        else:
            many = max(most, min(4 * most, max(map(len, ways))))
            for number in range(many):
                share = number / (many - 1)
                yield [word for some in ways for word in some[round(share * (len(some) - 1))]]

    def describe(self) -> dict[str, Any]:
        """Facts, fit for JSON, that change when other trials would come out."""
        return {"words": sorted(self.fixed.values()), "space": {each.name: each.describe() for each in self.searched}}


def _dimension(parser: OverridesParser, word: str) -> Values | Interval | None:
    override = parser.parse_override(word)
    if not override.is_sweep_override():
        return None
    name = override.key_or_group
    if override.is_discrete_sweep():
        texts = []
        for text in override.sweep_string_iterator():
            texts.append(text)
            if len(texts) > LONGEST:
                raise ValueError(f"{name}: more than {LONGEST:,} values; an interval has no end of them")
        return Values(name, tuple(texts), tuple((f"{override.get_key_element()}={text}",) for text in texts))
    sweep: Any = override.value()
    if not isinstance(sweep, IntervalSweep) or sweep.start is None or sweep.end is None:
        raise ValueError(f"{word}: choice, range or interval can be searched")
    if not sweep.start < sweep.end:
        raise ValueError(f"{name}: the interval ends at {sweep.end}, before it begins at {sweep.start}")
    if "log" in sweep.tags and sweep.start <= 0:
        raise ValueError(f"{name}: a logarithmic interval begins above 0, not at {sweep.start}")
    return Interval(name, override.get_key_element(), sweep.start, sweep.end, "log" in sweep.tags)


def _joint(parser: OverridesParser, keys: Mapping[str, str], value: Any) -> Values:
    """Values of several keys that are set together, each a list with one for each key."""
    name = ",".join(keys)
    rows = getattr(parser.parse_override(f"joint={value}").value(), "list", None)
    if not rows or not all(isinstance(row, list) and len(row) == len(keys) for row in rows):
        raise ValueError(f"hydra.sweeper.params.{name}: expected choice of lists of {len(keys)} values, found {value}")
    texts = tuple(", ".join(map(str, row)) for row in rows)
    words = tuple(tuple(f"{key}={item}" for key, item in zip(keys.values(), row, strict=True)) for row in rows)
    return Values(name, texts, words)

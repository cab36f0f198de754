"""Dates, amounts, names and lists of them in two languages, composed without end (Unicode CLDR, through Babel)."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, partial
from itertools import pairwise, product
from random import Random
from typing import Any, TypeVar

import babel
from babel import Locale, UnknownLocaleError, dates, numbers
from babel.languages import get_official_languages
from babel.localedata import locale_identifiers

from transformer_lab.data.examples import Pair, Split
from transformer_lab.data.sources import cldr
from transformer_lab.data.sources.base import HashSplit, Source, no_such_name
from transformer_lab.data.sources.cldr import LACKS, Phrase

T = TypeVar("T")
Form = Callable[[Any], Phrase]  # a way to say any day, any amount, …

COMPOSED = 2  # raise it when the same seed makes other phrases
PATIENCE = 20_000  # phrases in a row that were there already: then the languages have no more of them
# What is common, in the order of how often it is drawn. Other territories, languages, currencies follow.
TERRITORIES = "DE FR US GB IT ES AT CH CN JP IN BR CA PL NL BE SE NO DK FI PT GR TR RU UA IE CZ HU AU NZ MX AR EG ZA KR"
LANGUAGES = "en de fr es it zh ja pt ru ar hi nl pl tr sv da nb fi el cs hu ro uk ko fa he th vi id la bn sr hr sk bg"
CURRENCIES = "EUR USD GBP CHF JPY CNY INR CAD AUD SEK NOK DKK PLN CZK HUF TRY RUB BRL MXN KRW ZAR NZD UAH EGP ILS"
UNITS = """length-kilometer length-meter mass-kilogram duration-hour duration-minute volume-liter duration-day mass-gram
    length-centimeter duration-week duration-month duration-year duration-second temperature-celsius area-square-meter
    length-mile length-foot length-inch length-millimeter mass-tonne mass-pound volume-milliliter area-square-kilometer
    area-hectare volume-cubic-meter digital-gigabyte digital-megabyte power-watt power-kilowatt energy-kilowatt-hour
    energy-kilocalorie energy-joule electric-volt electric-ampere frequency-hertz pressure-bar temperature-fahrenheit
    angle-degree area-acre volume-gallon volume-teaspoon volume-cup digital-byte graphics-pixel length-yard
    length-light-year mass-ounce volume-barrel duration-decade duration-century"""
MOVED = "length-kilometer volume-liter length-meter mass-kilogram digital-megabyte length-mile mass-gram"
PRICED = "mass-kilogram volume-liter duration-hour duration-month area-square-meter duration-day length-meter"
SPANS = "year month week day hour minute second"
LENGTHS = ("long", "short")
# Forms by their CLDR names; of two that look alike in the source and not in the target, the first is taken.
DAYS = "long full MMMMd yMMMEd yMMMd MMMEd MMMd medium short yMd MEd Md"
MONTHS = "yMMMM yMMM yQQQQ"
CLOCKS = "short Bhm Hm medium"
PERIODS = "yMMMd MMMd yMMMEd MMMEd"
LONG_PERIODS = "yMMMM yMMM y"


class Phrases(Source):
    """Phrase number i is a function of the seed and i; one whose source text was there before is left out."""

    example_type = Pair

    def __init__(
        self, *, source: str = "en", target: str = "de", size: int, seed: int = 1, validation: float, test: float
    ) -> None:
        self.languages = _language("data.source", source), _language("data.target", target)
        if self.languages[0] == self.languages[1]:
            raise ValueError(f"data.target={target}: the language of data.source too; there is nothing to translate")
        if size < 1:
            raise ValueError(f"data.size={size}: the number of phrases, at least 1")
        self.language = self.languages[1].language
        self.size, self.seed = size, seed
        self.hash_split = HashSplit(validation=validation, test=test)

    def cache_key(self) -> dict[str, Any]:
        return {
            "source": "phrases",
            "composed": COMPOSED,
            "languages": [str(language) for language in self.languages],
            "size": self.size,
            "seed": self.seed,
            "validation": self.hash_split.validation,
            "test": self.hash_split.test,
            "babel": babel.__version__,
        }

    def read(self) -> Iterator[tuple[Split, Pair]]:
        yield from self.hash_split(self._pairs)

    def _pairs(self) -> Iterator[Pair]:
        said: set[bytes] = set()
        number = last = 0
        while len(said) < self.size:
            number += 1
            source, target = self.words.compose(Dice(f"{self.seed} {number}"))
            key = hashlib.blake2b(source.encode(), digest_size=8).digest()  # smaller than the text
            if key not in said:
                said.add(key)
                last = number
                yield Pair(source, target)
            elif number - last > PATIENCE:
                names = " and ".join(str(language) for language in self.languages)
                raise ValueError(f"data.size={self.size}: {names} gave {len(said):,} different phrases and no more")

    @cached_property
    def words(self) -> "Words":
        return Words(*self.languages)


class Words:
    """The names and forms that both languages have and that mean one thing, so that no translation is a guess."""

    def __init__(self, source: Locale, target: Locale) -> None:
        self.languages = source, target
        self.taken: dict[str, str] = {}  # by a name: a territory and its language can be called the same
        territories, tongues, currencies = _codes(source)
        self.territories = self.names(partial(cldr.entry, "territories"), territories)
        self.tongues = self.names(partial(cldr.entry, "languages"), tongues)
        self.currencies = self.names(partial(cldr.entry, "currencies"), currencies)
        self.weekdays = self.names(partial(cldr.calendar_name, dates.get_day_names), range(7))
        self.month_names = self.names(partial(cldr.calendar_name, dates.get_month_names), range(1, 13))
        days = [datetime(2024, month, day) for month in range(1, 13) for day in (5, 17, 28)]
        self.days = self.forms(cldr.day, product(DAYS.split()), days)
        self.months = self.forms(cldr.day, product(MONTHS.split()), days)
        self.periods = self.forms(cldr.period, product(PERIODS.split()), pairwise(days))
        self.long_periods = self.forms(cldr.period, product(LONG_PERIODS.split()), zip(days, days[3:], strict=False))
        times = [datetime(2024, 5, 1, hour, minute) for hour in range(24) for minute in (0, 30)]
        self.clocks = self.forms(cldr.clock, product(CLOCKS.split()), times)
        self.hours = self.forms(cldr.hours, [()], pairwise(times))
        self.spans = self.forms(cldr.span, product(SPANS.split(), LENGTHS), (1, 2, 5, -1, -2, -5))
        self.amounts = self.forms(cldr.amount, product(UNITS.split(), LENGTHS), (1, 2, 5, Decimal("1.5")))
        self.durations = self.forms(cldr.amount, [(f"duration-{span}", "long") for span in SPANS.split()], (1, 2, 5))
        pace = product(MOVED.split(), [f"duration-{span}" for span in reversed(SPANS.split())], LENGTHS)
        self.rates = self.forms(cldr.rate, pace, (1, 2, 5))
        self.money = self.forms(cldr.money, product(currencies, ("name", "standard")), (1, 2, 5, Decimal("1.5")))
        letters: list[Phrase] = [partial(_same, letter) for letter in "ABCD"]
        self.prices = self.forms(cldr.price, product(PRICED.split(), LENGTHS), letters)
        self.lists = self.forms(cldr.listed, product(("standard", "or")), [letters[:2], letters[:3], letters])
        self.couples = self.forms(cldr.listed, product(("standard", "or", "unit")), [letters[:2]])
        self.kinds = [(weight, kind) for weight, kind in KINDS if self.has(kind)]

    def names(self, say: Callable[[Any, Locale], str], codes: Iterable[Any]) -> list[Phrase]:
        """Without those that have a comma or a bracket in them: they would be hard to read in a list."""
        names: list[Phrase] = [partial(say, code) for code in codes]
        names = self.clear(((name, [name]) for name in names), self.taken)
        return [name for name in names if set(",،、()（）").isdisjoint("".join(self.say(name)))]

    def forms(self, say: Callable[..., str], options: Iterable[Any], probes: Iterable[Any]) -> list[Form]:
        probes = list(probes)
        forms = [_form(say, option) for option in options]
        return self.clear(((form, [form(probe) for probe in probes]) for form in forms), {})

    def clear(self, options: Iterable[tuple[T, list[Phrase]]], taken: dict[str, str]) -> list[T]:
        """The options that both languages have and that say nothing which an earlier one means otherwise."""
        kept = []
        for option, phrases in options:
            try:
                pairs = [self.say(phrase) for phrase in phrases]
            except LACKS:
                continue
            meant = dict(pairs)
            if all(meant[source] == target == taken.get(source, target) for source, target in pairs):
                taken.update(meant)
                kept.append(option)
        return kept

    def has(self, kind: "Kind") -> bool:
        try:
            self.say(kind(self, Dice("a try")))
        except LACKS:
            return False
        return True

    def say(self, phrase: Phrase) -> tuple[str, str]:
        """In both languages, with a plain space for each of the narrow and unbreakable ones."""
        source, target = (" ".join(phrase(language).split()) for language in self.languages)
        if not source or not target:
            raise LookupError("one of the languages has no words for it")
        return source, target

    def day_and_clock(self, dice: "Dice") -> Phrase:
        date, time = (dice.pick(forms)(dice.moment()) for forms in (self.days, self.clocks))
        return partial(cldr.day_and_clock, date, time)

    def couple(self, dice: "Dice") -> Phrase:
        form = dice.pick(self.couples)
        return form([span(dice.whole(30)) for span in dice.neighbors(self.durations)])

    def compose(self, dice: "Dice") -> tuple[str, str]:
        weights, kinds = zip(*self.kinds, strict=True)
        return self.say(dice.choices(kinds, weights)[0](self, dice))


class Dice(Random):
    """What a phrase is about, at random: small numbers and common names more often than others."""

    def pick(self, table: Sequence[T], *, flatten: int = 10) -> T:
        """The n-th of the table, from 0, in proportion to 1 / (n + flatten)."""
        return table[int(flatten * (1 + len(table) / flatten) ** self.random()) - flatten]

    def several(self, table: Sequence[T]) -> list[T]:
        return list(dict.fromkeys(self.pick(table) for _ in range(self.choice((2, 2, 2, 3, 3, 4)))))

    def moment(self) -> datetime:
        """Of one century, so that two digits tell the year."""
        return datetime(1950, 1, 1) + timedelta(self.randrange(36_525), self.randrange(86_400))

    def period(self, shortest: int, longest: int) -> tuple[datetime, datetime]:
        start = self.moment()
        return start, start + timedelta(self.randrange(shortest, longest))

    def neighbors(self, table: Sequence[T]) -> Sequence[T]:
        first = self.randrange(len(table) - 1)
        return table[first : first + 2]

    def hours(self) -> tuple[datetime, datetime]:
        first, second = sorted(self.sample(range(24 * 12), 2))
        return datetime(2024, 5, 1) + timedelta(minutes=5 * first), datetime(2024, 5, 1) + timedelta(minutes=5 * second)

    def whole(self, *largest: int) -> int:
        return self.randrange(1, 1 + self.choice(largest or (9, 99, 99, 999, 9_999)))

    def amount(self, *largest: int) -> int | Decimal:
        tenth = self.whole(9) if self.random() < 0.2 else 0
        return self.whole(99) + Decimal(tenth) / 10 if tenth else self.whole(*largest)

    def price(self) -> int | Decimal:
        cents = self.choice((25, 50, 75, 95, 99)) if self.random() < 0.4 else 0
        return self.whole() + Decimal(cents) / 100 if cents else self.whole()


Kind = Callable[[Words, Dice], Phrase]
KINDS: tuple[tuple[int, Kind], ...] = (  # with how often each is drawn
    (10, lambda words, dice: dice.pick(words.days)(dice.moment())),
    (3, lambda words, dice: dice.pick(words.months)(dice.moment())),
    (6, lambda words, dice: dice.pick(words.periods)(dice.period(1, 90))),
    (3, lambda words, dice: dice.pick(words.long_periods)(dice.period(32, 2_000))),
    (5, lambda words, dice: dice.pick(words.clocks)(dice.moment())),
    (5, Words.day_and_clock),
    (3, lambda words, dice: words.hours[0](dice.hours())),
    (6, lambda words, dice: dice.pick(words.spans)(dice.choice((1, -1)) * dice.whole())),
    (9, lambda words, dice: dice.pick(words.amounts)(dice.amount())),
    (4, lambda words, dice: dice.pick(words.rates)(dice.amount())),
    (7, lambda words, dice: dice.pick(words.money)(dice.price())),
    (4, lambda words, dice: dice.pick(words.prices)(dice.pick(words.money)(dice.price()))),
    (2, lambda words, dice: partial(cldr.percent, dice.amount())),
    (2, lambda words, dice: partial(cldr.number, dice.whole(99_999, 999_999))),
    (2, lambda words, dice: partial(cldr.rounded, dice.amount(9, 99, 999) * dice.choice((1_000, 10**6, 10**9)))),
    (1, lambda words, dice: dice.pick(words.territories)),
    (1, lambda words, dice: dice.pick(words.tongues)),
    (1, lambda words, dice: dice.pick(words.currencies)),
    (10, lambda words, dice: dice.pick(words.lists)(dice.several(words.territories))),
    (8, lambda words, dice: dice.pick(words.lists)(dice.several(words.tongues))),
    (3, lambda words, dice: dice.pick(words.lists)(dice.several(words.currencies))),
    (1, lambda words, dice: dice.pick(words.lists)(dice.several(words.weekdays))),
    (1, lambda words, dice: dice.pick(words.lists)(dice.several(words.month_names))),
    (3, lambda words, dice: dice.pick(words.lists)([form(dice.amount()) for form in dice.several(words.amounts)])),
    (2, lambda words, dice: dice.pick(words.lists)([form(dice.whole(60)) for form in dice.several(words.spans)])),
    (4, Words.couple),
)


def _language(option: str, name: str) -> Locale:
    try:
        return Locale.parse(name.replace("-", "_"))
    except (ValueError, UnknownLocaleError):
        known = locale_identifiers()
        near = [other for other in known if other[0] == name[:1]]  # the first letter is seldom what was mistyped
        raise no_such_name(option, name, near or known, "not a language code of the CLDR") from None


def _codes(language: Locale) -> tuple[list[str], list[str], list[str]]:
    """Territories, their official languages, and the currencies that pay there."""
    codes = [str(code) for code in language.territories]
    spoken = {code: get_official_languages(code, regional=True, de_facto=True) for code in codes}
    territories = [code for code in codes if spoken[code]]  # no continents, no codes for tests
    tongues = {tongue for code in territories for tongue in spoken[code]}
    # A fixed day: what is paid with today would make other phrases tomorrow.
    currencies = {money for code in territories for money in numbers.get_territory_currencies(code, date(2025, 1, 1))}
    return _ranked(TERRITORIES, territories), _ranked(LANGUAGES, tongues), _ranked(CURRENCIES, currencies)


def _ranked(common: str, codes: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*common.split(), *sorted(codes)]))


def _form(say: Callable[..., str], option: Any) -> Form:
    return lambda what: partial(say, what, *option)


def _same(text: str, language: Locale) -> str:
    return text

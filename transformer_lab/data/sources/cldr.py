"""How a language says a day, an amount, a list …: each function here takes what is meant and a language last, and gives
words (Unicode CLDR, through Babel). Where a language lacks them, Babel raises one of `LACKS`."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from babel import Locale, dates, numbers, units
from babel.lists import format_list

Phrase = Callable[[Locale], str]  # what is meant, to be said in a language
MARKS = "\ue000\ue001\ue002\ue003\ue004\ue005"  # of private use: they stand for what a pattern is filled with
LACKS = (LookupError, AttributeError, TypeError, ValueError, NotImplementedError)


def entry(table: str, code: str, language: Locale) -> str:
    return getattr(language, table)[code]


def calendar_name(names: Callable[..., Any], number: int, language: Locale) -> str:
    return names("wide", "stand-alone", language)[number]


def day(when: datetime, form: Any, language: Locale) -> str:
    if form in ("full", "long", "medium", "short"):
        return dates.format_date(when, form, language)
    return dates.format_skeleton(form, when, locale=language)


def clock(when: datetime, form: Any, language: Locale) -> str:
    if form in ("medium", "short"):
        return dates.format_time(when, form, locale=language)
    return dates.format_skeleton(form, when, locale=language)


def day_and_clock(date: Phrase, time: Phrase, language: Locale) -> str:
    pattern = str(dates.get_datetime_format("medium", language)).replace("'", "")
    return _filled(pattern.replace("{0}", MARKS[0]).replace("{1}", MARKS[1]), [time, date], language)


def period(ends: tuple[datetime, datetime], form: str, language: Locale) -> str:
    return dates.format_interval(*ends, form, locale=language)


def hours(ends: tuple[datetime, datetime], language: Locale) -> str:
    """On the clock of the language, which has 12 hours or 24."""
    pattern = dates.get_time_format("short", language).pattern
    return dates.format_interval(*ends, "Hm" if "H" in pattern else "hm", locale=language)


def span(number: int, unit: Any, length: Any, language: Locale) -> str:
    seconds = number * dict(dates.TIMEDELTA_UNITS)[unit]
    never = float("inf")  # by default 6 days would be told as a week
    return dates.format_timedelta(seconds, unit, never, add_direction=True, format=length, locale=language)


def amount(number: float | Decimal, unit: str, length: str, language: Locale) -> str:
    return _worded(partial(units.format_unit, number, unit, locale=language), length, unit)


def rate(number: float | Decimal, unit: str, per: str, length: str, language: Locale) -> str:
    say = partial(units.format_compound_unit, number, unit, denominator_unit=per, locale=language)
    return _worded(say, length, unit, per, "-per-")


def price(money: Phrase, unit: str, length: str, language: Locale) -> str:
    say = partial(units.format_compound_unit, MARKS[0], denominator_unit=unit, locale=language)
    return _filled(_worded(say, length, unit), [money], language)


def _worded(say: Callable[..., str | None], length: str, *codes: str) -> str:
    """Where a language has no long word, Babel writes a code, and the CLDR means the short word to be used."""
    for words in (length, "short"):
        said = say(length=words)
        if said and not any(code in said for code in codes):
            return said
    raise LookupError(codes)


def money(number: int | Decimal, currency: str, kind: Any, language: Locale) -> str:
    if not numbers.get_currency_precision(currency):
        number = int(number)  # or the plural would follow the cents that are not shown
    cents = kind == "standard" or isinstance(number, Decimal)
    return numbers.format_currency(number, currency, None, language, cents, kind)


def percent(number: int | Decimal, language: Locale) -> str:
    return numbers.format_percent(Decimal(number) / 100, locale=language, decimal_quantization=False)


def number(value: int, language: Locale) -> str:
    return numbers.format_decimal(value, locale=language)


def rounded(number: float | Decimal, language: Locale) -> str:
    return numbers.format_compact_decimal(number, format_type="long", locale=language, fraction_digits=1)


def listed(items: Sequence[Phrase], style: Any, language: Locale) -> str:
    return _filled(format_list(list(MARKS[: len(items)]), style, language), items, language)


def _filled(pattern: str, phrases: Sequence[Phrase], language: Locale) -> str:
    """With a phrase for each mark. Raises LookupError where one would be missing, or be said twice, as Babel 2.19 has
    it for pairs in the style "unit" of Arabic."""
    for mark in MARKS[: len(phrases)]:
        if pattern.count(mark) != 1:
            raise LookupError(f"not each once: {pattern!r}")
    said = dict(zip(MARKS, (phrase(language) for phrase in phrases), strict=False))
    return "".join(said.get(letter, letter) for letter in pattern)

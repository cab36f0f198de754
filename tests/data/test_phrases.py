"""Phrases repeat themselves exactly, are each there once, are right in both languages, and exist for any two."""

import json
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from babel import Locale
from babel.localedata import locale_identifiers

from transformer_lab.data.examples import Pair
from transformer_lab.data.sources import cldr, phrases
from transformer_lab.data.sources.cldr import LACKS
from transformer_lab.data.sources.phrases import KINDS, LENGTHS, PRICED, Dice, Phrases, _same


def source(**options: Any) -> Phrases:
    return Phrases(**{"size": 500, "validation": 0.1, "test": 0.1, **options})


def pairs(**options: Any) -> list[Pair]:
    return [pair for _, pair in source(**options).read()]


@pytest.fixture(scope="module")
def thousands() -> list[tuple[str, Pair]]:
    return list(source(size=5_000).read())


def mistake(**options: Any) -> str:
    with pytest.raises(ValueError) as error:
        pairs(**options)
    assert "\n" not in str(error.value)
    return str(error.value)


# The same again


def test_the_same_seed_composes_the_same_phrases() -> None:
    assert list(source().read()) == list(source().read())


def test_reading_again_begins_anew() -> None:
    once = source()
    assert list(once.read()) == list(once.read())


def test_another_seed_composes_others() -> None:
    first, second = ({pair.source for pair in pairs(seed=seed)} for seed in (1, 2))
    assert len(first & second) < len(first) / 2


def test_a_larger_size_begins_with_the_phrases_of_a_smaller() -> None:
    assert pairs(size=800)[:300] == pairs(size=300)


def test_the_signature_tells_every_choice() -> None:
    choices = ({}, {"source": "fr"}, {"target": "fr"}, {"size": 501}, {"seed": 2}, {"validation": 0.2}, {"test": 0.2})
    assert len({json.dumps(source(**options).cache_key()) for options in choices}) == len(choices)


# Each once


def test_there_are_as_many_phrases_as_asked_for_and_none_twice(thousands: list[tuple[str, Pair]]) -> None:
    assert len(thousands) == len({pair.source for _, pair in thousands}) == 5_000


def test_no_source_is_in_two_splits(thousands: list[tuple[str, Pair]]) -> None:
    splits: dict[str, set[str]] = {}
    for split, pair in thousands:
        splits.setdefault(split, set()).add(pair.source.casefold())
    assert set(splits) == {"train", "validation", "test"}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values()))


def test_spaces_are_plain_and_single(thousands: list[tuple[str, Pair]]) -> None:
    for _, pair in thousands:
        assert [" ".join(text.split()) for text in pair.texts] == list(pair.texts)
        assert all(pair.texts)


# Right


@pytest.mark.parametrize(
    "said, english, german",
    [
        (lambda words: words.days[0](datetime(2024, 5, 17)), "May 17, 2024", "17. Mai 2024"),
        (lambda words: words.days[1](datetime(2024, 3, 5)), "Tuesday, March 5, 2024", "Dienstag, 5. März 2024"),
        (lambda words: words.clocks[0](datetime(2024, 5, 17, 15, 5)), "3:05 PM", "15:05"),
        (
            lambda words: words.periods[0]((datetime(2024, 5, 7), datetime(2024, 5, 12))),
            "May 7 – 12, 2024",
            "7.–12. Mai 2024",
        ),
        (
            lambda words: words.hours[0]((datetime(2024, 5, 1, 8, 30), datetime(2024, 5, 1, 17))),
            "8:30 AM – 5:00 PM",
            "08:30–17:00 Uhr",
        ),
        (lambda words: words.spans[0](3), "in 3 years", "in 3 Jahren"),
        (lambda words: words.spans[0](-1), "1 year ago", "vor 1 Jahr"),
        (lambda words: words.amounts[0](Decimal("1.5")), "1.5 kilometers", "1,5 Kilometer"),
        (lambda words: words.money[0](1_250), "1,250 euros", "1.250 Euro"),
        (
            lambda words: words.lists[0](words.territories[:3]),
            "Germany, France, and United States",
            "Deutschland, Frankreich und Vereinigte Staaten",
        ),
        (lambda words: words.lists[1](words.tongues[:2]), "English or German", "Englisch oder Deutsch"),
    ],
)
def test_phrases_are_right_in_both_languages(said: Any, english: str, german: str) -> None:
    words = source().words
    assert words.say(said(words)) == (english, german)
    assert source(source="de", target="en").words.say(said(words)) == (german, english)


def test_what_could_mean_two_things_is_not_said() -> None:
    """English has one short form, Mar 5, 2024, for two German ones, 5. März 2024 and 05.03.2024."""
    meant: dict[str, set[str]] = {}
    words = source().words
    for number in range(20_000):
        said, target = words.compose(Dice(f"{number}"))
        meant.setdefault(said, set()).add(target)
    assert not [said for said, targets in meant.items() if len(targets) > 1]


def test_a_language_without_a_long_word_for_a_unit_says_the_short_one() -> None:
    assert not [pair for pair in pairs(target="ja", size=2_000) if "duration" in pair.target]


# Any two languages


@pytest.mark.parametrize(
    "languages", ["en fr", "en es", "de en", "en ja", "pt_BR zh-TW", "ar ru", "en az_Arab", "en aa"]
)
def test_any_two_languages_have_phrases(languages: str) -> None:
    first, second = languages.split()
    assert len(pairs(source=first, target=second)) == 500


def test_no_kind_of_phrase_is_missing_from_the_default_languages() -> None:
    """A kind that fails in a language is left out without a word, and so would be one with a bug."""
    assert len(source().words.kinds) == len(KINDS)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "dee"}, r"data.target=dee: .*; did you mean de\?"),
        ({"source": "fy_NK"}, r"data.source=fy_NK: .*; did you mean fy_NL\?"),
        ({"target": "en"}, "data.target=en: the language of data.source too"),
        ({"size": 0}, "data.size=0"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        source(**options)
    assert "\n" not in str(error.value)


def test_more_phrases_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrases, "KINDS", ((1, lambda words, dice: dice.pick(words.weekdays)),))
    monkeypatch.setattr(phrases, "PATIENCE", 200)
    assert "data.size=8: en and de gave 7 different phrases and no more" in mistake(size=8, validation=0, test=0)


def test_what_is_meant_stands_in_the_phrase_once_in_every_locale_of_the_cldr() -> None:
    """L5, for what holds other phrases: lists, days with a clock, prices; or the locale has no such phrase."""
    letters = ["◆", "◇", "○", "●"]
    items = [partial(_same, letter) for letter in letters]
    forms = [
        (letters[:n], partial(cldr.listed, items[:n], style)) for n in (2, 3, 4) for style in ("standard", "or", "unit")
    ]
    forms += [(letters[:2], partial(cldr.day_and_clock, *items[:2]))]
    forms += [
        (letters[:1], partial(cldr.price, items[0], unit, length)) for unit in PRICED.split() for length in LENGTHS
    ]
    lacking, said = 0, 0
    for name in locale_identifiers():
        language = Locale.parse(name)
        for meant, phrase in forms:
            try:
                text = phrase(language)
            except LACKS:
                lacking += 1
                continue
            said += 1
            assert all(text.count(letter) == 1 for letter in meant), (name, text)
    assert 0 < lacking < said / 5


def test_arabic_says_no_couple_twice() -> None:
    for pair in pairs(target="ar", size=3_000):
        words = pair.target.replace("،", "").split()
        assert not (len(words) > 3 and words[-2:] == words[-4:-2]), pair

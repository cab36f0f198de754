"""Twenty languages of ten scripts: texts of the CLDR's phrases in sentences whose borders are known, and of people."""

import random
from functools import cache

import pytest

from transformer_lab.data.segments import sentences
from transformer_lab.data.sources.phrases import Phrases

# What ends a sentence, the first of them three times in four; what parts its phrases; what stands between sentences.
LATIN = (".!?", ", ", " ")
LANGUAGES = {
    **dict.fromkeys("en de fr es pl tr vi id ru uk he ta".split(), LATIN),
    "el": (".!;", ", ", " "),
    **dict.fromkeys(("ar", "fa"), (".!؟", "، ", " ")),
    "ur": ("۔!؟", "، ", " "),
    **dict.fromkeys(("hi", "bn"), ("।!?", ", ", " ")),
    **dict.fromkeys(("ja", "zh"), ("。！？", "、", "")),
}
QUOTES = {"de": "„“", "fr": "«»", "ru": "«»", "uk": "«»", "el": "«»", "fa": "«»", "pl": "„”", "ja": "「」", "zh": "“”"}
EVERY = pytest.mark.parametrize("language", LANGUAGES)


@cache
def phrases(language: str, size: int = 2000) -> list[str]:
    other = "de" if language == "en" else "en"
    return [pair.target for _, pair in Phrases(source=other, target=language, size=size, validation=0, test=0).read()]


def planted(language: str, count: int, seed: int = 0) -> list[str]:
    """Sentences of one to three phrases, some of them in quotes or brackets."""
    draw = random.Random(f"{language} {seed}")
    (usual, *others), comma, _ = LANGUAGES[language]
    made = []
    for _ in range(count):
        text = comma.join(draw.choices(phrases(language), k=draw.choice((1, 2, 3))))
        text = text[:1].upper() + text[1:]
        end = usual if draw.random() < 0.75 and not text.endswith(".") else draw.choice(others)
        opens, closes = draw.choice((QUOTES.get(language, '""'), "()")) if draw.random() < 0.1 else ("", "")
        made.append(f"{opens}{text}{end}{closes}")
    return made


def borders(parts: list[str]) -> set[int]:
    """How many letters and signs are before each border."""
    places, reached = set(), 0
    for part in parts:
        reached += len("".join(part.split()))
        places.add(reached)
    return places - {reached}


def found_and_wrong(made: list[str], between: str) -> tuple[float, float]:
    """Shares: of the borders that were found, and of those found that were not there; over documents of twenty."""
    there = found = right = 0
    for begin in range(0, len(made), 20):
        wanted, got = (borders(parts) for parts in (made[begin : begin + 20], sentences(between.join(made[begin : begin + 20]))))
        there, found, right = there + len(wanted), found + len(got), right + len(wanted & got)
    return right / there, (found - right) / max(found, 1)


@EVERY
def test_planted_borders_are_found_and_no_others(language: str) -> None:
    found, wrong = found_and_wrong(planted(language, 1000), LANGUAGES[language][2])
    assert found >= 0.99 and wrong <= 0.01

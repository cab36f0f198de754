"""Quizzes whose answers are computed: a question is a function of a seed, and so are the misconceptions it knows.

There is no file of answers. A quiz is drawn by a seed, asked in a terminal or in a cell of a notebook, and can be drawn
and marked again from what was kept of it.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from random import Random
from typing import Any

from transformer_lab.course import progress
from transformer_lab.course.progress import PASSES, Mark, passes

LETTERS = "abcdefgh"
EXACT = 0.01  # of a number that is no whole one: what it may be off by, of its size


@dataclass(frozen=True)
class Question:
    """`wrong` are misconceptions: what each answers, and why that is not so; those that come to the answer, or to what
    one before them came to, are left out. Numbers are typed; texts stand under letters to choose from."""

    text: str
    answer: int | float | str
    why: str
    wrong: Mapping[int | float | str, str]

    def __post_init__(self) -> None:
        kept: dict[int | float | str, str] = {}
        for value, why in self.wrong.items():
            if not any(same(value, other) or same(other, value) for other in (self.answer, *kept)):
                kept[value] = why
        object.__setattr__(self, "wrong", kept)


Kind = Callable[[Random], Question]


@dataclass(frozen=True)
class Asked:
    """A question of a quiz, with its options in their order."""

    question: Question
    options: tuple[int | float | str, ...]

    @property
    def text(self) -> str:
        lines = [f"   {letter}) {shown(option)}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.question.text, *lines])

    @property
    def solved(self) -> str:
        """The right answer, as it is typed."""
        answer = self.question.answer
        return LETTERS[self.options.index(answer)] if self.options else shown(answer)

    def means(self, typed: str) -> int | float | str | None:
        """What was typed stands for; None for what is no answer."""
        typed = typed.strip().lower()
        if self.options:
            place = LETTERS.find(typed) if len(typed) == 1 else -1
            return self.options[place] if 0 <= place < len(self.options) else None
        try:
            return float(typed.replace(",", "").replace("%", ""))
        except ValueError:
            return None

    def right(self, typed: str) -> bool:
        return same(self.means(typed), self.question.answer)

    def explained(self, typed: str) -> str:
        """Why an answer is right, or what it takes for what."""
        if self.right(typed):
            return f"right: {self.question.why}"
        answer = self.means(typed)
        known = next((why for wrong, why in self.question.wrong.items() if same(answer, wrong)), None)
        told = f"{shown(self.question.answer)} is right: {self.question.why}"
        return f"no: {known}; {told}" if known else f"no: {told}"


def same(answer: Any, right: Any) -> bool:
    if isinstance(right, str) or answer is None:
        return bool(answer == right)
    return math.isclose(float(answer), right, rel_tol=0 if float(right).is_integer() else EXACT, abs_tol=1e-9)


def shown(value: int | float | str) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return value if isinstance(value, str) else f"{value:,.0f}"


@dataclass(frozen=True)
class QuizKinds:
    """The questions that a quiz is drawn from. `count` of them are asked; None: every kind once. A graded one explains
    after the whole."""

    name: str
    kinds: Sequence[Kind]
    count: int | None = None
    graded: bool = False

    def draw(self, seed: int | None = None) -> "Quiz":
        seed = int.from_bytes(os.urandom(3)) if seed is None else seed
        random = Random(f"{self.name} {seed}")
        kinds = random.sample(list(self.kinds), len(self.kinds) if self.count is None else self.count)
        return Quiz(self, seed, tuple(_asked(kind, Random(f"{seed} {kind.__name__}")) for kind in kinds))


def _asked(kind: Kind, random: Random) -> Asked:
    question = kind(random)
    if not isinstance(question.answer, str):
        return Asked(question, ())
    options = [question.answer, *question.wrong]
    random.shuffle(options)
    return Asked(question, tuple(options))


@dataclass(frozen=True, repr=False)
class Quiz:
    """Questions by a seed: a cell shows them, `grade` marks answers, `ask` asks in a terminal."""

    kinds: QuizKinds
    seed: int
    asked: tuple[Asked, ...]

    def __repr__(self) -> str:
        return "\n\n".join(f"{number}. {one.text}" for number, one in enumerate(self.asked, 1))

    def _repr_html_(self) -> str:
        texts = [escape(one.text).replace("\n", "<br>").replace("   ", "&emsp;") for one in self.asked]
        how = f"quiz.grade({', '.join(repr(_example(one)) for one in self.asked[:3])}, …)"
        items = "".join(f'<li style="margin-bottom: 0.8em">{text}</li>' for text in texts)
        return f"<ol>{items}</ol><p><code>{escape(how)}</code> marks your answers.</p>"

    def solved(self) -> list[str]:
        """The right answers: what a solved notebook has, and tests."""
        return [one.solved for one in self.asked]

    def grade(self, *answers: str | int | float) -> "Graded":
        """Mark answers, one for each question in their order, and keep the mark. Raises ValueError for too many or too
        few, for what is no answer, and for a graded quiz whose questions were marked, and explained, before."""
        if len(answers) != len(self.asked):
            raise ValueError(f"answers: {len(answers)} for {len(self.asked)} questions")
        typed = [str(answer) for answer in answers]
        for number, (one, text) in enumerate(zip(self.asked, typed, strict=True), 1):
            if text and one.means(text) is None:
                want = f"one of {', '.join(LETTERS[: len(one.options)])}" if one.options else "a number"
                raise ValueError(f"answer {number}: {text!r} is not {want}")
        sheet = self.kinds.name, self.seed
        if self.kinds.graded and any((mark.quiz, mark.seed) == sheet for mark in progress.read().marks):
            raise ValueError(
                f"{self.kinds.name}: the questions of seed {self.seed} have been marked; others are drawn anew"
            )
        graded = Graded(self, typed)
        progress.keep(Mark(self.kinds.name, self.seed, typed, graded.right, version("transformer-lab"), progress.now()))
        return graded

    def ask(self) -> "Graded":
        """In a terminal: one question after the other."""
        typed: list[str] = []
        for number, one in enumerate(self.asked, 1):
            print(f"\n{number} of {len(self.asked)}. {one.text}")
            while True:
                text = input("> ")
                if not text.strip() or one.means(text) is not None:
                    break
                print(f"{f'a letter, {LETTERS[0]} to {LETTERS[len(one.options) - 1]}' if one.options else 'a number'}")
            typed.append(text.strip())
            if not self.kinds.graded:
                print(one.explained(text))
        return self.grade(*typed)


def _example(one: Asked) -> str | int:
    return "b" if one.options else 12


@dataclass(frozen=True, repr=False)
class Graded:
    """Answers, marked; it shows itself with what explains each."""

    quiz: Quiz
    typed: list[str]

    @property
    def right(self) -> int:
        return sum(one.right(text) for one, text in zip(self.quiz.asked, self.typed, strict=True))

    @property
    def passed(self) -> bool:
        return passes(self.right, len(self.typed))

    def __repr__(self) -> str:
        lines = [
            f"{number}. {one.explained(text)}"
            for number, (one, text) in enumerate(zip(self.quiz.asked, self.typed, strict=True), 1)
        ]
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        passed = f", {'passed' if self.passed else f'{PASSES:.0%} passes'}" if self.quiz.kinds.graded else ""
        return f"{self.right} of {len(self.typed)} right{passed}"


def marked_again(mark: Mark, kinds: QuizKinds) -> str:
    """Empty where the mark is what its answers come to; else in what it is not."""
    if mark.version != version("transformer-lab"):
        return f"of version {mark.version}, which has other questions: this one is {version('transformer-lab')}"
    quiz = kinds.draw(mark.seed)
    if len(mark.answers) != len(quiz.asked):
        return f"{len(mark.answers)} answers for {len(quiz.asked)} questions"
    right = Graded(quiz, mark.answers).right
    return "" if right == mark.right else f"{mark.right} is written and {right} of {len(quiz.asked)} are right"

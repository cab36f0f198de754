"""The checks of the labs know mistakes: no wrong solution passes, no right one fails, and hints say what is so."""

import pytest
import torch

from tests.labs.conftest import LABS
from transformer_lab.course import lab as labs
from transformer_lab.course.checking import Draw, Exercise, Told, check, difference

EXERCISES = [(name, exercise) for name, lab in LABS.items() for exercise in lab.exercises]
SOLUTIONS = {name: labs.module_of(lab.folder / "solutions.py") for name, lab in LABS.items()}
each = pytest.mark.parametrize("name, exercise", EXERCISES)
draws = pytest.mark.parametrize("draws", [20, pytest.param(200, marks=pytest.mark.battery)])


@draws
@each
def test_right_ones_pass_however_they_are_written(name, exercise, draws):
    right = [LABS[name].exercises[exercise].right, *SOLUTIONS[name].RIGHT[exercise]]
    assert len(right) >= 3
    for one in right:
        verdict = check(LABS[name].exercises[exercise], one, range(draws))
        assert verdict.passed, verdict


@draws
@each
def test_no_wrong_one_passes_in_any_draw(name, exercise, draws):
    asked = LABS[name].exercises[exercise]
    assert len(SOLUTIONS[name].WRONG[exercise]) >= 8
    for one in [*asked.mistakes.values(), *(one for one, _ in SOLUTIONS[name].WRONG[exercise])]:
        for seed in range(draws):
            inputs = asked.draw(Draw(seed))
            try:
                assert difference(asked, asked.outcome(one, inputs), inputs), (one, seed)
            except Told:
                continue


@each
def test_a_usual_mistake_gets_its_own_hint(name, exercise):
    asked = LABS[name].exercises[exercise]
    for hint, mistake in asked.mistakes.items():
        assert check(asked, mistake).hint == hint


@each
def test_a_wrong_one_is_told_what_it_is_or_only_what_it_gave(name, exercise):
    for one, says in SOLUTIONS[name].WRONG[exercise]:
        verdict = check(LABS[name].exercises[exercise], one)
        if says is None:
            assert verdict.hint is None, verdict
        else:
            assert says in repr(verdict), verdict


def test_most_wrong_ones_get_a_hint():
    told = [
        says is not None for solutions in SOLUTIONS.values() for every in solutions.WRONG.values() for _, says in every
    ]
    assert sum(told) >= 0.6 * len(told)


DOUBLE = Exercise(
    name="double", shape="(T, K)", draw=lambda draw: (draw.normal(*draw.sizes(2)),), right=lambda x: 2 * x, mistakes={}
)


def fails(x):
    y = x + 1
    return y @ y


def changes(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    "written, said",
    [
        (fails, ", in your line "),
        (fails, "return y @ y"),
        (changes, "its first argument is another one afterwards"),
        (lambda x: None, "is there a return?"),
        (lambda x: x.tolist(), "it gives a list"),
        (lambda x: (2 * x).detach(), "no gradient"),
        (lambda x: 2 * x / 0, "right"),
        (lambda x: x[:, :1] * 2, "it makes"),
        (lambda x: x * torch.nan, "are nan"),
        (lambda x: (2 * x).round().long(), "whole numbers"),
        (lambda x: 2 * x + torch.randn_like(x), "are others"),
    ],
)
def test_what_has_no_hint_is_told_with_its_numbers(written, said):
    verdict = check(DOUBLE, written)
    assert not verdict.passed and said in repr(verdict), verdict


def test_a_draw_is_the_same_anywhere():
    first, second = Draw(3), Draw(3)
    assert first.sizes(4) == second.sizes(4) and torch.equal(first.normal(5), second.normal(5))
    assert len(set(first.sizes(4))) == 4


def test_what_has_passed_is_used_until_it_is_changed():
    lab = LABS["attention"]
    own = lab.exercises["scores"].right

    def scores(q, k):
        return (q / q.shape[1] ** 0.5) @ k.T

    assert lab.scores is own
    assert lab.check(scores).passed and lab.scores is scores
    right = scores

    def scores(q, k):
        return q @ k.T

    assert not lab.check(scores).passed and lab.scores is own is not right
    assert "1 of" in repr(lab)


def test_a_function_of_another_name_is_told():
    def score(q, k):
        return q

    with pytest.raises(ValueError, match="did you mean scores"):
        LABS["attention"].check(score)


def test_without_a_clone_one_line_says_where_the_labs_are(tmp_path, monkeypatch):
    monkeypatch.setattr(labs, "__file__", str(tmp_path / "transformer_lab" / "course" / "lab.py"))
    with pytest.raises(ValueError, match="labs: they come with a clone"):
        labs.lab("attention")

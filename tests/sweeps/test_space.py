"""What is searched: every combination of a grid once, intervals with their ends, keys that are set together."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from transformer_lab.sweeps.space import Space

PARSER = OverridesParser.create()


def space(*words, params=None, groups=("position", "optimizer")):
    return Space(PARSER, params or {}, words, groups)


def test_a_grid_holds_every_combination_once():
    searched = space("task=translation", "position=none,alibi", "++model.dim=32,64,128", "++seed=range(1,3)")
    assert searched.size == 12
    every = [tuple(searched.words(searched.combination(number))) for number in range(12)]
    assert len(set(every)) == 12 and every[0] == ("position=none", "++model.dim=32", "++seed=1")
    assert every[1] == ("position=none", "++model.dim=32", "++seed=2")  # the last key changes first
    assert searched.fixed == {"task": "task=translation"}


def test_keys_of_a_file_are_set_together():
    searched = space(params={"optimizer, optimizer.lr": "choice([muon, 0.01], [adamw, 1e-3])"})
    assert [searched.words(searched.combination(number)) for number in range(2)] == [
        ["optimizer=muon", "++optimizer.lr=0.01"],
        ["optimizer=adamw", "++optimizer.lr=0.001"],
    ]


def test_the_command_line_comes_after_a_file():
    params = {"position": "choice(none, alibi)", "seed": "choice(1, 2, 3)"}
    assert space("++seed=7", params=params).size == 2
    assert space("++seed=7,8", params=params).size == 4


@pytest.mark.parametrize("most", [4, 64])
def test_samples_hold_every_value_and_both_ends(most):
    searched = space("++a=1,2,3,4,5,6,7", "++b=tag(log,interval(0.5,2))", "++c=int(interval(1,9))")
    found = list(searched.samples(most))
    words = {word for some in found for word in some}
    assert words == {*(f"++a={n}" for n in range(1, 8)), "++b=0.5", "++b=2.0", "++c=1", "++c=9"}
    assert len(found) == (7 if most == 4 else 28) and searched.size is None


@pytest.mark.parametrize(
    "word, said",
    [
        ("++a=interval(2,1)", "the interval ends at 1.0, before it begins at 2.0"),
        ("++a=tag(log,interval(0,1))", "a logarithmic interval begins above 0"),
        ("++a=range(1,100000)", "more than 10,000 values"),
    ],
)
def test_what_cannot_be_searched_is_said(word, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        space(word)


@pytest.mark.parametrize("params", [{"a": 3}, {"a,b": "choice([1,2],[3])"}, {"a,b": "choice(1,2)"}])
def test_what_a_file_cannot_search_is_said_by_its_key(params):
    with pytest.raises(ValueError, match=rf"hydra\.sweeper\.params\.{next(iter(params))}: "):
        space(params=params)


def test_sizes_do_not_have_to_be_listed_to_be_counted():
    searched = space(*(f"++key{n}=range(0,1000)" for n in range(5)))
    assert searched.size == 1000**5 and math.prod(map(int, searched.combination(10**15 - 1).values())) == 999**5

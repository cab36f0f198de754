"""Which values matter: of a grid that is complete, and of a search that is long enough; else nothing is said."""

import itertools
import json

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from transformer_lab.sweeps import trials
from transformer_lab.sweeps.leaderboard import INTERPLAY, Leaderboard

WIDTHS, RATES = ["64", "128"], ["0.01", "0.02", "0.04"]
GRID = {"model.dim": WIDTHS, "optimizer.lr": RATES}


def board(folder, reached, *, space=GRID, sampler="grid"):
    """Of a sweep whose trials with these values, in the order of `space`, have reached this."""
    study = optuna.create_study(study_name=trials.NAME, storage=trials.storage(folder), direction="maximize")
    kinds = {
        name: CategoricalDistribution(values) if isinstance(values, list) else FloatDistribution(*values)
        for name, values in space.items()
    }
    for values, value in reached.items():
        params = dict(zip(space, values, strict=True))
        study.add_trial(create_trial(params=params, distributions=kinds, value=value))
    (folder / trials.ABOUT).write_text(json.dumps({"space": space, "sampler": sampler}))
    return Leaderboard.read(folder)


def test_of_a_full_grid_the_shares_are_those_of_its_variance(tmp_path):
    reached = {
        key: 1.24 * (key[0] == "128") + 0.0045 * RATES.index(key[1]) for key in itertools.product(*GRID.values())
    }
    found = board(tmp_path, reached)
    assert list(found.importance) == ["model.dim", "optimizer.lr", INTERPLAY]
    assert sum(found.importance.values()) == pytest.approx(1)
    assert found.importance["model.dim"] > 0.999 > 0.001 > found.importance["optimizer.lr"]
    assert any(line.startswith("share of the variance: model.dim 100%") for line in found.remarks())


def test_what_only_both_together_do_is_neithers(tmp_path):
    reached = {("64", "0.01"): 0.0, ("64", "0.02"): 1.0, ("128", "0.01"): 1.0, ("128", "0.02"): 0.0}
    found = board(tmp_path, reached, space={"model.dim": WIDTHS, "optimizer.lr": RATES[:2]}).importance
    assert found == pytest.approx({"model.dim": 0, "optimizer.lr": 0, INTERPLAY: 1})


@pytest.mark.parametrize(
    "reached",
    [
        {("64", "0.01"): 0.1, ("128", "0.01"): 0.2, ("64", "0.02"): 0.3},  # a combination is missing
        dict.fromkeys(itertools.product(*GRID.values()), 0.7),  # nothing makes a difference
        {},
    ],
)
def test_nothing_is_said_where_nothing_can_be(tmp_path, reached):
    assert board(tmp_path, reached).importance == {}


@pytest.mark.parametrize("number", [12, 40])
def test_a_search_says_something_once_it_is_long_enough(tmp_path, number):
    space = {"model.dropout": [0.0, 1.0], "optimizer.lr": [0.0, 1.0]}
    space = {name: tuple(values) for name, values in space.items()}
    draws = [(n / number, (n * 7 % number) / number) for n in range(number)]
    found = board(tmp_path, {values: values[0] for values in draws}, space=space, sampler="tpe").importance
    assert (found == {}) == (number == 12)
    assert number == 12 or found["model.dropout"] > found["optimizer.lr"]

"""A sweep ends with the trials that were asked for, each run once, however often it was killed in between."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import CONFIGS
from tests.programs import Program, call
from transformer_lab.composition.command_line import preflight
from transformer_lab.composition.problems import Refused
from transformer_lab.sweeps.sweeper import Trial, TrialFailed, TrialInterrupted

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    "data=text",
    f"data.path={ROOT}/README.md",
    "tokenizer=characters",
    "allow_overlap=true",
    "hardware=cpu",
    "model.num_layers=1",
    "task.context=32",
    "tokens_per_step=256",
    "max_steps=40",
    "pictures.layers=[]",
    "validate_every_steps=10",
    "checkpoint.every_steps=10",
    "data.validation=0.1",
)
SEARCH = ("sweep=optuna", "hydra.sweeper.pruner=none", "model.dim=16,32", "optimizer.lr=tag(log,interval(1e-3,1e-1))")


def sweep(folder, *words, wait=True):
    start = call if wait else Program
    return start("train.py", "-m", f"run_dir={folder}", *SMALL, *words, cwd=folder.parent, env={"COLUMNS": "200"})


def lines(folder):
    """Of the leaderboard, as a program reads it."""
    with (folder / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def results(folder):
    """Without what depends on how long it took."""
    return [
        {key: line[key] for key in ("trial", "model.dim", "optimizer.lr", "validation loss", "test loss", "steps")}
        for line in lines(folder)
    ]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid in which one trial diverges and one cannot be; and what was shown."""
    folder = tmp_path_factory.mktemp("grid") / "sweep"
    return folder, sweep(folder, "optimizer=adamw", "optimizer.lr=1e-2,1e30,1e-3")


def test_a_trial_that_diverges_is_recorded_and_the_rest_go_on(grid):
    folder, done = grid
    assert done.returncode == 0, done.stderr
    found = lines(folder)
    assert {line["trial"] for line in found[:2]} == {"000", "002"} and found[2]["trial"] == "001"
    assert float(found[0]["validation loss"]) < float(found[1]["validation loss"])
    assert "not finite in 10 steps in a row" in found[2]["state"] and not found[2]["validation loss"]
    assert "not finite in 10 steps in a row" in (folder / "leaderboard.md").read_text()


def test_the_leaderboard_can_be_asked_for_at_any_time(grid):
    folder, _ = grid
    before = (folder / "leaderboard.csv").read_text()
    (folder / "leaderboard.csv").unlink()
    done = call("scripts/leaderboard.py", f"sweep={folder}", env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "best first" in done.stdout and "optimizer.lr" in done.stdout
    assert (folder / "leaderboard.csv").read_text() == before
    wrong = call("scripts/leaderboard.py", f"sweep={folder / '000'}")
    assert wrong.returncode == 2 and wrong.stderr == (
        f"error: sweep: {folder / '000'} is not the folder of a sweep: it has no sweep.json\n"
    )


def test_a_sweep_of_other_values_is_not_mixed_into_the_folder_of_one(grid, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(grid[0], folder)
    done = sweep(folder, "optimizer=adamw", "optimizer.lr=1e-2,1e30,2e-3")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: run_dir: {folder} holds another sweep: space was ")


@pytest.mark.parametrize(
    "words, said",
    [
        (["model.dim=32,33"], "model.dim: 33 is not divisible by model.num_heads 4"),
        (["model.dim=32,64", "hydra.sweeper.sampler=tpe"], "hydra.sweeper.total: how many trials?"),
        (["model.dropout=interval(0,0.1)"], "hydra.sweeper.sampler: a grid has no intervals; sweep=optuna"),
        (["model.dim=32,64", "hydra/sweeper=basic"], "hydra/sweeper: only trials is served here"),
        (["model.dim=32"], "-m: nothing is searched"),
        (["model.dim=32,64", "plan=true"], "plan: of one run at a time"),
        (["model.dim=32,64", "hydra.sweeper.totl=4"], "Could not override 'hydra.sweeper.totl'; did you mean"),
    ],
)
def test_a_wrong_value_is_found_before_the_first_trial(tmp_path, words, said):
    done = sweep(tmp_path / "sweep", *words)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {said}"), done.stderr
    assert not (tmp_path / "sweep").exists()


def test_a_trial_that_lost_a_process_waits_for_another_time():
    def ends(again):
        raise Refused(["hardware.devices: rank 1 was ended by SIGKILL"], 1, again)

    with pytest.raises(TrialInterrupted, match="SIGKILL"):
        Trial(lambda config: ends(again=True))({})
    with pytest.raises(TrialFailed):
        Trial(lambda config: ends(again=False))({})


def test_a_sweep_needs_its_flag(tmp_path):
    done = call("train.py", "sweep=optimizers", *SMALL, cwd=tmp_path)
    assert done.returncode == 2 and "a sweep is run with -m" in done.stderr and not list(tmp_path.iterdir())


def test_without_a_folder_the_same_command_finds_its_own_again(tmp_path):
    command = ["train.py", "-m", *SMALL, "max_steps=10", "seed=1,2"]
    first, second = (call(*command, cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert "2 of 2 trials have ended" in second.stdout
    assert json.loads((folder / "sweep.json").read_text())["space"] == {"seed": ["1", "2"]}


def test_hopeless_trials_are_ended_and_the_best_stays_the_best(tmp_path):
    # The first four are the median's yardstick; what comes behind learns hardly anything in twenty steps.
    rates = "optimizer.lr=0.03,0.02,0.01,0.008,1e-5,1e-6,2e-6,5e-6"
    done = sweep(tmp_path / "pruned", "optimizer=adamw", rates, "hydra.sweeper.pruner=median", "max_steps=20")
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "pruned")
    assert [line["state"] for line in found] == ["done"] * 4 + ["pruned"] * 4
    assert [line["steps"] for line in found] == ["20"] * 4 + ["10"] * 4
    assert not list((tmp_path / "pruned").glob("00[4-7]/metrics.json"))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "sweep").glob("*.yaml")))
def test_every_shipped_sweep_can_be_built(name):
    words = ["seed=1,2"] if name == "optuna" else []
    assert preflight(["-m", f"sweep={name}", *words]).sweep

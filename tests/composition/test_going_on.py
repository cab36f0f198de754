"""A run goes on by its folder alone: what the command does not name is as it was; what does not fit is told soon."""

import json

import pytest
import yaml

from tests.conftest import TINY, settings
from tests.programs import call
from transformer_lab.composition.going_on import gone_on_with
from transformer_lab.run.train import train

SMALL = [*TINY, "max_steps=4", "validate_every_steps=2"]


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("going_on") / "run"
    train(**settings(*SMALL, f"data.path={place}/beginnings", f"cache_dir={place}/cache", f"run_dir={folder}"))
    return folder


def test_the_folder_is_all_that_has_to_be_named(run, place):
    done = call("train.py", f"run_dir={run}", "resume=auto", "max_steps=6", f"cache_dir={place}/cache")
    assert done.returncode == 0, done.stderr
    assert "Going on after step 4" in done.stdout
    assert json.loads((run / "metrics.json").read_text())["steps"] == 6


def test_what_does_not_fit_is_refused_before_data_are_prepared(run, tmp_path):
    done = call("train.py", f"run_dir={run}", "resume=auto", "model.dim=64", f"cache_dir={tmp_path}/cache")
    assert done.returncode == 2 and not (tmp_path / "cache").exists()
    assert done.stderr == "error: resume: this would be another run: model.dim was 32, is 64\n"


def went_on(run, *words):
    """The config that a command with these words would have."""
    typed = ["+" + word if "." in word.partition("=")[0] else word for word in words]
    return gone_on_with(settings(f"run_dir={run}", "resume=auto", *words), [f"++run_dir={run}", *typed], settings)


def test_what_is_typed_counts_and_all_else_is_the_runs(run):
    before = yaml.safe_load((run / "config.yaml").read_text())
    for words, changed in (
        ([], {}),
        (["optimizer.lr=0.5"], {"optimizer": {**before["optimizer"], "lr": 0.5}}),
        (["schedule=constant", "model=decoder", "task=language_modeling"], {}),  # as they are
        (["average=ema"], {"average": settings("average=ema")["average"]}),
    ):
        found = went_on(run, *words)
        for own in ("run_dir", "resume", "cache_dir", "extensions"):
            assert found[own] == settings(f"run_dir={run}", "resume=auto")[own]
        rest = {key: value for key, value in found.items() if key not in ("run_dir", "resume", "cache_dir")}
        assert rest == {key: value for key, value in (before | changed).items() if key in rest}, words


def test_another_class_is_another_section(run):
    found = went_on(run, "task=mlm_nsp")
    expected = settings("task=mlm_nsp")
    assert found["task"] == expected["task"] and found["model"] == expected["model"]
    assert found["data"]["path"].endswith("beginnings")  # nobody has named that


def test_without_a_run_there_nothing_is_taken_and_a_damaged_config_is_one_line(tmp_path):
    values = settings(f"run_dir={tmp_path}", "resume=auto")
    assert gone_on_with(values, [], settings) == values
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"^run_dir: .*config\.yaml is no config of a run") as error:
        gone_on_with(values, [], settings)
    assert "\n" not in str(error.value)
    (tmp_path / "config.yaml").write_text("a list")
    with pytest.raises(ValueError, match="is no config of a run"):
        gone_on_with(values, [], settings)

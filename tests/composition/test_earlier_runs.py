"""A run goes on by its folder alone, and starts like the one whose weights it takes: what is given counts."""

import json

import pytest
import yaml

from tests.conftest import TINY, settings
from tests.programs import call
from transformer_lab.composition.command_line import preflight
from transformer_lab.composition.configs import CONFIGS
from transformer_lab.run.train import train

SMALL = [*TINY, "max_steps=4", "validate_every_steps=2"]


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("going_on") / "run"
    train(**settings(*SMALL, f"data.path={place}/beginnings", f"cache_dir={place}/cache", f"run_dir={folder}"))
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The config of a run, as its folder holds it."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = ["task=mlm_nsp", "model.dim=64", "model.num_heads=2", "position=alibi", "feed_forward=gelu", "norm=layer"]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(*words)))
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


def composed(*words):
    """The config that a command has."""
    return preflight(list(words)).run


def went_on(run, *words):
    return composed(f"run_dir={run}", "resume=auto", *words)


def test_what_is_given_counts_and_all_else_is_the_runs(run):
    before = yaml.safe_load((run / "config.yaml").read_text())
    for words, changed in (
        ([], {}),
        (["optimizer.lr=0.5"], {"optimizer": {**before["optimizer"], "lr": 0.5}}),
        (["schedule=constant", "model=decoder", "task=language_modeling"], {}),  # as they are
        (["average=ema"], {"average": settings("average=ema")["average"]}),
        (["hardware=cpu"], {"hardware": settings("hardware=cpu")["hardware"]}),  # the same class, on another device
        (["debug=sanity"], {"max_steps": 20, "validate_every_steps": 10, "log_every_steps": 1}),
    ):
        found = went_on(run, *words)
        for own in ("run_dir", "resume", "cache_dir", "extensions"):
            assert found[own] == settings(f"run_dir={run}", "resume=auto")[own]
        if "debug=sanity" in words:
            assert found.pop("checkpoint")["every_steps"] == 10
        rest = {key: value for key, value in found.items() if key not in ("run_dir", "resume", "cache_dir")}
        assert rest == {key: value for key, value in (before | changed).items() if key in rest}, words


def test_an_experiment_counts_as_if_its_keys_were_typed(run):
    found, asked = went_on(run, "experiment=gpt2", "tokenizer=byte_bpe"), settings("experiment=gpt2")
    for group in ("position", "norm", "feed_forward", "optimizer", "schedule"):
        assert found[group] == asked[group]
    said = yaml.safe_load((CONFIGS / "experiment/gpt2.yaml").read_text())["model"]
    assert found["model"] == yaml.safe_load((run / "config.yaml").read_text())["model"] | said
    assert found["tokens_per_step"] == asked["tokens_per_step"]
    assert found["data"]["path"].endswith("beginnings")  # of which it says nothing
    assert (
        went_on(run, "experiment=gpt2", "tokenizer=byte_bpe", "model.dim=96")["model"]["dim"] == 96
    )  # what is typed comes last


def test_another_class_is_another_section(run):
    found = went_on(run, "task=mlm_nsp")
    expected = settings("task=mlm_nsp")
    assert found["task"] == expected["task"] and found["model"] == expected["model"]
    assert found["data"]["path"].endswith("beginnings")  # nobody has named that


def test_a_set_of_data_that_is_named_is_not_passed_over(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings("task=classification", "data=imdb")))
    found = went_on(tmp_path, "data=sst2")  # read by the same class
    assert found["data"]["dataset"] == "stanfordnlp/sst2" and found["data"]["text_column"] == "sentence"


def test_without_a_run_there_nothing_is_taken_and_a_damaged_config_is_one_line(tmp_path, capsys):
    words = [f"run_dir={tmp_path}", "resume=auto"]
    assert composed(*words) == settings(*words)
    for text in ("a: [", "a list"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(SystemExit):
            composed(*words)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: run_dir: ") and "config.yaml is no config of a run" in line


def test_a_model_is_built_as_the_one_whose_weights_it_takes(pretrained):
    theirs, words = yaml.safe_load((pretrained / "config.yaml").read_text()), [f"init_from={pretrained}"]
    found = composed("task=classification", *words)
    for part in ("model", "position", "norm", "feed_forward", "residual", "mixer"):
        assert found[part] == theirs[part], part
    for part in ("task", "data", "tokenizer", "optimizer", "tokens_per_step"):
        assert found[part] == settings("task=classification")[part], part
    given = composed("task=classification", "model=encoder", "model.dropout=0.3", "position=rotary", *words)
    assert given["model"] == theirs["model"] | {"dropout": 0.3}
    assert given["position"] == settings()["position"]


def test_a_model_of_another_class_takes_the_options_that_both_have(pretrained):
    found, usual = composed("task=translation", f"init_from={pretrained}"), settings("task=translation")
    assert found["model"] == usual["model"] | {"dim": 64, "num_heads": 2, "num_layers": 4}
    assert found["position"]["_target_"].endswith("Alibi")


def test_the_config_that_is_shown_is_the_one_that_would_run(pretrained, run, capsys):
    for words in (["task=classification", f"init_from={pretrained}"], [f"run_dir={run}", "resume=auto"]):
        with pytest.raises(SystemExit) as stop:
            preflight([*words, "--cfg", "job"])
        assert stop.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out) == composed(*words)


STOP = "lightning.pytorch.callbacks.EarlyStopping"


@pytest.fixture
def mine(tmp_path):
    """A folder of one's own configs."""
    for name, text in {
        "experiment/stops": f"callbacks:\n  stop:\n    _target_: {STOP}\n    monitor: val/loss",
        "experiment/two": "defaults:\n  - stops\nmodel:\n  dropout: 0.25",
        "hardware/other": yaml.safe_dump({"hardware": settings("hardware=cpu")["hardware"] | {"workers": 1}}),
    }.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# @package _global_\n# Mine\n{text}\n")
    (tmp_path / "hardware/mine.yaml").write_text("# Mine\ndefaults:\n  - cpu\nworkers: 1\n")
    return f"--config-dir={tmp_path}"


def test_what_is_deleted_beside_an_experiment_stays_deleted(run, mine):
    assert "stop" in went_on(run, mine, "experiment=stops")["callbacks"]
    assert went_on(run, mine, "experiment=stops", "~callbacks.stop")["callbacks"] == {}
    nested = went_on(run, mine, "experiment=two")
    assert nested["model"]["dropout"] == 0.25 and "stop" in nested["callbacks"]


def test_a_section_that_is_typed_gives_the_keys_that_are_in_it(run, pretrained):
    theirs = yaml.safe_load((pretrained / "config.yaml").read_text())["model"]
    found = composed("task=classification", f"init_from={pretrained}", "model={dropout:0.3}")
    assert found["model"] == theirs | {"dropout": 0.3}
    before = yaml.safe_load((run / "config.yaml").read_text())["hardware"]
    assert went_on(run, "hardware={workers:1}")["hardware"] == before | {"workers": 1}


@pytest.mark.parametrize("option", ["mine", "other"])
def test_an_option_that_is_named_gives_all_that_its_files_say(run, mine, option):
    cpu = settings("hardware=cpu")["hardware"]
    assert went_on(run, mine, f"hardware={option}")["hardware"] == cpu | {"workers": 1}


def test_a_group_that_is_taken_away_is_missed(run, pretrained, capsys):
    for words in ([f"run_dir={run}", "resume=auto"], [f"init_from={pretrained}"]):
        for group in ("position", "logger"):
            with pytest.raises(SystemExit):
                composed(*words, f"~{group}")
            assert capsys.readouterr().err == f"error: {group}: required, not set\n"


def test_what_the_task_sets_of_the_model_holds_beside_the_weights_of_another(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings("task=classification", "model.dim=64")))
    found = composed("task=mlm_nsp", f"init_from={tmp_path}")["model"]
    assert found["dim"] == 64 and found["token_types"] == 2


def test_an_interpolation_means_the_values_of_the_run(run, pretrained):
    found = composed("task=classification", f"init_from={pretrained}", "feed_forward.hidden_dim=${model.dim}")
    assert found["feed_forward"]["hidden_dim"] == 64
    assert went_on(run, "checkpoint.every_steps=${validate_every_steps}")["checkpoint"]["every_steps"] == 2


def test_a_sweep_is_checked_with_the_model_that_its_trials_will_have(pretrained, capsys):
    words = ["task=classification", f"init_from={pretrained}"]
    assert preflight([*words, "-m", "model.num_heads=1,2", "position=alibi,none"]).sweep
    with pytest.raises(SystemExit):
        preflight([*words, "-m", "position.base=1,2"])  # it is alibi
    assert "position.base: no such option of Alibi" in capsys.readouterr().err


def test_with_resume_changed_an_option_of_what_may_change_gives_its_values(run):
    assert went_on(run, "optimizer.lr=0.5")["optimizer"]["lr"] == 0.5
    (usual,) = {settings("optimizer=muon")["optimizer"]["lr"]}
    changed = composed(f"run_dir={run}", "resume=changed", "optimizer=muon")
    assert changed["optimizer"]["lr"] == usual

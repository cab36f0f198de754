"""A run goes out as a folder for others, and is compared with what reads it where that is installed."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.programs import call
from transformer_lab.finished import exported
from transformer_lab.finished.loaded_run import load_run

STORED = Path(__file__).parent.parent / "stored_runs"
COMPARES = importlib.util.find_spec("transformers") is not None


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    done = call("scripts/export.py", f"run={STORED / 'language_modeling'}", "to=mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "mine", done.stdout


def test_a_run_becomes_a_folder_with_all_that_others_read(out):
    folder, said = out
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "README.md",
    }
    assert ("logits differ by at most" if COMPARES else "not compared") in said
    assert "written: mine (ApertusForCausalLM)" in said
    card = (folder / "README.md").read_text()
    scores = json.loads((STORED / "language_modeling" / "metrics.json").read_text())["test"]
    assert all(f"| test {name} | {value:.4g} |" in card for name, value in scores.items())


def test_it_says_what_the_run_says(out):
    folder, _ = out
    run, again = load_run(str(STORED / "language_modeling"), []), load_run(str(folder), [])
    options = {"temperature": 0.0, "max_new_tokens": 12}
    assert again.task.predict(["def "], **options) == run.task.predict(["def "], **options)


def test_a_folder_that_is_not_empty_is_left_alone(out):
    folder, _ = out
    before = (folder / "config.json").read_bytes()
    done = call("scripts/export.py", f"run={STORED / 'language_modeling'}", f"to={folder}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is not empty" in done.stderr
    assert (folder / "config.json").read_bytes() == before


HOLDS = {"translation": "T5ForConditionalGeneration", "classification": "BertForSequenceClassification"}


@pytest.mark.parametrize("task", HOLDS)
def test_what_no_class_holds_is_refused_with_what_would_do(task, tmp_path):
    done = call("scripts/export.py", f"run={STORED / task}", "to=out", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{HOLDS[task]} would, if it had been trained with" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not COMPARES, reason="transformers is not installed")
def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch):
    write = exported.writing.write

    def slightly_off(folder, found, task):
        write(folder, found, task)
        weights = load_file(folder / "model.safetensors")
        name = "model.layers.0.mlp.up_proj.weight"
        weights[name] = weights[name] + 0.01 * torch.randn_like(weights[name])
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(exported.writing, "write", slightly_off)
    run = str(STORED / "language_modeling")
    with pytest.raises(ValueError, match="makes another model of it: logits differ by up to"):
        list(exported.export(load_run(run, []), run, str(tmp_path / "out")))
    assert not list(tmp_path.iterdir())

"""Runs that an earlier version has left are read, evaluated and gone on with: `stored_runs/` holds one of each task."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import settings
from tests.programs import call
from transformer_lab.composition.build import rehearse
from transformer_lab.finished.loaded_run import evaluate_run, load_run
from transformer_lab.renamed import config_of_today
from transformer_lab.training.saved import read_weights

STORED = Path(__file__).parent / "stored_runs"
PROMPTS = {"mlm_nsp": "The <mask> waits by the door.", "translation": "The river waits by the door."}
METRICS = {"cut_texts": "truncated_texts"}  # by the name of then that of today


@pytest.fixture(params=sorted(path.name for path in STORED.iterdir() if (path / "checkpoints").is_dir()))
def stored(request, tmp_path, monkeypatch):
    """A copy of one of four steps, `run/`, in a folder with its data."""
    shutil.copytree(STORED / "data", tmp_path, dirs_exist_ok=True)
    shutil.copytree(STORED / request.param, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return request.param


def test_it_predicts_and_is_evaluated_to_what_it_reported(stored):
    loaded = load_run("run", [])
    (said,) = loaded.task.predict([PROMPTS.get(stored, "The river waits")])
    assert said["input"] and said["text"]
    reported = json.loads(Path("run/metrics.json").read_text())["test"]
    found = evaluate_run(loaded, "test", "cpu", {"path": loaded.config["data"]["path"]}).metrics
    assert found == pytest.approx({METRICS.get(name, name): value for name, value in reported.items()}, rel=1e-4)


def losses(folder):
    """Of each step, as the logger wrote it."""
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")}


def test_it_goes_on_to_what_it_became(stored):
    checkpoints = Path("run/checkpoints")
    before, expected = (read_weights(checkpoints / f"step-0000000{step}") for step in (2, 4))
    shutil.rmtree(checkpoints / "step-00000004")
    for link in (checkpoints / "last", checkpoints / "best"):
        link.unlink()
        link.symlink_to("step-00000002")
    done = call("train.py", "run_dir=run", "resume=auto", "cache_dir=cache")
    assert done.returncode == 0 and "Going on after step 2" in done.stdout, done.stdout + done.stderr
    found = read_weights(checkpoints / "step-00000004")
    assert found.keys() == expected.keys()
    # What two steps changed: processors round sums in bf16 differently, and Muon makes small things as large as others.
    for name, weight in expected.items():
        assert (found[name] - weight).norm() <= 0.1 * (weight - before[name]).norm(), name
    assert losses(Path("run")) == pytest.approx(losses(STORED / stored), rel=1e-4)


def test_an_older_name_of_a_key_is_taken_and_the_new_one_told():
    config = settings("task=mlm_nsp", "task.mask_share=0.4")
    found = config_of_today(config)
    assert found["task"] == settings("task=mlm_nsp", "task.mlm_probability=0.4")["task"]
    assert rehearse(found).collate.masking.probability == 0.4
    done = call("train.py", "task=mlm_nsp", "task.mask_share=2")
    assert done.returncode == 2 and "task.mask_share is called task.mlm_probability now" in done.stderr
    assert "error: task.mlm_probability: 2" in done.stderr

"""In which precision a run computes is decided once, recorded, and kept by all that follows."""

import shutil

import pytest
import torch
import yaml

from tests.conftest import README_BY_LETTERS, settings
from transformer_lab import training
from transformer_lab.finished import loaded_run
from transformer_lab.finished.loaded_run import evaluate_run, load_run
from transformer_lab.run.train import train
from transformer_lab.training import saved
from transformer_lab.training.hardware import WORTH_BF16, Hardware

AUTO = {"compile": False, "micro_batch_tokens": 64, "precision": "auto"}


@pytest.fixture
def able(monkeypatch):
    """On a CPU that multiplies bf16, for the models of a test."""
    for module in (training.hardware, loaded_run):
        monkeypatch.setattr(module, "product_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(training.hardware, "WORTH_BF16", 1)


@pytest.fixture
def go(tmp_path):
    def trained(*words, name="run", steps=4):
        train(
            **settings(
                *README_BY_LETTERS,
                "model.dim=16",
                "model.num_heads=2",
                "model.num_layers=1",
                "pictures.layers=[]",
                "hardware=cpu",
                "validate_every_steps=2",
                "checkpoint.every_steps=2",
                "schedule=constant",
                "schedule.warmup_steps=0",
                f"max_steps={steps}",
                f"cache_dir={tmp_path / 'cache'}",
                f"run_dir={tmp_path / name}",
                *words,
            )
        )
        return tmp_path / name

    return trained


def precision(run):
    return yaml.safe_load((run / "config.yaml").read_text())["hardware"]["precision"]


def predicts_in_bf16(run, monkeypatch):
    monkeypatch.setattr(run.task, "predict", lambda texts: torch.is_autocast_enabled("cpu"))
    return run.predict(["A text"])


def weights(run):
    return saved.read_weights(saved.newest_whole(run / "checkpoints"))


def test_auto_is_bf16_where_the_processor_has_it_and_a_pass_is_large(monkeypatch):
    machine = Hardware(accelerator="cpu", **AUTO)
    monkeypatch.setattr(training.hardware, "product_dtype", lambda device: torch.bfloat16)
    assert machine.resolved(WORTH_BF16).precision == "bf16"
    assert machine.resolved(WORTH_BF16 - 1).precision == "fp32"
    monkeypatch.setattr(training.hardware, "product_dtype", lambda device: torch.float32)
    assert machine.resolved(100 * WORTH_BF16).precision == "fp32"
    assert Hardware(accelerator="cpu", **AUTO | {"precision": "fp32"}).resolved(100 * WORTH_BF16).precision == "fp32"


def test_what_auto_was_is_recorded_and_what_follows_uses_it(go, able, monkeypatch):
    whole = go(name="whole")
    run = go(steps=2)
    assert precision(whole) == precision(run) == "bf16"
    monkeypatch.setattr(training.hardware, "WORTH_BF16", 1 << 60)  # another rule, or another machine
    assert precision(go("resume=auto")) == "bf16"
    assert all(torch.equal(weights(whole)[name], weight) for name, weight in weights(run).items())
    assert precision(go(name="narrow")) == "fp32"  # what the rule says of a new run
    seen = []
    monkeypatch.setattr(loaded_run, "evaluate", lambda task, batches, machine: seen.append(machine.precision))
    evaluate_run(load_run(run, []), "validation", "cpu")
    assert seen == ["bf16"]
    assert predicts_in_bf16(load_run(run, []), monkeypatch)
    monkeypatch.setattr(loaded_run, "product_dtype", lambda device: torch.float32)
    monkeypatch.setattr(loaded_run.log, "warning", seen.append)
    evaluate_run(load_run(run, []), "validation", "cpu")
    assert seen[1:] == ["The run was trained in bf16, in which this machine is slow: it is evaluated in fp32", "fp32"]
    assert not predicts_in_bf16(load_run(run, []), monkeypatch)


def test_a_run_goes_on_in_another_precision_only_if_that_is_asked_for(go, able):
    run = go(steps=2)
    with pytest.raises(ValueError, match=r"hardware.precision was bf16, is fp32; resume=changed goes on all the same$"):
        go("hardware.precision=fp32", "resume=auto")
    go("hardware.precision=fp32", "resume=changed")
    assert "Going on with a change: hardware.precision was bf16, is fp32" in (run / "log.txt").read_text()
    assert precision(run) == "fp32"


def test_a_run_of_before_precisions_were_recorded_goes_on_as_auto_was_then(go, able, monkeypatch):
    """… in fp32 on a CPU."""
    whole = go("hardware.precision=fp32", name="whole")
    run = go("hardware.precision=fp32", steps=2)
    read = saved.read_training

    def without(folder):
        found = read(folder)
        del found["identity"]["config"]["hardware"]
        return found

    monkeypatch.setattr(saved, "read_training", without)
    monkeypatch.setattr(saved, "read_identity", lambda folder: without(folder)["identity"])
    assert precision(go("resume=auto")) == "fp32"
    monkeypatch.undo()
    assert all(torch.equal(weights(whole)[name], weight) for name, weight in weights(run).items())
    shutil.rmtree(run)

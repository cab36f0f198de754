"""A plan says what a run then takes: the same parameters and FLOPs, about the memory that it then keeps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import CELLS, batch_for, settings, small_task
from tests.programs import call
from tests.training.test_flops import Kept
from transformer_lab.composition.build import build_optimizer, build_task, task_class
from transformer_lab.data.tokenizers import Bytes
from transformer_lab.run.estimate import Estimate, _kept, _no_attention, _weightless
from transformer_lab.training.flops import forward_flops

ROOT = Path(__file__).parent.parent.parent
WORDS = Bytes().train([], special_tokens=[])


def weightless_task(*words):
    config = settings("task.context=64", *words)
    with torch.device("meta"):
        return build_task(config, WORDS, task_class(config).stand_in)


def check_without_weights(*words):
    """What is counted on a model that has none is what there is on one that has them."""
    real, planned = small_task(*words).train(), weightless_task(*words)
    assert {n: p.shape for n, p in real.named_parameters()} == {n: p.shape for n, p in planned.named_parameters()}
    batch = batch_for(real, [40, 50, 45])
    with _no_attention(planned):
        assert forward_flops(planned, _weightless(batch)) == forward_flops(real, batch)
        planned_bytes = _kept(planned, _weightless(batch))
    weights = {p.untyped_storage().data_ptr() for p in (*real.parameters(), *real.buffers())}
    with Kept() as kept:
        real(batch)
    kept_bytes = sum(size for place, size in kept.storages.items() if place not in weights)
    assert 0.75 < planned_bytes / kept_bytes < 1.25


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_counted_without_weights_is_what_there_is_with_them(cell):
    check_without_weights(*CELLS[cell], "model.dim=64", "model.num_layers=2")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_plan_is_shown_and_nothing_is_made(tmp_path, optimizer):
    words = [
        "plan=true",
        "data=text",
        f"data.path={ROOT}/README.md",
        "allow_overlap=true",
        "model.dim=64",
        "tokenizer=characters",
        f"optimizer={optimizer}",
        "task.context=64",
        "hardware=cpu",
        f"run_dir={tmp_path}/run",
        f"cache_dir={tmp_path}/cache",
        "data.validation=0.1",
    ]
    done = call("train.py", *words)
    assert done.returncode == 0, done.stderr
    for word in (
        "parameters of model.blocks",
        "weights",
        "gradients",
        "optimizer",
        "activations of a micro-batch",
        "memory together",
        "tokens a second",
        "400 steps",
        "time in training steps",
    ):
        assert word in done.stdout, done.stdout
    assert not (tmp_path / "run").exists()


def test_what_a_machine_has_no_memory_for_is_said():
    sizes = {"weights": 1e9, "gradients": 1e9, "optimizer": 2e9, "activations": 5e9, "passing": 1e9}
    plan = Estimate(
        parameters={}, flops_per_token=1.0, **sizes, room=11e9, tokens_per_step=1.0, total_steps=1, step_seconds=1.0
    )
    assert plan.warnings() == []
    (line,) = replace(plan, room=8e9).warnings()
    assert "10.00 GB of memory are needed, and 8.00 GB are there" in line and "micro_batch_tokens" in line
    (line,) = replace(plan, room=3e9).warnings()
    assert "alone take 4.00 GB" in line and "micro_batch_tokens" not in line


def test_a_model_too_large_for_this_machine_can_be_planned():
    config = settings("model.dim=8192", "model.num_layers=80", "model.num_heads=64", "optimizer=adamw")
    with torch.device("meta"):
        task = build_task(config, WORDS, {})
    parameters = sum(p.numel() for p in task.parameters())
    states = build_optimizer(config["optimizer"], task)
    assert parameters > 60e9 and len(states.param_groups) == 2

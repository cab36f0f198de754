"""muP: activations and logits stay of one size in models of every width, at one learning rate."""

import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import batch_for, settings, small_task
from transformer_lab.composition.build import build_optimizer
from transformer_lab.layout import Layout

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # as for a script that lies there

from coordinate_check import CHECKED, TASKS, sizes


def grown(model, mup):
    """How many times as large each part's values are at width 256 as at width 64, after four steps."""
    found = []
    for width in (64, 256):
        words = (f"task={TASKS[model]}", f"model.dim={width}", f"model.mup={mup}", *CHECKED)
        # What is to be told of pairs of random segments is noise, and so is what it teaches.
        words += ("task.sentence_task=none",) if model == "encoder" else ()
        task = small_task(*words)
        optimizer = build_optimizer(settings(*words)["optimizer"], task)
        found.append(sizes(task, optimizer, batch_for(task, [60, 50, 60, 40]))[-1])
    return {part: found[1][part] / found[0][part] for part in found[0]}


@pytest.mark.parametrize("model", TASKS)
def test_with_mup_nothing_grows_with_the_width(model):
    found = grown(model, "true")
    assert all(0.5 < found[part] < 2 for part in ("last block", "logits")), found
    assert grown(model, "false")["last block"] > 3


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", TASKS)
def test_at_the_base_width_mup_changes_nothing(model, optimizer):
    def after_a_step(mup):
        words = (f"task={TASKS[model]}", "model.dim=128", f"model.mup={mup}", f"optimizer={optimizer}")
        task = small_task(*words)
        steps = build_optimizer(settings(*words)["optimizer"], task)
        torch.stack(list(task(batch_for(task, [40, 30])).losses.values())).sum().backward()
        steps.step()
        return task.state_dict()

    one, other = after_a_step("true"), after_a_step("false")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_matrices_learn_slower_the_wider_they_are_and_decay_as_before():
    words = ("task=classification", "task.pooling=pooler", "model.dim=512", "model.mup=true", "optimizer=adamw")
    task = small_task(*words)
    optimizer = build_optimizer(settings(*words)["optimizer"], task)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    rates = {
        names[id(p)]: (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    slow = {name for name, (rate, _) in rates.items() if rate == 1e-3 / 4}
    assert slow == {
        name for name, p in task.named_parameters() if p.ndim == 2 and ("blocks" in name or "pooler" in name)
    }
    assert {rate for name, (rate, _) in rates.items() if name not in slow} == {1e-3}
    assert all(rate * decay == pytest.approx(1e-3 * 0.1) for name, (rate, decay) in rates.items() if name in slow)


@pytest.mark.parametrize("heads, scale", [(8, 1.0), (2, 0.5)])
def test_with_mup_scores_do_not_grow_with_the_width_of_a_head(heads, scale):
    """They are divided by its width, 32 at the base, where they are else divided by its root."""
    layer = small_task("model.mup=true", "model.dim=256", f"model.num_heads={heads}").model.blocks[0].attention.layer
    x = torch.randn(5, 256)
    queries = layer.queries(x, Layout.of([5]), None)
    torch.testing.assert_close(queries, layer.query_norm(layer.heads(layer.query, x)) * scale)

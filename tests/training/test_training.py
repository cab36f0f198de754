"""What training computes: a loss per target however a step is split, and models that can learn at all."""

import math

import pytest
import torch

from tests.conftest import CONFIGS, POSITIONS, settings, small_task
from transformer_lab.build import build, build_task
from transformer_lab.data.tokenizers import Bytes
from transformer_lab.layout import Layout
from transformer_lab.tasks.language_modeling import Batch

KERNELS = ["reference", "sdpa"]
LENGTHS = [40, 3, 17, 1, 33, 8, 25, 2]


def batch_of(lengths, seed=0):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(257, (2, sum(lengths)), generator=draw)
    return Batch(tokens[0], tokens[1], Layout.of(lengths))


def split(batch, groups):
    """The sequences of a batch, dealt out into as many batches."""
    lengths = batch.layout.lengths.tolist()
    sequences = list(zip(batch.tokens.split(lengths), batch.targets.split(lengths), strict=True))
    for part in (sequences[start::groups] for start in range(groups)):
        tokens, targets = zip(*part, strict=True)
        yield Batch(torch.cat(tokens), torch.cat(targets), Layout.of([len(t) for t in tokens]))


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_the_gradient_does_not_depend_on_the_micro_batches(groups):
    task, whole = small_task().double(), batch_of(LENGTHS)
    grads = []
    for batches in ([whole], split(whole, groups)):
        task.zero_grad()
        for batch in batches:
            (task(batch).loss / sum(LENGTHS)).backward()
        grads.append([p.grad.clone() for p in task.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
    "extra",
    [[], ["task.tie_embeddings=true"], ["task.tie_embeddings=true", "model.dim=512"], ["model.residual_init=scaled"]],
    ids=str,
)
def test_the_first_loss_is_the_logarithm_of_the_vocabulary(position, extra):
    torch.manual_seed(0)
    config = settings(f"position={position}", "model.num_layers=2", *extra)
    task = build_task(config, Bytes().train([], specials=["<eos>"]))
    with torch.no_grad():
        assert task(batch_of([256] * 4)).loss.item() / 1024 == pytest.approx(math.log(257), rel=0.05)


@pytest.mark.parametrize("optimizer", [path.stem for path in (CONFIGS / "optimizer").glob("*.yaml")])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_batch_is_learned_by_heart(position, kernel, optimizer):
    torch.manual_seed(0)
    config = settings("model.dim=64", "model.num_layers=2", "task.context=64", f"position={position}",
                      f"attention={kernel}", f"optimizer={optimizer}")  # fmt: skip
    task = build_task(config, Bytes().train([], specials=["<eos>"]))
    updates = build(config["optimizer"], model=task)
    batch = batch_of([32] * 4)
    batch.targets[batch.layout.offsets[:-1].long()] = 7  # a first token alone does not tell what follows
    for _step in range(300):
        outcome = task(batch)
        loss = outcome.loss / outcome.targets
        loss.backward()
        updates.step()
        updates.zero_grad()
        if loss < 0.01:
            return
    pytest.fail(f"the loss is still {loss:.3f} after 300 steps")

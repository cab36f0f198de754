"""What training computes: a loss per target however a step is split, and models that can learn at all."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.conftest import (
    CELLS,
    CONFIGS,
    POSITIONS,
    VOCABULARY,
    WORDS,
    batch_for,
    corpus_for,
    settings,
    small_task,
)
from transformer_lab.composition.build import build_optimizer, build_task, task_class
from transformer_lab.run.train import train
from transformer_lab.training.saved import read_training

LENGTHS = [40, 3, 17, 1, 33, 8, 25, 2]
# What the loss of a model that knows nothing is, of each kind of loss.
IGNORANT = {
    "values": 1.0,
    "tokens": math.log(VOCABULARY),
    "mlm": math.log(VOCABULARY),
    "nsp": math.log(2),
    "classes": math.log(2),
}


def gradient(task, batches):
    """Of a step in these micro-batches."""
    task.zero_grad()
    targets = Counter()
    for batch in batches:
        targets.update(batch.num_targets)
    for batch in batches:
        losses = task(batch).losses
        parts = [loss / targets[name] for name, loss in losses.items() if targets[name]]
        if parts:
            torch.stack(parts).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in task.parameters()]


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_does_not_depend_on_the_micro_batches(cell, groups):
    task = small_task(*CELLS[cell]).double()
    packing = task.packing(corpus_for(task, LENGTHS))
    pieces = packing.pieces(np.arange(packing.num_units))
    whole = task.collate(packing.corpus, pieces, 7)
    parts = [task.collate(packing.corpus, some, 7) for some in np.array_split(pieces, groups) if len(some)]
    assert len(parts) > 1
    if cell == "mlm" and groups == 8:
        assert min(part.num_targets["mlm"] for part in parts) == 0  # one micro-batch holds no target at all
    for one, other in zip(gradient(task, [whole]), gradient(task, parts), strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm() + 1e-12


@hypothesis_settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=8),
    cuts=st.lists(st.integers(1, 7), max_size=3),
    weight=st.floats(0.1, 10),
)
def test_each_target_counts_the_same_wherever_a_step_is_cut(lengths, cuts, weight):
    task = small_task("task=classification", f"task.class_weights.a={weight}").double()
    packing = task.packing(corpus_for(task, lengths))
    pieces = packing.pieces(np.arange(packing.num_units))
    parts = [task.collate(packing.corpus, some, 0) for some in np.split(pieces, sorted(set(cuts))) if len(some)]
    whole = gradient(task, [task.collate(packing.corpus, pieces, 0)])
    for one, other in zip(whole, gradient(task, parts), strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm() + 1e-12


@pytest.mark.parametrize(
    "words",
    [
        [
            "task=translation",
            "data=parallel",
            "data.source=text",
            "data.target=back",
            "task.context=12",
            "tokens_per_step=96",
        ],
        [
            "task=classification",
            "data=labeled",
            "task.class_weights=balanced",
            "task.context=60",
            "tokens_per_step=480",
        ],
        ["task=mlm_nsp", "data=text", "task.context=32", "tokens_per_step=256"],
    ],
    ids=["translation", "classification", "mlm_nsp"],
)
def test_a_run_makes_the_same_first_gradient_of_any_micro_batches_and_clips_it(place, tmp_path, words):
    """As AdamW's first moment shows it, which is a tenth of the gradient then."""
    small = [
        "tokenizer=bytes",
        "model.dim=32",
        "model.num_layers=1",
        "optimizer=adamw",
        "max_steps=1",
        "allow_overlap=true",
        "data.validation=0.01",
        "data.test=0.01",
        f"data.path={place}/lines.tsv",
        "pictures.layers=[]",
    ]

    def moments(tokens, clip="null"):
        folder = tmp_path / f"{tokens}-{clip}"
        train(
            **settings(
                *words,
                *small,
                f"hardware.micro_batch_tokens={tokens}",
                f"run_dir={folder}",
                f"gradient_clip={clip}",
                f"cache_dir={place}/cache",
            )
        )
        state = read_training(folder / "checkpoints" / "last")["optimizer"]["state"]
        return [state[number]["exp_avg"] for number in sorted(state)]

    for one, other in zip(moments(10**6), moments(1), strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm() + 1e-9
    norm = torch.stack([moment.norm() for moment in moments(10**6, clip=0.01)]).norm()
    assert float(norm) == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("cell, position", list(zip(CELLS, itertools.cycle(POSITIONS), strict=False)))
def test_the_first_loss_is_that_of_a_model_that_knows_nothing(cell, position):
    torch.manual_seed(0)
    config = settings(*CELLS[cell], f"position={position}", "model.num_layers=2", "model.dim=64")
    task = build_task(config, WORDS, task_class(config).stand_in).eval()
    batch = batch_for(task, [60] * 40)
    with torch.no_grad():
        for name, loss in task(batch).losses.items():
            assert loss.item() / batch.num_targets[name] == pytest.approx(IGNORANT[name], rel=0.05)


@pytest.mark.parametrize(
    "extra",
    [
        ["task.tie_embeddings=true"],
        ["task.tie_embeddings=true", "model.dim=512"],
        ["model.residual_init=scaled"],
        ["residual=post_norm", "model.residual_init=plain"],
        ["residual=sandwich_norm"],
    ],
    ids=str,
)
@pytest.mark.parametrize("task_name", ["language_modeling", "mlm_nsp", "translation"])
def test_the_first_loss_does_not_depend_on_tying_width_or_norms(task_name, extra):
    torch.manual_seed(0)
    config = settings(f"task={task_name}", "model.num_layers=2", *extra)
    task = build_task(config, WORDS, {}).eval()
    batch = batch_for(task, [60] * 40)
    with torch.no_grad():
        for name, loss in task(batch).losses.items():
            assert loss.item() / batch.num_targets[name] == pytest.approx(IGNORANT[name], rel=0.05)


def learns_by_heart(cell, *words):
    """Whether the loss on one batch falls below 0.01 within 300 steps."""
    torch.manual_seed(0)
    config = settings("model.dim=64", "model.num_layers=2", "task.context=64", *words, *CELLS[cell])
    # Targets are to be learned as they are, and every time the same.
    exact = {"label_smoothing", "dropout"} & config["task"].keys()
    config["task"] |= dict.fromkeys(exact, 0.0)
    task = build_task(config, WORDS, task_class(config).stand_in)
    updates = build_optimizer(config["optimizer"], task)
    batch = batch_for(task, [12] * 8)
    if cell == "language_modeling":
        batch.labels[batch.layout.offsets[:-1].long()] = 7  # a first token alone does not tell what follows
    loss = math.inf
    for _step in range(300):
        losses = task(batch).losses
        total = torch.stack([loss / batch.num_targets[name] for name, loss in losses.items()]).sum()
        total.backward()
        updates.step()
        updates.zero_grad()
        loss = total.item()
        if loss < 0.01:
            return
    pytest.fail(f"the loss is still {loss:.3f} after 300 steps")


@pytest.mark.parametrize("cell", CELLS)
def test_one_batch_is_learned_by_heart(cell):
    learns_by_heart(cell)


@pytest.mark.parametrize(
    "option",
    [
        *(f"optimizer={path.stem}" for path in sorted((CONFIGS / "optimizer").glob("*.yaml"))),
        *(f"position={name}" for name in POSITIONS),
        "attention=reference",
    ],
)
def test_one_batch_is_learned_by_heart_with_every_optimizer_and_position_scheme(option):
    learns_by_heart("language_modeling", option)


# Without positions, all hidden tokens of a text look alike to an encoder, so that no more than their frequencies can be
# learned: that cell does not exist.
BLIND = {("none", cell) for cell in CELLS if cell.startswith("mlm")}


@pytest.mark.battery
@pytest.mark.parametrize(
    ("position", "cell"), [pair for pair in itertools.product(POSITIONS, CELLS) if pair not in BLIND]
)
def test_every_cell_is_learned_by_heart_in_every_position_scheme(position, cell):
    learns_by_heart(cell, f"position={position}")


@pytest.mark.parametrize("cell", sorted(cell for _, cell in BLIND))
def test_without_positions_an_encoder_cannot_tell_hidden_tokens_apart(cell):
    task = small_task(*CELLS[cell], "position=none", "model.token_types=0")
    batch = batch_for(task, [12] * 8)
    hidden = task.model(batch.tokens, batch.layout, batch.types)
    for begin, end in itertools.pairwise(batch.layout.offsets.tolist()):
        masks = hidden[begin:end][batch.tokens[begin:end] == task.mask]
        assert len(masks) == 0 or (masks - masks[0]).abs().max() < 1e-5

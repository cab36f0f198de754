"""What is computed is counted as the papers count it, and what is not kept is computed again, the same to the bit."""

import pytest
import torch

from tests.conftest import CELLS, batch_for, small_task
from tests.training.test_training import gradient
from transformer_lab.models.layers.attention import Attention, kernels_of
from transformer_lab.training.flops import Speed, forward_flops, matrix_rate

DIM, LAYERS = 32, 2


def products(task, name):
    """Operations for each token of the matrices whose names contain this."""
    return sum(2 * p.numel() for key, p in task.named_parameters() if name in key and p.ndim == 2)


def pairs(own, other=None, causal=False):
    own = own.lengths.double()
    other = own if other is None else other.lengths.double()
    return float((own * other).sum()) / (2 if causal else 1)


def test_a_decoder_takes_two_flops_for_each_weight_and_token_and_those_of_attention():
    task = small_task("task=language_modeling")
    batch = batch_for(task, [40, 3, 17])
    expected = 60 * (products(task, "blocks.") + products(task, "head.weight"))
    expected += LAYERS * 4 * DIM * pairs(batch.layout, causal=True)
    assert forward_flops(task, batch) == expected


def test_attention_is_counted_and_not_computed():
    """A kernel that compiles itself cannot do so while PyTorch counts products."""
    task = small_task("task=language_modeling")
    batch = batch_for(task, [40, 3, 17])
    expected = forward_flops(task, batch)
    with kernels_of(task, lambda _: None):
        assert forward_flops(task, batch) == expected


def test_an_encoder_looks_both_ways_and_predicts_hidden_tokens_only():
    task = small_task("task=mlm_nsp", "task.sentence_task=none")
    batch = batch_for(task, [40, 33, 57])
    expected = batch.num_tokens * products(task, "blocks.") + LAYERS * 4 * DIM * pairs(batch.layout)
    # Only hidden tokens come as far as the last feed-forward layer and the head.
    expected -= (batch.num_tokens - batch.num_targets["mlm"]) * products(task, f"blocks.{LAYERS - 1}.feed_forward")
    expected += batch.num_targets["mlm"] * (products(task, "transform") + 2 * task.head.matrix.numel())
    assert forward_flops(task, batch) == expected


def test_a_decoder_of_translation_reads_its_memory_once_a_layer():
    task = small_task("task=translation")
    batch = batch_for(task, [10, 20, 5])
    source, target = (layout.lengths.sum().item() for layout in (batch.source_layout, batch.target_layout))
    expected = source * products(task, "encoder.blocks.") + target * products(task, "decoder.blocks.")
    for name in (".cross_attention.layer.key", ".cross_attention.layer.value"):
        expected += (source - target) * products(task, name)
    seen = pairs(batch.source_layout) + pairs(batch.target_layout, causal=True)
    seen += pairs(batch.target_layout, batch.source_layout)
    expected += LAYERS * 4 * DIM * seen + target * 2 * task.head.matrix.numel()
    assert forward_flops(task, batch) == expected


@pytest.mark.parametrize("causal, seen", [(True, 8), (False, 15)])
def test_a_window_limits_what_is_counted(causal, seen):
    task = small_task("task=language_modeling", "model.window=8")
    for attention in (module for module in task.modules() if isinstance(module, Attention)):
        attention.causal = causal
    few, many = (forward_flops(task, batch_for(task, [length] * 2)) / (2 * length) for length in (30, 60))
    assert few == many == products(task, "blocks.") + products(task, "head.weight") + LAYERS * 4 * DIM * seen


def test_mfu_is_the_fraction_of_the_matrix_rate():
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    assert rate > 1e8
    assert Speed(flops_per_token=100.0, matrix_rate=rate).mfu(rate / 400) == pytest.approx(0.25)


class Kept:
    """Bytes that a forward pass keeps for the backward pass, each tensor's memory once."""

    def __init__(self):
        self.storages = {}

    def __enter__(self):
        def keep(x):
            self.storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        self.hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    @property
    def bytes(self):
        return sum(self.storages.values())


@pytest.mark.parametrize("cell", CELLS)
def test_activation_checkpointing_keeps_less_and_gives_the_same_gradient_to_the_bit(cell):
    words = (*CELLS[cell], "model.dropout=0.2", "model.num_layers=4")
    found = []
    for recomputes in (False, True):
        task = small_task(*words).train()
        if recomputes:
            task.model.checkpoint_activations()
        batch = batch_for(task, [40, 33, 57])
        torch.manual_seed(3)
        grads = gradient(task, [batch])
        torch.manual_seed(3)
        with Kept() as kept:
            task(batch)
        found.append((grads, kept.bytes))
    assert all(torch.equal(one, other) for one, other in zip(found[0][0], found[1][0], strict=True))
    assert found[1][1] < found[0][1] / 2

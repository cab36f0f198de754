"""Pictures show what the model really looks at, and looking changes nothing."""

import numpy as np
import pytest
import torch

from tests.conftest import CELLS, POSITIONS, batch_for, corpus_for, evaluation_set, settings, small_task
from transformer_lab.composition.build import factory
from transformer_lab.training.pictures import attention_maps, attention_picture, chosen, position_picture, probe


def one_text(task):
    corpus = corpus_for(task, [12, 30, 25])
    return probe(evaluation_set(task, corpus, 64))


@pytest.mark.parametrize("cell", CELLS)
def test_every_layer_is_seen_and_each_token_looks_once(cell):
    task = small_task(*CELLS[cell])
    found, scales = attention_maps(task, one_text(task))
    blocks = [name for name, _ in task.model.named_modules() if name.rpartition(".")[0].endswith("blocks")]
    assert list(scales) == blocks and all(0 < scale < 100 for scale in scales.values())
    layers = [shown.layer for shown in found]
    assert sorted(set(layers)) == sorted(layers) and len(layers) >= len(blocks)
    for shown in found:
        assert shown.weights.shape == (4, len(shown.queries), len(shown.keys))
        if len(shown.keys) < 32:  # else some of what it looks at lies beyond the picture
            torch.testing.assert_close(shown.weights.sum(2), torch.ones(4, len(shown.queries)))


def test_a_decoder_looks_back_only_and_an_alignment_has_both_texts():
    task = small_task("task=translation")
    batch = one_text(task)
    found, _ = attention_maps(task, batch)
    for shown in found:
        ahead = shown.weights.triu(1).abs().max()
        assert (ahead == 0) == (shown.layer.startswith("decoder") and not shown.layer.endswith("cross_attention"))
    kinds = chosen(found, [-1])
    (alignment,) = kinds["decoder.blocks.cross_attention"]
    assert alignment.layer == "decoder.blocks.1.cross_attention"
    assert alignment.keys == [task.tokenizer.reveal([token]) for token in batch.source.tolist()][:32]
    assert alignment.queries == [task.tokenizer.reveal([token]) for token in batch.target.tolist()][:32]


@pytest.mark.parametrize("cell", CELLS)
def test_looking_changes_nothing(cell):
    task = small_task(*CELLS[cell], "model.dropout=0.1").train()
    batch = batch_for(task, [20, 9])
    torch.manual_seed(1)
    before = task(batch).losses
    attention_maps(task, one_text(task))
    assert task.training
    torch.manual_seed(1)
    after = task(batch).losses
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_and_heads_are_chosen_by_number_from_either_end():
    task = small_task("task=language_modeling", "model.num_layers=3")
    found, _ = attention_maps(task, one_text(task))
    layers = [shown.layer for shown in chosen(found, [0, -1, 99])["blocks.attention"]]
    assert layers == ["blocks.0.attention", "blocks.2.attention"]
    figure = attention_picture(chosen(found, [0, -1])["blocks.attention"], heads=[0, -1, 2])
    titles = [axis.get_title() for axis in figure.axes[:-1]]  # the last one is the scale of colours
    assert titles == [f"blocks.{layer}.attention, head {head}" for layer in (0, 2) for head in (0, 2, 3)]


@pytest.mark.parametrize("name", POSITIONS)
def test_every_position_scheme_has_a_picture_of_its_own(name):
    position = factory(settings(f"position={name}")["position"])(dim=32, num_heads=4, causal=True)
    figure = position_picture(position, 32, 8, 64)
    if name == "none":
        assert figure is None
        return
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]
    assert shown and all(image.shape[0] == 64 and np.ptp(image) > 0 for image in shown)
    assert len(shown) == (4 if name in ("alibi", "relative") else 1)

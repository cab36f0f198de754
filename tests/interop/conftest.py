"""A small published model, that all tests of this folder may change."""

import pytest
import torch

from tests.conftest import WORDS, settings
from transformer_lab.composition.build import build_task
from transformer_lab.interop.writing import held, write

SIZES = ("model.dim=32", "model.num_layers=2", "model.num_heads=2", "task.context=32")


@pytest.fixture
def published_folder(tmp_path):
    """A Llama."""
    config = settings("task=language_modeling", "feed_forward=swiglu", "model.qk_norm=false", *SIZES)
    torch.manual_seed(0)
    task = build_task(config, WORDS, {})
    torch.nn.init.normal_(task.head.weight)
    write(tmp_path / "llama", held(config, task), task)
    return tmp_path / "llama"

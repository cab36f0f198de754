"""A user adds a position scheme, a task and a config in a folder of his own, and edits nothing of ours."""

import json

from tests.programs import call

POSITION = '''
"""A trained penalty on the logarithm of the distance."""
import torch
from torch import nn
from transformer_lab.models.layers.positions.base import Position

class Logarithmic(Position):
    def __init__(self, *, dim: int, num_heads: int, causal: bool, strength: float) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal)
        self.strength = nn.Parameter(torch.full((num_heads,), strength))

    def bias(self, query_positions, key_positions):
        distance = (query_positions[:, None] - key_positions[None, :]).abs()
        return -self.strength[:, None, None] * torch.log1p(distance.float())
'''
TASK = '''
"""Predict the token after the next one."""
from dataclasses import replace
from transformer_lab.tasks.language_modeling import Collate, LanguageModeling

class Ahead(Collate):
    def __call__(self, corpus, pieces, key):
        batch = super().__call__(corpus, pieces, key)
        indices = (batch.layout.positions[1:] > 0).nonzero().squeeze(1)  # where the next but one is of the same text
        return replace(batch, indices=indices, labels=batch.labels[indices + 1], num_targets={"tokens": len(indices)})

class TwoAhead(LanguageModeling):
    def __init__(self, **options):
        super().__init__(**options)
        self.collate = Ahead(self.end)
'''


def test_a_position_and_a_task_from_a_users_folder(tmp_path, corpus_folder):
    files = {
        "mine/__init__.py": "",
        "mine/logarithmic.py": POSITION,
        "mine/two_ahead.py": TASK,
        "settings/position/logarithmic.yaml": "_target_: mine.logarithmic.Logarithmic\nstrength: 0.5\n",
        "settings/task/two_ahead.yaml": "_target_: mine.two_ahead.TwoAhead\n"
        "name: two_ahead\ncontext: 32\npacking: documents\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    common = ["extensions=[mine]"]
    train = [
        "train.py",
        "hydra.searchpath=[file://" + str(tmp_path / "settings") + "]",
        "position=logarithmic",
        "task=two_ahead",
        "data=text",
        f"data.path={corpus_folder}",
        "tokenizer=bytes",
        "model.dim=32",
        "model.num_layers=1",
        "tokens_per_step=512",
        "max_steps=4",
        "validate_every_steps=2",
        "run_dir=run",
        *common,
    ]
    trained = call(*train, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 4 and metrics["test"]["loss"] > 0
    script = ["scripts/evaluate.py", "run=run", *common]
    evaluated = call(*script, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["test"] == metrics["test"]
    stranger = call(*script[:-1], cwd=tmp_path)
    assert stranger.returncode == 2 and "mine" in stranger.stderr and "Traceback" not in stranger.stderr

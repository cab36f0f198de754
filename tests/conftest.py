"""What the tests share: configs as a user would compose them, and a small corpus of real text."""

import email
import json
import logging
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from transformer_lab.build import build_task
from transformer_lab.data.tokenizers import Bytes

CONFIGS = Path(__file__).parent.parent / "configs"
POSITIONS = sorted(path.stem for path in (CONFIGS / "position").glob("*.yaml"))
SMALL = ["model.dim=32", "model.num_layers=2", "task.context=64"]


def settings(*overrides: str) -> dict:
    """The config that these words on the command line make."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        # Any argument of a constructor may be set, as on the command line.
        words = [w if (CONFIGS / w.partition("=")[0]).is_dir() else f"++{w}" for w in overrides]
        return OmegaConf.to_container(compose("train", words), resolve=True)


def small_task(*overrides: str, seed: int = 0):
    """A small model and its task, on a vocabulary of bytes; its output matrix is random, so that logits differ."""
    torch.manual_seed(seed)
    config = settings(*SMALL, "model.residual_init=scaled", *overrides)
    task = build_task(config, Bytes().train([], specials=["<eos>"]))
    if task.head is not None:
        torch.nn.init.normal_(task.head.weight, std=0.5)
    return task


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    """The sources of some modules of the standard library as text files: real text on every machine."""
    folder = tmp_path_factory.mktemp("corpus")
    for package in (json, logging, email):
        for path in sorted(Path(package.__file__).parent.glob("*.py")):
            (folder / f"{package.__name__}_{path.stem}.txt").write_text(path.read_text(encoding="utf-8"))
    return folder

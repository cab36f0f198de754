"""What the rows of the table share: a config as a user composes it, and corpora of random tokens of given lengths."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from transformer_lab.composition.build import Section, build
from transformer_lab.data.store import Ragged
from transformer_lab.data.tokenizers import SPECIAL_TOKENS, Tokenizer
from transformer_lab.training.hardware import Hardware

CONFIGS = Path(__file__).parents[2] / "configs"
FIRST = len(SPECIAL_TOKENS)  # the first token that stands for text


@dataclass(frozen=True)
class Setting:
    """What all contenders of a benchmark are measured with."""

    hardware: str
    precision: str
    case: str  # one of the work's CASES
    size: str  # "small", or that of a published model
    nanogpt: str = ""  # the folder of a clone of it

    @property
    def dropout(self) -> float:
        return float(self.case.removeprefix("dropout ")) if self.case.startswith("dropout ") else 0.0

    @property
    def words(self) -> tuple[str, str]:
        return f"hardware={self.hardware}", f"hardware.precision={self.precision}"

    @cached_property
    def machine(self) -> Hardware:
        built: Hardware = build(config(*self.words)["hardware"])
        return built

    @property
    def device(self) -> torch.device:
        return self.machine.device

    @property
    def dtype(self) -> torch.dtype:
        return self.machine.dtype


def config(*words: str) -> Section:
    """The config that these words on the command line make."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        words = tuple(w if (CONFIGS / w.partition("=")[0]).is_dir() else f"++{w}" for w in words)
        made: Any = OmegaConf.to_container(compose("train", list(words)), resolve=True)
        return {"overfit": False, **made}


# As train.py has it, but for the optimizer: the peers' AdamW, at one rate from the first step to the last.
COMMON = ("schedule=constant", "schedule.warmup_steps=0", "max_steps=1000000000", "validate_every_steps=1000000000")
ADAMW = ("optimizer=adamw", "optimizer.lr=1e-3", "optimizer.weight_decay=0")


def vocabulary(size: int) -> Tokenizer:
    """A tokenizer of so many tokens; nothing is ever tokenized with it."""
    words = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *(f"word{n}" for n in range(size - FIRST))])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))
    inner.add_special_tokens(list(SPECIAL_TOKENS))
    return Tokenizer(inner)


def rows(lengths: np.ndarray, vocab_size: int, seed: int = 0) -> Ragged:
    """Random tokens, as many for each row as `lengths` says."""
    values = np.random.default_rng(seed).integers(FIRST, vocab_size, int(lengths.sum()), dtype=np.uint16)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

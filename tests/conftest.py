"""What the tests share: configs as a user would compose them, and a small corpus of real text."""

import copy
import email
import gc
import hashlib
import json
import logging
import os
import re
import signal
from functools import cache, reduce
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transformer_lab.composition.build import build_task, task_class
from transformer_lab.data.steps import EvaluationSet
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.data.tokenizers import SPECIAL_TOKENS, Bytes
from transformer_lab.data.workers import SIGNALS

torch.set_num_threads(1)  # of each of pytest's processes, which there are as many of as cores
os.environ["OMP_NUM_THREADS"] = "1"  # and of the programs that they start
for number in SIGNALS:  # those that a shell's & or nohup lets be ignored would be so in the programs as well
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
# For `tests.mutants`: that an example fails is all it asks, not which is the smallest.
hypothesis.settings.register_profile("first", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
CONFIGS = Path(__file__).parent.parent / "configs"
# A small corpus that every clone has, for runs of a few steps.
README_BY_LETTERS = (
    "data=text",
    f"data.path={Path(__file__).parent.parent}/README.md",
    "data.validation=0.2",
    "allow_overlap=true",
    "tokenizer=characters",
    "task.context=32",
    "tokens_per_step=256",
)
POSITIONS = sorted(path.stem for path in (CONFIGS / "position").glob("*.yaml"))
SMALL = ["model.dim=32", "model.num_layers=2", "task.context=64"]
# A run of some steps on texts: what the tests of runs share, each with limits of its own.
TINY = [
    "data=text",
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=1",
    "task.context=32",
    "tokens_per_step=256",
    "pictures.layers=[]",
    "schedule=constant",
]
FAR = {"task", "experiment", "debug", "sweep"}  # groups that choose options of others
PARSER = OverridesParser.create()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`: one more than cores, as a part of the time is spent in waiting for programs and disks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1


def pytest_collection_finish() -> None:
    """What is imported and collected is no garbage, and is not looked through for any from here on."""
    gc.collect()
    gc.freeze()


def settings(*overrides: str) -> dict:
    """The config that these words on the command line make: what Hydra composes, section by section, each only once."""
    groups = {word: group for word in overrides if (CONFIGS / (group := word.partition("=")[0])).is_dir()}
    far = tuple(word for word, group in groups.items() if group in FAR)
    config = copy.deepcopy(composed(*far))
    for word, group in groups.items():
        if group not in FAR:
            config[group] = copy.deepcopy(section_of(word, *far))
    # Any argument of a constructor may be set, as on the command line.
    for override in PARSER.parse_overrides([f"++{word}" for word in overrides if word not in groups]):
        *path, last = override.key_or_group.split(".")
        section = reduce(lambda inner, key: inner.setdefault(key, {}), path, config)
        value, before = override.value(), section.get(last)
        section[last] = {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value
    return config


@cache
def composed(*words: str) -> dict:
    """As Hydra does it; shared by all who ask, and so not to be changed."""
    return OmegaConf.to_container(unresolved(*words), resolve=True)


@cache
def unresolved(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", words)


@cache
def section_of(word: str, *far: str) -> dict | None:
    """What an option makes of its group's section: its file, where nothing else chooses or sets more."""
    group, _, option = word.partition("=")
    file = CONFIGS / group / f"{option}.yaml"
    if far or not file.is_file() or re.search(r"^(defaults:|# @package)", file.read_text(), re.M):
        return composed(*far, word)[group]
    config = unresolved().copy()
    OmegaConf.set_struct(config, False)
    config[group] = OmegaConf.load(file) or None
    return OmegaConf.to_container(config, resolve=True)[group]


WORDS = Bytes().train([], special_tokens=[])
VOCABULARY = WORDS.vocab_size
FIRST = len(SPECIAL_TOKENS)  # the first token that stands for text

# Each model that a task can train.
CELLS = {
    "language_modeling": ["task=language_modeling"],
    "classification": ["task=classification"],
    "classification-decoder": ["task=classification", "model=decoder"],
    "classification-multi_label": ["task=classification", "task.multi_label=true"],
    "regression": ["task=regression"],
    "translation": ["task=translation"],
    "translation-decoder": ["task=translation", "model=decoder"],
    "mlm_nsp": ["task=mlm_nsp"],
    "mlm_sop": ["task=mlm_nsp", "task.sentence_task=order", "task.whole_words=true"],
    "mlm": ["task=mlm_nsp", "task.sentence_task=none"],
}


def small_task(*overrides: str, seed: int = 0):
    """A small model and its task, on a vocabulary of bytes; its output matrices are random, so that logits differ."""
    torch.manual_seed(seed)
    config = settings(*SMALL, "model.residual_init=scaled", *overrides)
    task = build_task(config, WORDS, task_class(config).stand_in)
    for name, parameter in task.named_parameters():
        if name in ("head.weight", "head.out.weight", "nsp_head.out.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
    return task.eval()


def corpus_for(task, lengths, seed: int = 0) -> Corpus:
    """A corpus of random tokens with examples of about these lengths, as the task's store would hold it."""
    draw = np.random.default_rng(seed)

    def rows(sizes, low=FIRST, high=VOCABULARY):
        return Ragged(draw.integers(low, high, sum(sizes)), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    tokens = rows(lengths)
    columns = {"tokens": tokens}
    if "classes" in task.encoding.columns:
        columns["classes"] = rows([1] * len(lengths), 0, len(task.labels))
    if "value" in task.encoding.columns:
        columns["value"] = Ragged(draw.choice([-1.0, 1.0], len(lengths)), np.arange(len(lengths) + 1))
    if "reference" in task.encoding.columns:
        columns = {"source": tokens, "target": rows(lengths[::-1]), "reference": rows([3] * len(lengths), 65, 90)}
        columns["reference"] = Ragged(columns["reference"].values.astype(np.uint8), columns["reference"].offsets)
    if "sentences" in task.encoding.columns:
        halves = [[n // 2, n - n // 2] if n > 1 else [n] for n in lengths]
        offsets = np.concatenate([[0], np.cumsum([len(half) for half in halves])]).astype(np.int64)
        columns["sentences"] = Ragged(np.array([n for half in halves for n in half]), offsets)
    return Corpus(columns, tuple(name for name in ("tokens", "source", "target") if name in columns), sum(lengths))


def batch_for(task, lengths, seed: int = 0):
    packing = task.packing(corpus_for(task, lengths, seed))
    return task.collate(packing.corpus, packing.pieces(np.arange(packing.num_units)), seed)


def evaluation_set(task, corpus, micro_batch_tokens: int = 500) -> EvaluationSet:
    """All of a corpus, as a task reads what it is scored on."""
    packing = task.evaluation_packing(corpus)
    return EvaluationSet(packing=packing, collate=task.collate, micro_batch_tokens=micro_batch_tokens)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    """The sources of some modules of the standard library as text files: real text on every machine."""
    folder = tmp_path_factory.mktemp("corpus")
    for package in (json, logging, email):
        for path in sorted(Path(package.__file__).parent.glob("*.py")):
            (folder / f"{package.__name__}_{path.stem}.txt").write_text(path.read_text(encoding="utf-8"))
    return folder


@pytest.fixture(scope="session")
def place(corpus_folder, tmp_path_factory) -> Path:
    """A folder with `corpus/`; `beginnings/` of its files; and `lines.tsv`: real lines, their words in reverse, their
    module."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "corpus").symlink_to(corpus_folder)
    (folder / "beginnings").mkdir()
    rows = {}
    for file in sorted(corpus_folder.iterdir()):
        (folder / "beginnings" / file.name).write_text(file.read_text()[:3000])
        for line in file.read_text().splitlines():
            words = line.replace('"', "").split()
            if len(words) > 2 and len(line) < 60:
                rows[" ".join(words)] = f"{' '.join(words[::-1])}\t{file.name.split('_')[0]}"
    table = "".join(f"{text}\t{row}\n" for text, row in list(rows.items())[:1500])
    (folder / "lines.tsv").write_text("text\tback\tlabel\n" + table)
    return folder


@pytest.fixture(scope="session")
def tiny(place) -> list[str]:
    """The words of a run of four steps, the second and the last validated and saved."""
    steps = ["max_steps=4", "validate_every_steps=2", "checkpoint.every_steps=2"]
    return [*TINY, *steps, f"data.path={place}/beginnings", f"cache_dir={place}/cache"]


@pytest.fixture(scope="session")
def sound(tiny, tmp_path_factory) -> Path:
    """Such a run, finished; not to be written into."""
    from transformer_lab.run.train import train  # slow to import

    folder = tmp_path_factory.mktemp("sound") / "run"
    train(**settings(*tiny, f"run_dir={folder}"))
    return folder


def fingerprint(run_dir):
    """Weights, optimizer and counters at the end, apart from the time they took."""
    last = run_dir / "checkpoints" / "last"
    training = json.loads((last / "training.json").read_text())
    training["progress"].pop("seconds")
    training["progress"]["window"].pop("seconds")
    data = b"".join((last / name).read_bytes() for name in ("model.safetensors", "training.safetensors"))
    return hashlib.sha256(data + json.dumps(training, sort_keys=True).encode()).hexdigest()


def curves(run_dir):
    """Every point of the loss curves that TensorBoard would draw."""
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)]
        for tag in ("train/loss", "val/loss", "train/learning_rate")
    }

"""What a run needs of its data before a model can learn: tokenizer, facts and store, all kept in the cache."""

import inspect
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transformer_lab.composition.build import Section, build, build_task, task_class
from transformer_lab.data.cache import fingerprint, obtain
from transformer_lab.data.sources.base import Source
from transformer_lab.data.store import MOST_LOST, Store, prepare
from transformer_lab.data.tokenizers import File, Tokenizer, TokenizerTrainer
from transformer_lab.run.transfer import tokenizer_of
from transformer_lab.tasks.base import Task

log = logging.getLogger(__name__)
MOST_SHARED = 0.01  # share of a split that may stand in another one by accident


@dataclass(frozen=True)
class Prepared:
    """A task that fits its data, what it had to know of them, and the data themselves."""

    task: Task
    facts: dict[str, Any]
    store: Store


def prepare_task(config: Section, *, source: str | None = None, weightless: bool = False) -> Prepared:
    """Everything that a config says of data, task and model; `weightless`, the model has sizes but no weights.

    The tokenizer is that of the `source`, a folder of a run or of a published model, where there is one.

    Options of the task that nobody has set, and that the data decide, are set in the config.
    """
    data: Source = build(config["data"])
    tokenizer, facts = _tokenizer(config, data, source), _facts(config, data)
    kind = task_class(config)
    options = {key: facts.pop(key) for key in list(facts) if key not in kind.stand_in}
    if strange := options.keys() - inspect.signature(kind).parameters:
        what = f"{kind.__name__}.learn gives {min(strange)!r}, which neither its stand_in nor its constructor names"
        raise ValueError(f"task._target_: {what}")
    config["task"] = {**config["task"], **{key: x for key, x in options.items() if config["task"].get(key) is None}}
    torch.manual_seed(config["seed"])
    with torch.device("meta") if weightless else nullcontext():
        task = build_task(config, tokenizer, facts)
    return Prepared(task, facts, prepare_store(config, data, task))


def _tokenizer(config: Section, data: Source, source: str | None) -> Tokenizer:
    """The tokenizer of these data: loaded from the cache, or trained on the training split and kept there.

    A run that starts from another one's weights has that one's tokenizer: its tokens are what the weights know.
    """
    trainer: TokenizerTrainer = build(config["tokenizer"])
    if source:
        known = tokenizer_of(source)
        if (
            isinstance(trainer, File)
            and trainer.train([], special_tokens=task_class(config).special_tokens).hash != known.hash
        ):
            raise ValueError(
                f"tokenizer.path: not the tokenizer that the weights of init_from={config['init_from']} "
                "were trained with; leave it out, and theirs is taken"
            )
        log.info("Tokenizer: that of %s", source)
        if lacking := [name for name in task_class(config).special_tokens if not known.knows(name)]:
            log.info("New to it: %s; each starts as the mean of the others", ", ".join(lacking))
        return known.grown(lacking)
    special_tokens = task_class(config).special_tokens
    made_of = {"tokenizer": trainer.cache_key(), "source": data.cache_key(), "special_tokens": special_tokens}

    def write(folder: Path) -> None:
        texts = (text for split, example in data.read() if split == "train" for text in example.texts)
        trainer.train(texts, special_tokens=special_tokens).save(folder / "tokenizer.json")

    folder = Path(config["cache_dir"]) / f"tokenizer-{fingerprint(made_of)}"
    return obtain(folder, write=write, read=lambda kept: Tokenizer.from_json(kept.read("tokenizer.json").decode()))


def _facts(config: Section, source: Source) -> dict[str, Any]:
    """What the task has to know of the training split before its model can be built; kept in the cache."""
    kind = task_class(config)
    if kind.learn.__func__ is Task.learn.__func__:  # type: ignore[attr-defined]
        return {}
    known = {"task": config["task"]["_target_"], "source": source.cache_key(), "language": source.language}

    def write(folder: Path) -> None:
        training = (example for split, example in source.read() if split == "train")
        learnt = kind.learn(training, source.language)
        (folder / "facts.json").write_text(json.dumps(learnt, indent=1, ensure_ascii=False), encoding="utf-8")

    folder = Path(config["cache_dir"]) / f"facts-{fingerprint(known)}"
    learnt: dict[str, Any] = obtain(folder, write=write, read=lambda kept: json.loads(kept.read("facts.json")))
    return learnt


def prepare_store(config: Section, source: Source, task: Task) -> Store:
    """The tokenized data; raises ValueError where splits share more than can be an accident."""
    store = prepare(source, task.tokenizer, task.encoding, cache_dir=Path(config["cache_dir"]))
    for overlap in store.overlaps:
        if overlap.share > MOST_SHARED and not config["allow_overlap"]:
            raise ValueError(f"data: {overlap}, which is more than an accident; allow_overlap=true takes it as it is")
        log.warning("%s", overlap)
    for split, corpus in store.splits.items():
        if corpus.unknown_share > MOST_LOST:
            log.warning(
                "tokenizer: %.1f%% of the tokens of the %s split stand for what it does not know",
                100 * corpus.unknown_share,
                split,
            )
        if 1 - corpus.kept_share > MOST_LOST:
            log.warning(
                "tokenizer: its tokens do not give back %.1f%% of the texts of the %s split",
                100 * (1 - corpus.kept_share),
                split,
            )
    return store

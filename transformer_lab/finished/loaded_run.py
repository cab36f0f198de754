"""A finished run: loaded with its best weights, to predict or to be evaluated."""

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from transformer_lab.composition.build import Section, build, build_task, refuse_giants, source_class
from transformer_lab.composition.checks import problems
from transformer_lab.composition.signatures import signature
from transformer_lab.data.examples import Split
from transformer_lab.data.sources.files import Files
from transformer_lab.data.sources.labeled import Labeled
from transformer_lab.data.sources.parallel import Parallel
from transformer_lab.data.sources.text import Text
from transformer_lab.data.steps import EvaluationSet
from transformer_lab.data.store import Corpus, prepare, prepared
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop.hub import folder_of
from transformer_lab.interop.published import is_published
from transformer_lab.run.folder import best_checkpoint
from transformer_lab.run.preparation import prepare_store
from transformer_lab.tasks.base import Task
from transformer_lab.training import saved
from transformer_lab.training.evaluation import Evaluation, evaluate
from transformer_lab.training.hardware import Hardware, reuse_memory
from transformer_lab.training.optimizers import product_dtype

log = logging.getLogger(__name__)
PATHS = ("path", "validation_path", "test_path")  # keys of data that lead to files; without them, a hub is asked


@dataclass(frozen=True)
class LoadedRun:
    """A finished run with its best weights: `task` is ready to predict, `text` the hash of what it was trained on."""

    task: Task
    config: Section
    text: str

    def machine(self, accelerator: str = "cpu") -> Hardware:
        """What it runs on: in the precision that it was trained in, where this machine multiplies in that."""
        own = self.config["hardware"]
        machine: Hardware = build(own | {"accelerator": accelerator, "precision": "auto", "compile": False})
        fast = product_dtype(machine.device) == torch.bfloat16
        return replace(machine, precision=own["precision"] if fast else "fp32")

    def predict(self, texts: list[str], **options: Any) -> list[dict[str, Any]]:
        """What its task makes of each text; the options are those of the task's `predict`."""
        with self.machine().autocast():
            return self.task.predict(texts, **options)


def load_run(run: str, extensions: list[str], options: Section | None = None) -> LoadedRun:
    """The run in this folder, on this machine's CPU, with other `options` of its task, such as `beam_size`.

    The config may name the package's own classes only, and those of `extensions`: it may be a stranger's.
    """
    reuse_memory()
    if is_published(run := folder_of(str(run), "run")):
        from transformer_lab.finished.published_run import load_published  # composes a config, which takes its time

        return load_published(Path(run), options or {})
    folder = best_checkpoint(run)
    with saved.as_saved(folder):
        config = saved.read_config(folder)
    # Of the machine that trained it, nothing matters here; and callbacks are never built again.
    config |= {"callbacks": {}, "attention": {"_target_": "transformer_lab.models.layers.kernels.auto.attend"}}
    allowed = ("transformer_lab", "torch.optim", *extensions)
    if found := problems(config, allowed=allowed):
        raise ValueError(f"run: the config of {folder} cannot be used: {found[0]}")
    config["task"] = config["task"] | (options or {})
    if found := problems(config, allowed=allowed):
        raise ValueError(str(found[0]))
    with saved.as_saved(folder):
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    # What is wrong with other options is no fault of the run's.
    with nullcontext() if options else saved.as_saved(folder):
        _same_sizes(config, tokenizer, facts, folder)
    with saved.as_saved(folder):
        task = filled(config, tokenizer, facts, saved.read_weights(folder))
        return LoadedRun(task, config, saved.read_identity(folder)["text"])


class Unfilled(TorchFunctionMode):
    """Leaves out what would fill a tensor: on the device "meta" it changes nothing, and PyTorch would import a compiler
    for it, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = next(iter((*args, *kwargs.values())), None)
        fills = func.__name__.endswith("_") and not func.__name__.endswith(("__", "requires_grad_"))
        return first if fills and isinstance(first, Tensor) else func(*args, **kwargs)


class Undrawn(TorchFunctionMode):
    """Leaves out what draws random numbers, for weights that come from elsewhere: of a large model, seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        draws = func.__name__ in ("normal_", "uniform_")
        return next(iter((*args, *kwargs.values()))) if draws else func(*args, **kwargs)


def filled(config: Section, tokenizer: Tokenizer, facts: Section, weights: dict[str, Tensor]) -> Task:
    """The task of a config with these weights, which are all that it has."""
    with Undrawn():
        task = build_task(config, tokenizer, facts)
    task.load_state_dict(weights, assign=True)
    return task.eval()


def unfilled(config: Section, tokenizer: Tokenizer, facts: Section) -> dict[str, Tensor]:
    """The weights that a config speaks of, without memory for any, whatever a stranger has written into it; raises
    ValueError where they would not fit into this machine's."""
    with torch.device("meta"), Unfilled():
        task = build_task(config, tokenizer, facts)
    refuse_giants(task)
    return dict(task.state_dict())


def _same_sizes(config: Section, tokenizer: Tokenizer, facts: Section, folder: Path) -> None:
    """Raises ValueError where a config is not that of the weights beside it, before a model is built by it."""
    sizes = {name: count for name, (count, _) in saved.sizes(folder).items()}
    layers = config["model"].get("num_layers", 0)
    if layers > len(sizes):
        raise ValueError(f"model.num_layers: {layers} are more than its {len(sizes)} weights")
    for name, tensor in unfilled(config, tokenizer, facts).items():
        if sizes.get(name) != tensor.numel():
            raise ValueError(f"{name} has {sizes.get(name, 0):,} numbers, and by its config {tensor.numel():,}")


def evaluate_run(run: LoadedRun, split: Split, accelerator: str, named: Section | None = None) -> Evaluation:
    """A loaded run on a split of its data, as they were prepared for it, or as the keys `named` have it.

    Raises ValueError where they would have to be read from a place, or fetched from a hub, that only the run names.
    """
    if not run.text and not named:
        raise ValueError("data: a published model has none of its own: data.path=… names some, or file=FILE")
    store = (
        None
        if named
        else prepared(run.text, run.task.tokenizer, run.task.encoding, cache_dir=Path(run.config["cache_dir"]))
    )
    if store is None:
        section = run.config["data"] | (named or {})
        if found := problems(run.config | {"data": section}, allowed=[section["_target_"].split(".")[0]]):
            raise ValueError(str(found[0]))
        _refuse_paths(section, named or {}, run.config["cache_dir"])
        store = prepare_store(run.config, build(section), run.task)
    if store.text_hash != run.text:
        log.warning("The data are no longer those of the run: this split may hold text that it was trained on")
    if split not in store.splits:
        raise ValueError(f"split: the run's data have no {split} split; one of {', '.join(store.splits)}")
    return _evaluate(run, store.splits[split], accelerator)


def _refuse_paths(section: Section, named: Section, cache_dir: str) -> None:
    there = [key for key in PATHS if section.get(key)]
    if asked := [key for key in there or ["dataset"] if section.get(key) and key not in named]:
        words = " ".join(f"data.{key}={section[key]}" for key in asked)
        raise ValueError(
            f"data.{asked[0]}: the run's data are not prepared in {cache_dir}, and what it names is not "
            f"read unasked: add {words} to read it, or take file=FILE"
        )


def evaluate_file(run: LoadedRun, file: str, accelerator: str, named: Section | None = None) -> Evaluation:
    """A loaded run on all of a file (see `reader`)."""
    try:
        source = reader(run, file, named or {})
        store = prepare(source, run.task.tokenizer, run.task.encoding, cache_dir=Path(run.config["cache_dir"]))
    except ValueError as error:
        text = str(error).replace("data.path=", "file=")
        raise ValueError(f"file: read as the run's data were: {text}" if text.startswith("data.") else text) from error
    return _evaluate(run, store.splits["train"], accelerator)


def reader(run: LoadedRun, file: str, named: Section) -> Files:
    """What reads all of a file as the run's own data are read where they come from files, but for what is `named`."""
    own = run.config["data"]
    kinds = [kind for kind in (source_class(run.config), Text, Labeled, Parallel) if issubclass(kind, Files)]
    kind = next((kind for kind in kinds if kind.example_type is run.task.example_type), None)
    if kind is None:
        what = f"{run.task.name} reads examples of a kind of its own, {run.task.example_type.__name__}"
        raise ValueError(f"file: {what}, and data._target_, {own['_target_']}, reads none from files")
    target = f"{kind.__module__}.{kind.__name__}"
    taken = signature(target)
    assert taken is not None
    section = {"_target_": target, **{key: own[key] for key in taken.parameters if key in own}, **named}
    section |= {
        "path": file,
        "validation_path": None,
        "test_path": None,
        "validation": 0.0,
        "test": 0.0,
        "max_examples": None,
        **({"group_column": None} if "group_column" in taken.parameters else {}),  # all of it is one split
    }
    found = problems(run.config | {"data": section}, allowed=[target.partition(".")[0]])
    if wrong := next((problem for problem in found if problem.path.startswith("data.")), None):
        raise ValueError(str(wrong))
    source: Files = build(section)
    return source


def _evaluate(run: LoadedRun, corpus: Corpus, accelerator: str) -> Evaluation:
    task, machine = run.task, run.machine(accelerator)
    if run.config["hardware"]["precision"] == "bf16" and not machine.bf16:
        log.warning("The run was trained in bf16, in which this machine is slow: it is evaluated in fp32")
    packing = task.evaluation_packing(corpus)
    return evaluate(
        task,
        EvaluationSet(packing=packing, collate=task.collate, micro_batch_tokens=machine.micro_batch_tokens),
        machine,
    )

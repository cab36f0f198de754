"""From the sections of a checked config to the objects they name; knows PyTorch, but nothing slower to import."""

import importlib
import re
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from transformer_lab.composition.checks import untrained
from transformer_lab.composition.parts import LAYERS, PARTS
from transformer_lab.data.sources.base import Source
from transformer_lab.data.tokenizers import Bytes, Tokenizer
from transformer_lab.models.layers.attention import Attention
from transformer_lab.models.layers.kernels import auto
from transformer_lab.models.model import Model
from transformer_lab.tasks.base import Task
from transformer_lab.training.hardware import Hardware, room
from transformer_lab.training.optimizers import for_torch

Section = dict[str, Any]


def build(section: Section, **handed: Any) -> Any:
    """Call what `_target_` names with the section's other keys and with what the build hands over."""
    return factory(section)(**handed)


def factory(section: Section) -> Callable[..., Any]:
    """What `_target_` names, with the section's other keys already given; whoever calls it gives the rest."""
    values = {
        key: build(value) if isinstance(value, dict) and "_target_" in value else value
        for key, value in section.items()
        if key != "_target_"
    }
    return partial(_named(section["_target_"]), **values)


def _named(target: str) -> Any:
    module, _, attribute = target.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def task_class(config: Section) -> type[Task]:
    found: type[Task] = _named(config["task"]["_target_"])
    return found


def source_class(config: Section) -> type[Source]:
    found: type[Source] = _named(config["data"]["_target_"])
    return found


def build_task(config: Section, tokenizer: Tokenizer, facts: Section) -> Task:
    """`facts` are what the task has learnt of the training data (see `Task.learn`)."""
    model = build(config["model"], vocab_size=tokenizer.vocab_size, **{part: factory(config[part]) for part in LAYERS})
    if lacking := [name for name in Model.__annotations__ if not hasattr(model, name)]:
        what = f"{type(model).__name__} has no {', '.join(lacking)}, as a Model has (models/model.py)"
        raise ValueError(f"model._target_: {what}")
    expected = task_class(config).model_types
    if not isinstance(model, expected):
        names = [kind.__name__ for kind in expected]
        raise ValueError(str(untrained(config["task"]["name"], type(model).__name__, names)))
    task: Task = build(config["task"], model=model, tokenizer=tokenizer, **facts)
    return task


def build_optimizer(section: Section, task: Task) -> torch.optim.Optimizer:
    """Ours look into the model; those of `torch.optim` are handed `params`."""
    own = not section["_target_"].startswith("torch.optim.")
    optimizer: torch.optim.Optimizer = build(section, **({"model": task} if own else {"params": for_torch(task)}))
    return optimizer


def rehearse(config: Section) -> Task:
    """Build everything that needs no data, without memory for weights: an impossible value ends the run here.

    Returns the task, whose vocabulary is as small as can be. Raises ValueError, in one line that names the key, also
    for whatever a class from elsewhere raises.
    """
    try:
        return _rehearse(config)
    except ValueError:
        raise
    except Exception as error:
        key = _whose(config, error)
        if key is None:  # a fault of ours
            raise
        said = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{key}: {config[key]['_target_']}: {type(error).__name__}: {said}") from error


def _whose(config: Section, error: Exception) -> str | None:
    """The section whose class, of another package, has raised an error, or could not be called as it was."""
    sections = {key: x["_target_"] for key, x in config.items() if isinstance(x, dict) and "_target_" in x}
    others = {key: target for key, target in sections.items() if not target.startswith("transformer_lab.")}
    inside = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    lacking = type(getattr(error, "obj", None))  # of an AttributeError: who has none
    for key, target in others.items():
        module, _, name = target.rpartition(".")
        if module in inside or lacking is _named(target) or re.search(rf"\b{name}\b", str(error)):
            return key
    return None


def _rehearse(config: Section) -> Task:
    for section, part in PARTS.items():
        if part.kind:
            _check_kind(section, config[section]["_target_"], part.kind)
    expected, given = task_class(config).example_type, source_class(config).example_type
    if given is not expected:
        raise ValueError(
            f"data: {config['task']['name']} reads examples of the kind {expected.__name__}, these are "
            f"of the kind {given.__name__}"
        )
    build(config["data"])
    build(config["tokenizer"]).cache_key()
    with torch.device("meta"):
        kind = task_class(config)
        task = build_task(config, Bytes().train([], special_tokens=kind.special_tokens), kind.rehearsal(config["task"]))
        kernel_name(config, task, build(config["hardware"]))
    build_optimizer(config["optimizer"], task)
    if config["average"]:
        build(config["average"])
    if config["tokens_per_step"] < task.capacity:
        raise ValueError(
            f"tokens_per_step: {config['tokens_per_step']} is less than one sequence of task.context "
            f"{task.context} may need; nearest {task.capacity}"
        )
    # How long an epoch is, only the data tell; whether the schedule can do without, is known now.
    endless = config["max_steps"] is None and config["max_epochs"] is None and config["max_tokens"] is None
    if config["max_steps"] is not None or endless:
        build(config["schedule"], total_steps=config["max_steps"])
    return task


def _check_kind(section: str, target: str, wanted: str) -> None:
    kind, given = _named(wanted), _named(target)
    if not (isinstance(given, type) and issubclass(given, kind)):
        raise ValueError(f"{section}._target_: {target} is not a {kind.__name__}")


def refuse_giants(task: Task) -> None:
    """Raises ValueError where the weights of a task on the device "meta" are more than this machine's memory."""
    needed = sum(tensor.nbytes for tensor in (*task.parameters(), *task.buffers()))
    if needed > (there := room()):
        raise ValueError(
            f"model: its weights and tables alone take {needed / 1e9:,.1f} GB of memory, and this machine "
            f"has {there / 1e9:,.1f}; plan=true says what would fit"
        )


def kernel_name(config: Section, task: Task, machine: Hardware) -> str:
    """Which attention kernel a run uses; for `auto`, which one it picks. Raises ValueError for one that cannot run."""
    if not any(isinstance(module, Attention) for module in task.modules()):
        return "none"
    first = torch.zeros(1, dtype=torch.int64)
    biased = task.model.position.bias(first, first) is not None
    served = machine.device, machine.dtype, task.model.head_dim
    name: str = config["attention"]["_target_"].split(".")[-2]
    if name == "auto":
        both = (auto.choose(*served, biased=biased, plain=plain) for plain in (False, True))
        return f"{' or '.join(dict.fromkeys(both))} (auto)"
    if why := auto.refusal(name, *served, biased=biased):
        raise ValueError(f"attention: {why}")
    return name

"""Every problem of a config at once, each in one line with its dotted path, before anything heavy is imported."""

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from transformer_lab.composition.signatures import Signature, expected, imported, module, named_in, shown, signature
from transformer_lab.terminal import one_line

TRAIN = "transformer_lab.run.train.train"
SWEEPER, SWEEPER_PLUGIN = "transformer_lab.sweeps.sweeper.Sweep", "hydra_plugins.transformer_lab.Sweep"

# What the build hands over at run time, section by section: no key of a config.
PROVIDED = {
    "model": {"vocab_size", "position", "norm", "mixer", "feed_forward", "residual", "attention"},
    "position": {"dim", "num_heads", "causal"},
    "norm": {"dim"},
    "mixer": {"dim", "num_heads", "num_kv_heads", "bias", "kernel", "norm", "scale", "causal", "window"},
    "feed_forward": {"dim"},
    "residual": {"dim", "layer", "norm", "dropout"},
    "attention": {"q", "k", "v", "queries", "keys", "causal", "window", "bias"},
    "task": {"model", "tokenizer", "labels"},
    "optimizer": {"model", "params"},
    "schedule": {"total_steps"},
    "pictures": {"batches"},
    "checkpoint": {"folder", "again", "files", "identity"},
}
# The model calls these itself: functions will do.
RECIPES = {"position", "norm", "mixer", "feed_forward", "residual", "attention"}
RESERVED = re.compile(r"_[a-z]+_")  # keys that mean something to Hydra
NAMED = {"callbacks"}  # a section of sections

# Other libraries' classes that a config may name: the package, the section, and what they must descend from.
EXTERNAL = {
    "lightning.pytorch.callbacks": ("callbacks", "Callback"),
    "torch.optim": ("optimizer", "Optimizer"),
}
# … but for those that cannot serve here, or would change or save a run behind its back: what to use instead, or why.
SAVES = "a run saves its own checkpoints, as plain data: checkpoint.every_steps and checkpoint.keep"
AVERAGES = "what it validates is not what would be saved: average=ema is"
REFUSED = {
    "ModelCheckpoint": SAVES,
    "OnExceptionCheckpoint": SAVES,
    "Checkpoint": SAVES,
    "WeightAveraging": AVERAGES,
    "EMAWeightAveraging": AVERAGES,
    "StochasticWeightAveraging": AVERAGES,
    "LearningRateFinder": "it trains before the run begins: python train.py -m sweep=learning_rate",
    "BatchSizeFinder": "a run that is out of memory halves hardware.micro_batch_tokens by itself",
    "GradientAccumulationScheduler": "a step is one optimizer step: tokens_per_step and hardware.micro_batch_tokens",
    "BaseFinetuning": "freeze_layers and optimizer.layer_decay are what a resumed run knows of",
    "BackboneFinetuning": "freeze_layers and optimizer.layer_decay are what a resumed run knows of",
    "ModelPruning": "its masks are not saved",
    "LBFGS": "it asks for the loss several times a step",
    "SparseAdam": "gradients are dense here",
    "ProgressBar": "a run shows its own progress",
    "RichProgressBar": "a run shows its own progress",
    "TQDMProgressBar": "a run shows its own progress",
}
LIMITS = ("max_steps", "max_epochs", "max_tokens", "max_minutes")
POSITIVE = {
    *LIMITS,
    "total",
    "jobs",
    "tokens_per_step",
    "gradient_clip",
    "every_steps",
    "log_every_steps",
    "validate_every_steps",
}


def distance(a: str, b: str) -> int:
    """How many letters to insert, delete, change or swap with their neighbour (Damerau, 1964)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        above, before, row = before, row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(row[j] + 1, before[j + 1] + 1, before[j] + (x != y)))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                row[-1] = min(row[-1], above[j - 1] + 1)
    return row[-1]


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most likely meant: few typos, the right key of another section, a common beginning."""

    def rank(name: str) -> tuple[float, int]:
        elsewhere = word.rpartition(".")[2] == name.rpartition(".")[2]
        prefix = next((i for i, (x, y) in enumerate(zip(word, name, strict=False)) if x != y), len(name))
        return min(distance(word, name), 1.5 if elsewhere else 99), -prefix

    best = min(names, key=rank, default=None)
    return best if best and rank(best)[0] <= (3 if len(word) > 5 else 2) else None


def unknown(path: str, what: str, names: Collection[str], listed: Iterable[str]) -> str:
    near = nearest(path, names)
    others = ", ".join(listed)
    return f"{path}: no such {what}; " + (f"did you mean {near}?" if near else f"there are {others or 'none'}")


def untrained(task: object, model: str, fitting: Iterable[str]) -> str:
    names = " or ".join(f"model={name.lower()}" for name in fitting)
    return f"model: {task} trains no {model}; take {names}"


class Refused(SystemExit):
    """The end of a process, or of a trial of a sweep, after some lines that said why."""

    code: int

    def __init__(self, lines: list[str], code: int, again: bool = False) -> None:
        super().__init__(code)
        self.lines, self.again = lines, again  # `again`: as it was interrupted, the same command goes on


def fail(found: Iterable[str], code: int = 2, *, again: bool = False) -> NoReturn:
    """End the process; 2 is the exit code for what the user has to change."""
    lines = list(found)
    for line in lines:
        print(f"error: {one_line(line)}", file=sys.stderr)
    raise Refused(lines, code, again)


def full_error() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def problems(
    config: dict[str, Any],
    *,
    allowed: Collection[str] | None = None,
    typed: Collection[str] = (),
    groups: Collection[str] = (),
) -> list[str]:
    """`allowed`: the only packages whose classes may be named, for a config of someone else's, as in a checkpoint.

    `typed`: extensions that the user named himself, on the command line. `groups`: for better suggestions.
    """
    return list(dict.fromkeys(Check(config, allowed, typed, groups).run()))


def refuse_callbacks(built: dict[str, object]) -> None:
    """Raises ValueError for a callback of another package that is one of those refused."""
    for name, callback in built.items():
        for kind in type(callback).__mro__:
            if kind.__module__.startswith("lightning.") and kind.__name__ in REFUSED:
                what = f"{type(callback).__name__} is a {kind.__name__}"
                raise ValueError(f"callbacks.{name}._target_: refused; {what}: {REFUSED[kind.__name__]}")


def _sweeper() -> Signature:
    taken = signature(SWEEPER)
    assert taken is not None
    return taken


def sweeper_keys() -> list[str]:
    return [f"hydra.sweeper.{name}" for name in _sweeper().parameters]


def sweeper_problems(section: dict[str, Any]) -> list[str]:
    """Of `hydra.sweeper`, against what our sweeper takes."""
    if section.get("_target_") != SWEEPER_PLUGIN:
        return ["hydra/sweeper: only trials is served here; leave it out, and -m runs every combination of values"]
    return list(Check({}, None, (), ()).section("hydra.sweeper", section, _sweeper()))


class Check:
    def __init__(
        self, config: dict[str, Any], allowed: Collection[str] | None, typed: Collection[str], groups: Collection[str]
    ):
        named = config.get("extensions")
        extensions = [x for x in named if isinstance(x, str)] if isinstance(named, list) else []
        train = signature(TRAIN)
        assert train is not None
        self.train, self.config, self.typed, self.groups = train, config, typed, groups
        self.extensions = extensions if allowed is None else []
        self.allowed = ["transformer_lab", *EXTERNAL, *extensions] if allowed is None else allowed

    def run(self) -> Iterator[str]:
        for i, name in enumerate(self.extensions):
            yield from self.extension(f"extensions[{i}]", name)
        yield from self.section("", self.config, self.train)
        if all(self.config.get(key) is None for key in LIMITS):
            yield f"{LIMITS[0]}: the run would never end; set one of {', '.join(LIMITS)}"

    def section(self, path: str, values: dict[str, Any], taken: Signature) -> Iterator[str]:
        """The values against the signature of what takes them."""
        provided = PROVIDED.get(path, set())
        for key, value in values.items():
            here = f"{path}.{key}".lstrip(".")
            if path and RESERVED.fullmatch(str(key)):
                continue
            parameter = taken.parameters.get(key)
            if key in provided:
                yield f"{here}: is filled in by the build; leave it out"
            elif parameter is None and not taken.open:
                yield self.unknown(here, value, taken)
            elif value == "???":
                yield f"{here}: required, not set"
            elif parameter and (want := expected(parameter, value)):
                yield f"{here}: expected {want}, found {shown(value)}"
            else:
                yield from self.bounds(here, key, value)
                yield from self.nested(here, value)
        for key, parameter in taken.parameters.items():
            if parameter.required and key not in values and key not in provided:
                yield f"{path}.{key}: required, not set".lstrip(".")

    def bounds(self, path: str, key: str, value: Any) -> Iterator[str]:
        if isinstance(value, int | float) and key in POSITIVE and value <= 0:
            yield f"{path}: expected more than 0, found {shown(value)}"
        if path == "seed" and isinstance(value, int) and not 0 <= value < 2**32:
            yield f"{path}: expected 0 to {2**32 - 1}, found {value}"

    def nested(self, path: str, value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self.nested(f"{path}[{i}]", item)
        if not isinstance(value, dict):
            return
        for key in value:
            if RESERVED.fullmatch(str(key)) and key != "_target_":
                yield f"{path}.{key}: refused; of Hydra's own keys a config may use _target_ only"
        if "_target_" in value:
            yield from self.built(path, value)
        elif path.rpartition(".")[0] in NAMED or (path not in NAMED and path in self.train.parameters):
            yield f"{path}._target_: required, not set"
        else:
            for key, item in value.items():
                yield from self.nested(f"{path}.{key}", item)

    def built(self, path: str, section: dict[str, Any]) -> Iterator[str]:
        try:
            taken = self.target(path, section["_target_"])
        except (ValueError, ImportError, AttributeError) as error:
            yield f"{path}._target_: {error}"
        except SyntaxError as error:
            yield f"{error.filename or section['_target_']}:{error.lineno}: {error.msg}"
        else:
            if taken.function and path not in RECIPES:
                yield f"{path}._target_: refused; {taken.name} is a function, and this must be a class"
            yield from self.section(path, section, taken)

    def target(self, path: str, name: Any) -> Signature:
        """The signature of what may be built at a dotted path; ValueError if it may not, or does not exist."""
        home, _, last = str(name).rpartition(".")
        private = any(part.startswith("_") for part in str(name).split("."))
        if private or not any(str(name).startswith(f"{prefix}.") for prefix in self.allowed):
            raise ValueError(f"refused: {name!r} is of none of {', '.join(self.allowed)}, extensions")
        for package, (section, parent) in EXTERNAL.items():
            if name.startswith(f"{package}."):
                if path.partition(".")[0] != section:
                    raise ValueError(f"refused: {name!r} may stand in {section} only")
                if last in REFUSED:
                    raise ValueError(f"refused: {last}: {REFUSED[last]}")
                if home != package:
                    raise ValueError(f"refused: {name!r}; name a class of {package} itself")
                return imported(name, parent)
        if found := signature(name):
            return found
        source = module(home)
        if source is None:
            raise ValueError(f"no module {home!r}")
        raise ValueError(unknown(last, f"class in {source.file.name}", source.names, source.names))

    def extension(self, path: str, name: str) -> Iterator[str]:
        """A package of the user's own: a stranger's file must not be able to open up an installed library."""
        spec = find_spec(name) if re.fullmatch(r"[a-zA-Z]\w*", name) else None
        if spec is None:
            yield (
                f"{path}: no package {name!r} is installed; one in this folder has to be named on the command line, "
                f"extensions=[{name}]"
            )
            return
        paths = [spec.origin or "", *(spec.submodule_search_locations or ())]
        installed = any(part in Path(x).parts for x in paths for part in ("site-packages", "dist-packages"))
        if name in sys.stdlib_module_names:
            yield f"{path}: refused; {name} is a module of Python's own"
        elif installed and name not in self.typed:
            yield f"{path}: refused; {name} is installed: name it on the command line, extensions=[{name}]"

    def unknown(self, path: str, value: Any, taken: Signature) -> str:
        if path in self.groups:
            return f"{path}: its file sets a section {path!r}; begin it with the line `# @package _global_`"
        if path.startswith("model."):  # of the model that the task was made for?
            task = self.config.get("task")
            fitting = named_in(str(task.get("_target_")), "model_types") if isinstance(task, dict) else []
            if fitting and taken.name not in fitting:
                return untrained(task.get("name"), taken.name, fitting)  # type: ignore[union-attr]
        if isinstance(value, dict) and len(value) == 1:  # `modle.dim=3`
            path = f"{path}.{next(iter(value))}"
        listed = taken.parameters.keys() - PROVIDED.get(path.rpartition(".")[0], set())
        what = f"option of {taken.name}" if "." in path and taken is not self.train else "key"
        return unknown(path, what, [*self.keys(), *self.groups], sorted(listed))

    def keys(self) -> Iterator[str]:
        """The dotted paths that this config could set."""
        yield from self.train.parameters
        for path, section in _sections("", self.config):
            try:
                known = self.target(path, section["_target_"]).parameters
            except Exception:  # reported where it stands
                continue
            yield from (f"{path}.{key}" for key in known if key not in PROVIDED.get(path, set()))


def _sections(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, item in value.items() if isinstance(value, dict) else ():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(item, dict) and "_target_" in item:
            yield here, item
        yield from _sections(here, item)

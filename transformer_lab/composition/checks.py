"""Every problem of a config at once, each with its dotted path, before anything heavy is imported."""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from transformer_lab.composition.kinds import expected, marks, shown
from transformer_lab.composition.parts import PARTS, Part
from transformer_lab.composition.problems import Problem, missing, unknown
from transformer_lab.composition.signatures import Parameter, Signature, attribute, signature
from transformer_lab.composition.targets import OURS, extension_problem, target
from transformer_lab.keys import Above, Between, Role

TRAIN = "transformer_lab.run.train.train"
SWEEPER = "transformer_lab.sweeps.sweeper.Sweep"
RESERVED = re.compile(r"_[a-z]+_")  # keys that mean something to Hydra
BY_NAME = {"callbacks"}  # a section of sections, each by a name of the user's choice


def problems(
    config: dict[str, Any],
    *,
    allowed: Collection[str] | None = None,
    typed: Collection[str] = (),
    groups: Collection[str] = (),
) -> list[Problem]:
    """`allowed`: the only packages whose classes may be named, for a config of someone else's, as in a checkpoint.

    `typed`: extensions that the user named himself, on the command line. `groups`: for better suggestions.
    """
    return list(dict.fromkeys(Check(config, allowed, typed, groups).run()))


def roles() -> dict[str, Role]:
    """What each key of a run is to it, as `train` says of its parameters."""
    return {key: _role(parameter) for key, parameter in _known(TRAIN).parameters.items()}


def _role(parameter: Parameter) -> Role:
    return next((mark for mark in marks(parameter) if isinstance(mark, Role)), Role.IDENTITY)


def limits() -> list[str]:
    """The keys that end a run."""
    return [key for key, role in roles().items() if role is Role.LIMIT]


def _known(name: str) -> Signature:
    taken = signature(name)
    assert taken is not None
    return taken


def sweeper_keys() -> list[str]:
    return [f"hydra.sweeper.{name}" for name in _known(SWEEPER).parameters if name not in PARTS["hydra.sweeper"].handed]


def sweeper_problems(section: dict[str, Any]) -> list[Problem]:
    """Of `hydra.sweeper`, against what our sweeper takes."""
    if section.get("_target_") != SWEEPER:
        what = "only trials is served here; leave it out, and -m runs every combination of values"
        return [Problem("hydra/sweeper", what)]
    return list(Check({}, None, (), ()).section("hydra.sweeper", section, _known(SWEEPER)))


def handed(path: str, config: dict[str, Any]) -> set[str]:
    """What the class of a section is given by its callers; of a task, what it learns of the data too."""
    given = set(PARTS.get(path, Part()).handed)
    if path == "task" and isinstance(config.get("task"), dict):
        learnt = attribute(str(config["task"].get("_target_")), "stand_in")
        given |= set(learnt) if isinstance(learnt, dict) else set()
    return given


def untrained(task: object, model: str, fitting: Iterable[str]) -> Problem:
    """Of a model that a task was not made for."""
    names = " or ".join(f"model={name.lower()}" for name in fitting)
    return Problem("model", f"{task} trains no {model}; take {names}")


class Check:
    def __init__(
        self, config: dict[str, Any], allowed: Collection[str] | None, typed: Collection[str], groups: Collection[str]
    ):
        named = config.get("extensions")
        extensions = [x for x in named if isinstance(x, str)] if isinstance(named, list) else []
        self.train, self.config, self.typed, self.groups = _known(TRAIN), config, typed, groups
        self.extensions = extensions if allowed is None else []
        self.allowed = [*OURS, *extensions] if allowed is None else allowed

    def run(self) -> Iterator[Problem]:
        for i, name in enumerate(self.extensions):
            if problem := extension_problem(f"extensions[{i}]", name, self.typed):
                yield problem
        yield from self.section("", self.config, self.train)
        ends = limits()
        if all(self.config.get(key) is None for key in ends):
            yield Problem(ends[0], f"the run would never end; set one of {', '.join(ends)}")

    def section(self, path: str, values: dict[str, Any], taken: Signature) -> Iterator[Problem]:
        """The values against the signature of what takes them."""
        given = handed(path, self.config)
        for key, value in values.items():
            here = f"{path}.{key}".lstrip(".")
            if path and RESERVED.fullmatch(str(key)):
                continue
            parameter = taken.parameters.get(key)
            if key in given:
                yield Problem(here, "is filled in by the build; leave it out")
            elif parameter is None and not taken.open:
                yield self.unknown(here, value, taken)
            elif value == "???":
                yield missing(here)
            elif parameter and (want := expected(parameter, value)):
                yield Problem(here, f"expected {want}, found {shown(value)}")
            else:
                if parameter:
                    yield from self.bounds(here, parameter, value)
                yield from self.nested(here, value)
        for key, parameter in taken.parameters.items():
            if parameter.required and key not in values and key not in given:
                yield missing(f"{path}.{key}".lstrip("."))

    def bounds(self, path: str, parameter: Parameter, value: Any) -> Iterator[Problem]:
        if not isinstance(value, int | float):
            return
        for mark in marks(parameter):
            match mark:
                case Above(bound) if value <= bound:
                    yield Problem(path, f"expected more than {bound}, found {shown(value)}")
                case Between(low, high) if not low <= value <= high:
                    yield Problem(path, f"expected {low} to {high}, found {shown(value)}")

    def nested(self, path: str, value: Any) -> Iterator[Problem]:
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self.nested(f"{path}[{i}]", item)
        if not isinstance(value, dict):
            return
        for key in value:
            if RESERVED.fullmatch(str(key)) and key != "_target_":
                yield Problem(f"{path}.{key}", "refused; of Hydra's own keys a config may use _target_ only")
        if "_target_" in value:
            yield from self.built(path, value)
        elif path.rpartition(".")[0] in BY_NAME or (path not in BY_NAME and path in self.train.parameters):
            yield missing(f"{path}._target_")
        else:
            for key, item in value.items():
                yield from self.nested(f"{path}.{key}", item)

    def built(self, path: str, section: dict[str, Any]) -> Iterator[Problem]:
        try:
            taken = target(path, section["_target_"], self.allowed)
        except (ValueError, ImportError, AttributeError) as error:
            yield Problem(f"{path}._target_", str(error))
        except SyntaxError as error:
            yield Problem(f"{error.filename or section['_target_']}:{error.lineno}", error.msg)
        else:
            if taken.function and not PARTS.get(path, Part()).in_model:
                yield Problem(f"{path}._target_", f"refused; {taken.name} is a function, and this must be a class")
            yield from self.section(path, section, taken)

    def unknown(self, path: str, value: Any, taken: Signature) -> Problem:
        if path in self.groups:
            what = f"its file sets a section {path!r}; begin it with the line `# @package _global_`"
            return Problem(path, what)
        if path.startswith("model."):  # of the model that the task was made for?
            task = self.config.get("task")
            fitting = attribute(str(task.get("_target_")), "model_types") if isinstance(task, dict) else None
            if fitting and taken.name not in fitting:
                return untrained(task.get("name"), taken.name, fitting)  # type: ignore[union-attr]
        if isinstance(value, dict) and len(value) == 1:  # `modle.dim=3`
            path = f"{path}.{next(iter(value))}"
        listed = taken.parameters.keys() - handed(path.rpartition(".")[0], self.config)
        what = f"option of {taken.name}" if "." in path and taken is not self.train else "key"
        names = [*self.keys(), *self.groups]
        if "." in path:  # what stands in a section is not the section
            names = [name for name in names if "." in name]
        return unknown(path, what, names, sorted(listed))

    def keys(self) -> Iterator[str]:
        """The dotted paths that this config could set."""
        yield from self.train.parameters
        for path, section in _sections("", self.config):
            try:
                known = target(path, section["_target_"], self.allowed).parameters
            except Exception:  # reported where it stands
                continue
            given = handed(path, self.config)
            yield from (f"{path}.{key}" for key in known if key not in given)


def _sections(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, item in value.items() if isinstance(value, dict) else ():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(item, dict) and "_target_" in item:
            yield here, item
        yield from _sections(here, item)

"""What a class or function takes, read from its source without importing it: a typo is answered at once."""

import ast
import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Bases without arguments of their own; other classes of torch and lightning are imported to be asked.
EMPTY = {
    "Module",
    "Callback",
    "LightningModule",
    "LightningDataModule",
    "Dataset",
    "Sampler",
    "IterableDataset",
}
STANDARD = {"builtins", "abc", "typing", "collections"}


@dataclass(frozen=True)
class Parameter:
    kind: ast.expr | None  # its annotation
    required: bool
    module: "Module | None" = None  # where the names in the annotation are defined
    default: ast.expr | None = None
    about: str = ""  # the docstring of the class or function that takes it


@dataclass(frozen=True)
class Signature:
    name: str
    parameters: dict[str, Parameter]
    open: bool = False  # takes any keyword
    function: bool = False


class Module:
    """The names that one source file defines and imports."""

    def __init__(self, name: str, file: Path) -> None:
        self.name, self.file = name, file
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self.names: dict[str, ast.AST | str] = {}  # a definition, the value of a constant, or a dotted name
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.names[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.names[node.targets[0].id] = node.value
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.names.update(self._imported(node))

    def _imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
            return
        package = self.package.split(".")
        prefix = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
        origin = ".".join(prefix) if node.level else node.module
        for alias in node.names:
            yield alias.asname or alias.name, f"{origin}.{alias.name}"

    def dotted(self, node: ast.expr) -> str:
        """`nn.Module` -> `torch.nn.Module`, through the imports; what is defined here gets this module's name."""
        first, *rest = ast.unparse(node).split("[")[0].split(".")
        found = self.names.get(first, f"builtins.{first}")
        return ".".join([found if isinstance(found, str) else f"{self.name}.{first}", *rest])


@cache
def module(name: str) -> Module | None:
    """Only the top-level package is looked up; its parents' code never runs."""
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not all(part.isidentifier() for part in rest):
        return None
    if not rest and spec.origin and spec.origin.endswith(".py"):
        return Module(name, Path(spec.origin))
    for folder in spec.submodule_search_locations or ():
        source = Path(folder, *rest)
        for file in (source / "__init__.py", source.with_name(f"{source.name}.py")):
            if file.is_file():
                return Module(name, file)
    return None


def definition(target: str) -> tuple[Module, ast.AST] | None:
    """Where a dotted name is defined, following imports inside its own top-level package only."""
    for _ in range(10):
        home, _, name = target.rpartition(".")
        source = module(home) if home else None
        found = source.names.get(name) if source else None
        if source is None or found is None:
            return None
        if not isinstance(found, str):
            return source, found
        if found.split(".")[0] != target.split(".")[0]:
            return None
        target = found
    return None


@cache
def signature(target: str) -> Signature | None:
    """Of a class or function; None if there is none of that name."""
    found = definition(target)
    if found is None:
        return None
    source, node = found
    name = target.rpartition(".")[2]
    if isinstance(node, ast.FunctionDef):
        own = _told(_parameters(node, source), node)
        return Signature(name, own, node.args.kwarg is not None, function=True)
    return _of_class(name, node, source) if isinstance(node, ast.ClassDef) else None


def attribute(target: str, name: str) -> Any:
    """What a class, or the first above it that does, sets an attribute to: a literal, or the names in it.

    `stand_in = {"labels": ...}` is a dict, `model_types = (Encoder, Decoder)` a list of names; None where it is not
    set, or to something else.
    """
    match definition(target):
        case (source, ast.ClassDef(body=body, bases=bases)):
            for x in body:
                match x:
                    case ast.Assign(targets=[ast.Name(id=own)], value=value) if own == name:
                        return _literal(value)
                    case ast.AnnAssign(target=ast.Name(id=own), value=ast.expr() as value) if own == name:
                        return _literal(value)
            return next((y for base in bases if (y := attribute(source.dotted(base), name)) is not None), None)
    return None


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        if isinstance(node, ast.Dict):  # its names, if not what they stand for
            return {key.value: None for key in node.keys if isinstance(key, ast.Constant)}
        return [x.id for x in ast.walk(node) if isinstance(x, ast.Name)] or None


def _of_class(name: str, node: ast.ClassDef, source: Module) -> Signature:
    init = next((x for x in node.body if isinstance(x, ast.FunctionDef) and x.name == "__init__"), None)
    fields = {}
    if any("dataclass" in ast.unparse(x).split("(")[0] for x in node.decorator_list):
        fields = _told(_fields(node, source), node)
    own = _told(_parameters(init, source), node) if init else fields
    bases = map(source.dotted, node.bases)
    if init and (call := _passed_on(init)):
        # `super().__init__(dim=dim, **options)`, or a part built by `Stack(dim=dim, **options)`: the arguments of what
        # is called too, but for those given there.
        callee, given = call
        above = _above(bases if callee == "super().__init__" else [source.dotted(ast.parse(callee, mode="eval").body)])
        inherited = {k: v for k, v in above.parameters.items() if k not in given}
        return Signature(name, inherited | own, above.open)
    if init:
        return Signature(name, own, init.args.kwarg is not None)
    above = _above(bases)
    return Signature(name, above.parameters | own, above.open)


def _told(parameters: dict[str, Parameter], node: ast.ClassDef | ast.FunctionDef) -> dict[str, Parameter]:
    about = ast.get_docstring(node) or ""
    return {name: replace(one, about=about) for name, one in parameters.items()}


def _above(bases: Iterable[str]) -> Signature:
    return next((x for x in map(_of_base, bases) if x.parameters or x.open), Signature("", {}))


def _of_base(base: str) -> Signature:
    top, name = base.split(".")[0], base.rpartition(".")[2]
    if top in STANDARD or (top in ("torch", "lightning") and name in EMPTY):
        return Signature(base, {})
    if top in ("torch", "lightning"):
        return imported(base)
    return signature(base) or Signature(base, {}, open=True)


def _passed_on(init: ast.FunctionDef) -> tuple[str, set[str]] | None:
    """The call that the constructor's own `**options` are passed on to, and what else it is given there."""
    if init.args.kwarg is None:
        return None
    for node in ast.walk(init):
        if isinstance(node, ast.Call):
            passed = [ast.unparse(word.value) for word in node.keywords if word.arg is None]
            if init.args.kwarg.arg in passed:
                return ast.unparse(node.func), {word.arg for word in node.keywords if word.arg}
    return None


def _parameters(node: ast.FunctionDef, source: Module) -> dict[str, Parameter]:
    plain = [x for x in (*node.args.posonlyargs, *node.args.args) if x.arg not in ("self", "cls")]
    optional = len(plain) - len(node.args.defaults)
    defaults = [*[None] * optional, *node.args.defaults]
    every = [*zip(plain, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    found = {x.arg: Parameter(x.annotation, default is None, source, default) for x, default in every}
    return found


def _fields(node: ast.ClassDef, source: Module) -> dict[str, Parameter]:
    found = {}
    for x in node.body:
        if not (isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)):
            continue
        given = {}
        if isinstance(x.value, ast.Call) and ast.unparse(x.value.func).endswith("field"):
            given = {word.arg: ast.unparse(word.value) for word in x.value.keywords}
            required = not {"default", "default_factory"} & set(given)
        else:
            required = x.value is None
        if given.get("init") != "False" and not ast.unparse(x.annotation).startswith(("ClassVar", "KW_ONLY")):
            found[x.target.id] = Parameter(x.annotation, required, source, None if given else x.value)
    return found


@cache
def imported(target: str, parent: str = "") -> Signature:
    """Of another library's class, which is really imported; it must descend from one called `parent`."""
    home, _, name = target.rpartition(".")
    thing = getattr(importlib.import_module(home), name)
    if not inspect.isclass(thing) or (parent and parent not in [x.__name__ for x in thing.__mro__]):
        raise ValueError(f"refused: {target!r} is no {parent or 'class'}")
    return live(thing)


def live(thing: Any) -> Signature:
    """Of a class or function at hand."""
    parameters = inspect.signature(thing).parameters.values()
    named = [x for x in parameters if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]
    found = {x.name: Parameter(written(x.annotation), x.default is x.empty) for x in named}
    return Signature(
        thing.__name__,
        found,
        open=any(x.kind is x.VAR_KEYWORD for x in parameters),
        function=not inspect.isclass(thing),
    )


def written(annotation: Any) -> ast.expr | None:
    """An annotation as it stands in a source file."""
    if annotation is inspect.Parameter.empty:
        return None
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None

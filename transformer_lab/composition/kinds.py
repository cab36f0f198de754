"""Whether a value fits an annotation, and what else it says of it: both read from the source, without importing it."""

import ast
import math
from typing import Any

from transformer_lab import keys
from transformer_lab.composition.signatures import Module, Parameter, definition, written

UNKNOWN: Any = ...  # a value that could not be resolved, reported elsewhere: fits everywhere
PLAIN: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str, "Path": str}
LISTS = {"list", "List", "Sequence", "Iterable", "tuple", "Tuple", "set", "frozenset"}
MAPPINGS = {"dict", "Dict", "Mapping"}


def expected(parameter: Parameter, value: Any) -> str | None:
    """What was expected, if the value does not fit; an annotation that says nothing to us fits all."""
    words = _mismatch(parameter.kind, value, parameter.module)
    return " or ".join(dict.fromkeys(words)) if words else None


def marks(parameter: Parameter) -> list[Any]:
    """What `Annotated` says of a parameter in the words of `transformer_lab.keys`; other words are left alone."""
    return _marks(parameter.kind, parameter.module)


def _marks(kind: ast.expr | None, source: Module | None) -> list[Any]:
    match kind:
        case ast.Constant(value=str(text)):
            return _marks(written(text), source)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_marks(left, source), *_marks(right, source)]
        case ast.Subscript(value=base, slice=ast.Tuple(elts=[inner, *said])) if source:
            if ast.unparse(base).rpartition(".")[2] == "Annotated":
                found = [mark for node in said if (mark := _mark(node, source)) is not None]
                return [*found, *_marks(inner, source)]
        case ast.Name() | ast.Attribute() if source:
            alias = definition(source.dotted(kind))
            if alias and isinstance(alias[1], ast.expr):
                return _marks(alias[1], alias[0])
    return []


def _mark(node: ast.expr, source: Module) -> Any:
    call = node if isinstance(node, ast.Call) else None
    home = f"{keys.__name__}."
    name = source.dotted(call.func if call else node)
    if not name.startswith(home):
        return None
    found: Any = keys
    for part in name.removeprefix(home).split("."):
        found = getattr(found, part, None)
    if call is None:
        return found
    try:
        given = [ast.literal_eval(value) for value in call.args]
        named = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        return found(*given, **named) if found in (keys.Above, keys.Between) else None
    except (ValueError, TypeError):  # said by a name, or wrongly: the class itself will have to look
        return None


def _mismatch(kind: ast.expr | None, value: Any, source: Module | None) -> list[str]:
    if value is UNKNOWN:
        return []
    match kind:
        case ast.Constant(value=None):
            return [] if value is None else ["null"]
        case ast.Constant(value=str(text)):
            return _mismatch(written(text), value, source)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either([left, right], value, source)
        case ast.Subscript(value=base, slice=inner):
            return _generic(ast.unparse(base).rpartition(".")[2], inner, value, source)
        case ast.Name() | ast.Attribute():
            return _named(kind, value, source)
    return []


def _either(kinds: list[ast.expr], value: Any, source: Module | None) -> list[str]:
    words = [_mismatch(kind, value, source) for kind in kinds]
    return [word for some in words for word in some] if all(words) else []


def _generic(name: str, inner: ast.expr, value: Any, source: Module | None) -> list[str]:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        options = [ast.literal_eval(part) for part in parts]
        fits = any(type(option) is type(value) and option == value for option in options)
        return [] if fits else [shown(option) for option in options]
    if name in ("Union", "Optional"):
        return _either([*parts, *([ast.Constant(None)] if name == "Optional" else [])], value, source)
    if name in LISTS | MAPPINGS:
        mapping = name in MAPPINGS
        if not isinstance(value, dict if mapping else list):
            return ["a section" if mapping else "a list"]
        fixed = name in ("tuple", "Tuple") and not (len(parts) == 2 and ast.unparse(parts[1]) == "...")
        if fixed and len(value) != len(parts):
            return [f"a list of {len(parts)}"]
        kinds = parts if fixed else [parts[-1] if mapping else parts[0]] * len(value)
        values = list(value.values()) if isinstance(value, dict) else value
        wrong = [word for k, v in zip(kinds, values, strict=True) for word in _mismatch(k, v, source)]
        return [f"a {'section' if mapping else 'list'} of {wrong[0]}"] if wrong else []
    return _mismatch(parts[0], value, source) if name == "Annotated" else []


def _named(kind: ast.expr, value: Any, source: Module | None) -> list[str]:
    name = ast.unparse(kind).rpartition(".")[2]
    if name in PLAIN:
        fits = isinstance(value, PLAIN[name]) and (name == "bool" or not isinstance(value, bool))
        if fits and isinstance(value, float) and not math.isfinite(value):
            return ["a finite number"]
        return [] if fits else [name.replace("Path", "str")]
    if name in LISTS:
        return [] if isinstance(value, list) else ["a list"]
    if name in MAPPINGS:
        return [] if isinstance(value, dict) else ["a section"]
    found = definition(source.dotted(kind)) if source else None
    if found and isinstance(found[1], ast.Subscript | ast.BinOp | ast.Name | ast.Attribute):
        return _mismatch(found[1], value, found[0])  # an alias: `Section = dict[str, Any]`
    return []


def shown(value: Any) -> str:
    """As one would write it in YAML."""
    words = {None: "null", True: "true", False: "false"}
    if value is UNKNOWN:
        return "something unresolved"
    if isinstance(value, dict):
        return "a section"
    return words[value] if value is None or isinstance(value, bool) else repr(value)

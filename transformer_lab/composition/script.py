"""The words after `python scripts/NAME.py`: the arguments of the script's main function, as `key=value`."""

import inspect
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

from transformer_lab.composition.importing import importable, keep_out
from transformer_lab.composition.kinds import expected, shown
from transformer_lab.composition.problems import Problem, fail, full_error, missing, nearest, unknown
from transformer_lab.composition.signatures import live
from transformer_lab.terminal import UNREAD, Plain, hang_up


def arguments(function: Callable[..., Any], argv: list[str]) -> dict[str, Any]:
    """A script's `key=value` words as the arguments of its main function, checked against its signature: the value of
    the one that is not keyword-only may stand alone."""
    taken = live(function)
    alone = [x.name for x in inspect.signature(function).parameters.values() if x.kind is x.POSITIONAL_OR_KEYWORD]
    if {"-h", "--help"} & set(argv):
        print(_usage(function))
        raise SystemExit(0)
    found: list[Problem] = []
    values: dict[str, Any] = {}
    for word in argv:
        if alone and "=" not in word:
            word = f"{alone.pop()}={word}"
        key, equals, text = word.partition("=")
        name = key.partition(".")[0]
        parameter = taken.parameters.get(name)
        if not equals:
            found.append(Problem(word, "expected key=value"))
        elif parameter is None and (not taken.open or nearest(key, taken.parameters)):
            found.append(unknown(key, "argument", taken.parameters))
        else:
            # Where text is wanted, it is taken as it stands: `prompt=5`, `prompt="Once: a # b "`.
            takes_text = name == key and parameter and not expected(parameter, text)
            value: Any = text if takes_text else _parsed(word, name, text)
            if parameter and (want := expected(parameter, value)):
                found.append(Problem(name, f"expected {want}, found {shown(value)}"))
            values[name] = {**values.get(name, {}), **value} if name != key else value
    there = {*values, *(problem.meant for problem in found)}
    found += [missing(name) for name, x in taken.parameters.items() if x.required and name not in there]
    if found:
        fail(found)
    return values


def _parsed(word: str, name: str, text: str) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([word]))[name]  # type: ignore[call-overload,index]
    except YAMLError:  # taken as it stands
        value: Any = text
        for part in reversed(word.partition("=")[0].split(".")[1:]):
            value = {part: value}
        return value


def answer(function: Callable[..., Any]) -> None:
    """Run a script's main function on the words of the command line; a user's mistake is one line and exit code 2."""
    keep_out()
    spoken = logging.StreamHandler()
    spoken.setFormatter(Plain())
    logging.getLogger("transformer_lab").addHandler(spoken)
    try:
        words = arguments(function, sys.argv[1:])
        importable(words.get("extensions", []))
        function(**words)
        sys.stdout.flush()
    except BrokenPipeError:
        hang_up()
        raise SystemExit(UNREAD) from None
    except ValueError as error:
        if full_error():
            raise
        fail([error])


def _usage(function: Callable[..., Any]) -> str:
    """The docstring; what it says of an argument, as `name: text`, stands beside it."""
    text = inspect.getdoc(function) or ""
    about = dict(re.findall(r"^(\w+): (.+)$", text, re.M))
    rest = re.split(r"^\w+: .+\n?", text, flags=re.M)[-1].rstrip()
    program = f"{'python ' if sys.argv[0].endswith('.py') else ''}{sys.argv[0]}"
    lines = [f"Usage: {program} KEY=VALUE …", "", re.split(r"\n+\w+: ", text)[0], ""]
    for x in inspect.signature(function).parameters.values():
        if x.kind is x.VAR_KEYWORD:  # the docstring says what they are
            continue
        default = "…" if x.default is x.empty else shown(x.default)
        lines.append(f"    {f'{x.name}={default}':27} {about.get(x.name, '')}".rstrip())
    return "\n".join([*lines, *([rest] if rest else [])])

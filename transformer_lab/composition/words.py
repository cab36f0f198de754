"""What is wrong with a word of the command line that Hydra cannot read, and how it is written in a shell."""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any


def several(word: str) -> str:
    """What may have been meant by a word with several values: runs, a list, or one path with a comma in its name."""
    key, _, value = word.lstrip("+").partition("=")
    numbers = all(re.fullmatch(r"[-+.\de]+", part.strip()) for part in value.split(","))
    if "/" in value or Path(value).exists() or ("." in value.rpartition(",")[2] and not numbers):
        return f"for one that has a comma in it, write {_in_quotes(key, value)}"
    return "add -m to run one after the other, or write a list in [brackets]"


def unreadable(word: str) -> str:
    """Why Hydra cannot read a word, and how it is written."""
    key, equals, value = word.partition("=")
    if not equals:
        return "expected key=value"
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{opening} and {closing} do not match"
    if value[:1] in ("'", '"'):
        return f"the text does not end with its {value[0]}"
    return f"has characters that stand in quotes only: {_in_quotes(key, value)}"


def _in_quotes(key: str, value: str) -> str:
    text = value.replace('"', r"\"")
    return shlex.quote(f'{key}="{text}"')


def written(value: Any) -> str:
    """A value as a word of the command line has it: what Hydra's parser reads as that value again."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {written(one)}' for key, one in value.items())}}}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return f"[{', '.join(map(written, value))}]"
    if not isinstance(value, str | PurePath):
        return str(value)
    # Backslashes are doubled only in front of a quote.
    text = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(value))
    return f"'{text}'"


def one_line(error: BaseException) -> str:
    """What a library says in many lines; of a YAML error, file and line first."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark:
        file = Path(mark.name)
        file = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        return f"{file}:{mark.line + 1}: {getattr(error, 'problem', '')}"
    if isinstance(error, RecursionError):
        return "a value of the config contains itself"
    text = re.split(r"\nSee |\n(?:Config )?[Ss]earch path:|\s+full_key:", str(error))[0]
    if error.__cause__ and type(error) is not ValueError:
        text += f" ({str(error.__cause__).splitlines()[0]})"
    ours = type(error) is ValueError or type(error).__module__.startswith("hydra")
    return ("" if ours else f"{type(error).__name__}: ") + " ".join(text.split())

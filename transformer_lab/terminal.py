"""What may be shown: text of others without the characters that a terminal, a dashboard or a spreadsheet would obey."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Control characters (C0, DEL, C1) and those that turn the direction of what follows (Boucher and Anderson, 2021).
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one (OWASP, "CSV injection")
MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", **{sign: f"\\{sign}" for sign in "\\`[]|"}})


def plain(text: str) -> str:
    """With every control character but tab and line feed written out, as in "\\x1b"."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same, and line feeds written out as well."""
    return plain(text).replace("\n", "\\n")


def cell(value: Any) -> Any:
    """For a CSV file: text that a spreadsheet would take for a formula gets an apostrophe; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def without_markup(text: str) -> str:
    """For Markdown, in a line or in a cell of a table: no link, picture or HTML, and no end of the cell."""
    return one_line(text).translate(MARKUP)


def say(text: str) -> None:
    """Print text of others: to a terminal without what it would obey, elsewhere as it is."""
    print(plain(text) if sys.stdout.isatty() else text, end="")


UNREAD = 128 + 13  # the exit code of a program that SIGPIPE ends


def console(**options: Any) -> Any:
    """Rich's, for text of others: nothing in it is markup, and where nobody reads on, BrokenPipeError is raised."""
    from rich.console import Console  # here: a mistake is told without it

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if options.get("stderr") else sys.stdout
    seen = stream.isatty()  # whatever FORCE_COLOR says, which notebooks set
    return Screen(markup=False, force_terminal=seen, color_system="auto" if seen else None, **options)


def hang_up() -> None:
    """From here on nothing is written where nobody reads."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


ROOT = Path(__file__).resolve().parent.parent  # of train.py and scripts
CACHE = "TRANSFORMER_LAB_CACHE"  # the environment variable that chooses where prepared data are kept
WINDOWS = "runs need locks and signals that Windows does not have; the Windows Subsystem for Linux has them"
USUAL_CACHE = os.environ.get(CACHE) or "outputs/cache"


def command(program: str, *words: str) -> str:
    """What runs a program, `train.py` or `scripts/predict.py`, from where the user is, as it is typed into a shell."""
    place = os.path.relpath(ROOT / program)
    return f"{typed(program, place)} {shlex.join(words)}".rstrip()


def typed(program: str, place: str | None = None) -> str:
    """How a program is called: as `transformer-lab` where that was typed, or where there is no clone."""
    if Path(sys.argv[0]).name.startswith("transformer-lab") or not (ROOT / program).is_file():
        return f"transformer-lab {Path(program).stem}"
    return shlex.join(["python", place or program])


def around(extensions: Sequence[str], cache_dir: str = USUAL_CACHE) -> list[str]:
    """The words that a command on a run needs beside it, where they are not as usual."""
    cache = [] if cache_dir == USUAL_CACHE else [f"cache_dir={cache_dir}"]
    return [*cache, *([f"extensions=[{','.join(extensions)}]"] if extensions else [])]


class Plain(logging.Formatter):
    """Lines of a log, which name what others have named."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))

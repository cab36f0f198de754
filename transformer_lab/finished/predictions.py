"""What a finished run makes of each row of a file, in order: the file is read as training reads it."""

import csv
import inspect
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

from rich.progress import track

from transformer_lab.composition.build import Section
from transformer_lab.data.sources.files import is_table
from transformer_lab.data.sources.streams import clean, lines
from transformer_lab.data.sources.tables import Row, rows
from transformer_lab.finished.loaded_run import LoadedRun, reader
from transformer_lab.terminal import console

AT_ONCE = 256  # rows handed to a task together, which parts them as it likes: a multiple of what any takes at once
SEPARATED = {".csv": ",", ".tsv": "\t"}  # the ends of files that results are written into as a table
NAMED = 10  # texts that were truncated, of however many there are
log = logging.getLogger(__name__)
Said = dict[str, Any]  # what a task's `predict` says of one text


@dataclass(frozen=True)
class Given:
    """What a model is given: where it stands, a text, and the row that it is from, if it is from a table."""

    where: str
    text: str
    row: Row | None = None


@contextmanager
def kept(file: str) -> Iterator[Path]:
    """The file to read, any number of times; what comes through a pipe is copied first. "-" is the standard input."""
    place = Path(file).expanduser()
    if file != "-" and not place.is_fifo() and not place.is_char_device():
        yield place
        return
    if sys.stdin is None:
        raise ValueError(f"file={file}: there is no standard input")
    with NamedTemporaryFile() as copy:
        with sys.stdin.buffer if file == "-" else place.open("rb") as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()
        try:
            yield Path(copy.name)
        except ValueError as error:
            raise ValueError(str(error).replace(copy.name, f"file={file}")) from error


def given(run: LoadedRun, file: Path, named: Section, *, others: bool) -> Iterator[Given]:
    """The lines of a text; or the rows of a table with the columns of the run's data, as `named` says otherwise.

    `others` says whether columns are wanted that the run does not know. Raises ValueError for what is no text.
    """
    if not is_table(file):
        yield from (Given(where, clean(line, where)) for where, line in lines(file))
        return
    source = reader(run, str(file), named)
    wanted = [source.columns.names()[option] for option in source.columns.inputs()]
    read = source.columns.given(rows(file, wanted, source.cells, others=others), file)
    yield from itertools.starmap(Given, read)


def predicted(run: LoadedRun, texts: Iterator[Given], options: dict[str, Any]) -> Iterator[tuple[Given, Said]]:
    """What the run's task says of each text: one thing or, where it is asked for several samples, so many in a row."""
    before = 0  # things said
    seeded = inspect.signature(run.task.predict).parameters.get("seed")
    while some := list(itertools.islice(texts, AT_ONCE)):
        # Each batch has the seed that it would have if all were predicted at once.
        seed = {"seed": options.get("seed", seeded.default) + before} if seeded else {}
        found = run.predict([one.text for one in some], **{**options, **seed})
        before += len(found)
        each = len(found) // len(some)
        yield from ((some[number // each], said) for number, said in enumerate(found))


def warned(found: Iterator[tuple[Given, Said]], file: Path, name: str) -> Iterator[tuple[Given, Said]]:
    """The same, and in the end a warning of the texts that were truncated, by their lines in the file called `name`."""
    count, locations, last = 0, list[str](), None
    for given, said in found:
        if said.get("truncated") and given is not last:  # of several samples, each says so
            count, locations = count + 1, [*locations, given.where.replace(str(file), name)][:NAMED]
        last = given
        yield given, said
    if count:
        log.warning(
            "%s longer than the model's context, which has read a part: %s%s",
            f"{count:,} texts were" if count > 1 else "a text was",
            ", ".join(locations),
            ", …" if count > NAMED else "",
        )


def predict_file(
    run: LoadedRun, file: Path, named: Section, options: dict[str, Any], *, others: bool, silent: bool
) -> Iterator[tuple[Given, Said]]:
    """The same of a file, all of which is read before: a line that is no text is told before anything is written."""
    total = sum(1 for _ in given(run, file, named, others=False))
    screen = console(stderr=True)
    shown = track(
        given(run, file, named, others=others),
        "predicting",
        total=total,
        console=screen,
        transient=True,
        disable=silent or not screen.is_terminal,
    )
    return predicted(run, iter(shown), options)


def write_lines(found: Iterator[str], output: Path) -> None:
    """One line each, as they come."""
    first = list(itertools.islice(found, 1))  # an option that does not fit leaves a file that is there as it is
    with output.open("w", encoding="utf-8") as stream:
        for one in first:
            stream.write(f"{one}\n")
        for one in found:
            stream.write(f"{one}\n")


def write_table(found: Iterator[tuple[Given, Said]], output: Path) -> None:
    """The columns of the input, then what was said. Which there are, only the last row tells: rows are kept aside."""
    own: dict[str, None] = {}
    said: dict[str, None] = {}
    with TemporaryFile("w+", dir=output.absolute().parent, encoding="utf-8") as aside:
        try:
            for given, one in found:
                row = {"input": given.text} if given.row is None else given.row
                cells = {name: _cell(value) for name, value in row.items()}, _cells(one)
                own |= dict.fromkeys(cells[0])
                said |= dict.fromkeys(cells[1])
                aside.write(json.dumps(cells) + "\n")
        finally:  # also of what is interrupted; but an option that does not fit leaves a file that is there as it is
            if said:
                aside.seek(0)
                _write_rows(map(json.loads, aside), list(own), list(said), output)
    if not said:
        output.write_text("")


def _write_rows(rows: Iterator[list[dict[str, str]]], own: list[str], said: list[str], output: Path) -> None:
    with output.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        table = csv.writer(stream, delimiter=SEPARATED[output.suffix.lower()], lineterminator="\n")
        table.writerow([*own, *(_free(name, own) for name in said)])
        for given, one in rows:
            table.writerow([*(given.get(name, "") for name in own), *(one.get(name, "") for name in said)])


def _cells(said: Said) -> dict[str, str]:
    """What a task says is its prediction; what it says beside has its name, and of several things each one's."""
    (_, prediction), *rest = ((key, value) for key, value in said.items() if key not in ("input", "text"))
    cells = {"prediction": _cell(prediction)}
    for key, value in rest:
        parts = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
        cells |= {name: _cell(one) for name, one in parts.items()}
    return cells


def _cell(value: Any) -> str:
    """Line ends are \\n whatever they were, as wherever a text is read."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _free(name: str, taken: list[str]) -> str:
    """The name, or what is like it where a column of the input has it already."""
    while name in taken:
        name += "_"
    return name

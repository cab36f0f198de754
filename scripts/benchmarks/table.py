"""The benchmark as a whole: which contenders are there, their rounds, and the table on the terminal and in files."""

import importlib
import itertools
import json
import platform
import statistics
import sys
import warnings
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import apart, loading, planning, scaling, starting, storing
from benchmarks.apart import Apart
from benchmarks.measure import alternate, machine
from benchmarks.setting import Setting
from transformer_lab.training.flops import Speed, matrix_rate

LIBRARIES = ("torch", "lightning", "transformers", "litgpt", "x-transformers", "ctranslate2", "tokenizers", "numpy")
CORPORA = ((1_000_000, 1000), (10_000_000, 10_000), (100_000_000, 100_000), (1_000_000_000, 1_000_000))  # bytes, rows
STORED = (10_000_000, 100_000_000, 1_000_000_000)  # bytes
console = Console(width=None if sys.stdout.isatty() else 160)


def measure(
    *,
    works: list[str],
    peers: str,
    against: str | None,
    nanogpt: str,
    size: str,
    hardware: str,
    precision: str,
    rounds: int,
    steps: int,
    scale: bool,
    planned: bool,
    output: str,
) -> None:
    warnings.filterwarnings("ignore")
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    place = unused(Path(output), Setting(hardware, precision, "", size))
    for name in works:
        work = importlib.import_module(f"benchmarks.{name}")
        for case in work.CASES:
            built = size if size in getattr(work, "SIZES", {}) else "small"
            setting = Setting(hardware, precision, case, built, nanogpt)
            found.append(row(work, name, setting, peers, against, rounds, steps))
            console.print(as_table(found[-1]))
            write(place, setting, found, more)  # what an interrupted run has measured stays
    for name in works:
        if name in FACTS:
            more[name] = FACTS[name]()
            console.print(f"{name}: {more[name]}", highlight=False, soft_wrap=True)
    if scale:
        more["storing by size"], more["steps by size of the corpus"] = stored(), scaled(rounds)
    if planned:
        more["plan / run"] = planning.table()
    write(place, setting, found, more)
    console.print(f"written: {place}.md and .json", highlight=False)


def row(
    work: ModuleType,
    name: str,
    setting: Setting,
    peers: str,
    against: str | None,
    rounds: int,
    steps: int,
) -> dict[str, Any]:
    """One table: the contenders of a work, in alternating rounds."""
    title = ", ".join(filter(None, (work.TITLE, setting.case)))
    there, skipped = contenders(work, name, setting, peers, against)
    rates: list[float] = []
    with console.status(title) as status:

        def say(words: str) -> None:
            status.update(f"{title}: {words}")

        def between() -> None:
            rates.append(matrix_rate(setting.device, setting.dtype, seconds=1.0))

        results = alternate(there, rounds=rounds, steps=steps, say=say, between=between)
        lines = [asdict(result) for result in results]
        for contender, line in zip(there, lines, strict=True):
            if contender.flops_per_token:
                speed = Speed(contender.flops_per_token, statistics.median(rates))
                line["of_matrix_rate"] = speed.mfu(line["rate"])
            if hasattr(work, "SIZES"):
                line["megabytes"] = contender.megabytes()
            contender.close()
    return {
        "title": title,
        "unit": work.UNIT,
        "matrix_rate": statistics.median(rates),
        "skipped": skipped,
        "lines": lines,
    }


def contenders(
    work: ModuleType, title: str, setting: Setting, peers: str, against: str | None
) -> tuple[list[Apart], dict[str, str]]:
    """Those that can be built, and why others cannot."""
    built: list[Apart] = []
    skipped = {}
    older = apart.older(Path(against), work, title, setting) if against else ()
    for name, make in itertools.chain(apart.contenders(work, title, setting), older):
        ours = name.startswith("transformer_lab")
        if not ours and peers != "all" and not any(word and word in name.lower() for word in peers.lower().split(",")):
            continue
        try:
            built.append(make())
        except ImportError as error:
            skipped[name] = str(error)
            console.print(f"skipped: {name} ({error})", highlight=False)
    return built, skipped


def scaled(rounds: int) -> list[dict[str, Any]]:
    """Cost by the size of the corpus: storing it, and steps of blocks of a stream and of whole documents; medians."""
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for number in range(rounds):
        for text_bytes, examples in CORPORA:
            with console.status(f"round {number + 1} of {rounds}: a corpus of {text_bytes:,} bytes"):
                for packing in ("stream", "documents"):
                    measured = scaling.measure(text_bytes, examples, packing)
                    found.setdefault((packing, text_bytes), []).append(measured)
    lines = []
    for (packing, text_bytes), rows in found.items():
        microseconds, most, own = (statistics.median(values) for values in zip(*rows, strict=True))
        examples = dict(CORPORA)[text_bytes]
        line = {"packing": packing, "bytes": f"{text_bytes:,}", "examples": f"{examples:,}"}
        costs = {"microseconds a token": microseconds, "MB at the most": most, "MB without files": own}
        lines.append(line | costs)
    return lines


def stored() -> list[dict[str, Any]]:
    """Memory and time of storing a corpus, by its size."""
    lines = []
    for size in STORED:
        with console.status(f"storing {size:,} bytes"):
            megabytes, seconds = storing.memory(size)
        lines.append({"bytes": f"{size:,}", "MB at the most": megabytes, "MB of text a second": size / 1e6 / seconds})
    return lines


# What a row says beside its table.
FACTS = {
    "loading": lambda: {"milliseconds to step k of epoch e of 10 million examples": round(loading.seek(), 3)},
    "starting": lambda: {"seconds by the clock to the first step": round(starting.wall(), 2)},
}


def as_table(found: dict[str, Any]) -> Table:
    table = Table(title=found["title"], title_justify="left")
    for heading in headings(found):
        table.add_column(heading, justify="left" if heading in ("", "what differs") else "right")
    for line in found["lines"]:
        table.add_row(*cells(found, line))
    return table


def headings(found: dict[str, Any]) -> list[str]:
    more = ["of the matrix rate", "MB"] if any("megabytes" in line for line in found["lines"]) else []
    return ["", f"{found['unit']}/s", "ms a step", "we are … times as fast", *more, "what differs"]


def cells(found: dict[str, Any], line: dict[str, Any]) -> list[str]:
    median, least, most = line["ratio"]
    share = f"{line['of_matrix_rate']:.0%}" if "of_matrix_rate" in line else ""
    more = [share, f"{line['megabytes']:,.0f}"] if "megabytes" in line else []
    ratio = f"{median:.2f} ({least:.2f} to {most:.2f})"
    return [line["name"], f"{line['rate']:,.0f}", f"{line['milliseconds']:,.1f}", ratio, *more, line["differs"]]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def unused(folder: Path, setting: Setting) -> Path:
    """Where a table of today's goes: its name without an ending, with a number where an earlier run has that name."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{date.today().isoformat()}-{'gpu' if setting.device.type == 'cuda' else 'cpu'}-{setting.size}"
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(folder / each for each in names if not (folder / f"{each}.json").exists())


def write(place: Path, setting: Setting, found: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """The table as JSON and as Markdown."""
    about: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(setting.device),
        "precision": str(setting.dtype),
        "versions": versions(),
    }
    written = json.dumps({**about, "rows": found, **more}, indent=1) + "\n"
    place.with_name(f"{place.name}.json").write_text(written, encoding="utf-8")
    said = ", ".join(f"{library} {number}" for library, number in about["versions"].items())
    lines = [f"# {about['date']}, {about['machine']}", "", f"{about['precision']}; {said}.", ""]
    for each in found:
        lines += [f"## {each['title']}", "", f"Matrix rate {each['matrix_rate'] / 1e9:,.0f} GFLOP/s.", ""]
        lines += [f"| {' | '.join(headings(each))} |", f"|{' --- |' * len(headings(each))}"]
        lines += [f"| {' | '.join(cells(each, line))} |" for line in each["lines"]]
        lines += ["", *(f"Not there: {peer} ({why})." for peer, why in each["skipped"].items()), ""]
    for title, rows in more.items():
        lines += [f"## {title}", "", *rows_of(rows), ""]
    place.with_name(f"{place.name}.md").write_text("\n".join(lines), encoding="utf-8")


def rows_of(rows: Any) -> list[str]:
    if isinstance(rows, dict):
        return [f"- {name}: {value}" for name, value in rows.items()]
    keys = list(rows[0])
    return [
        f"| {' | '.join(keys)} |",
        f"|{' --- |' * len(keys)}",
        *(
            f"| {' | '.join(f'{value:,.2f}' if isinstance(value, float) else f'{value}' for value in line.values())} |"
            for line in rows
        ),
    ]

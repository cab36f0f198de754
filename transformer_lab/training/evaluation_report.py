"""What an evaluation has found, for people and programs: a text, JSON and pictures."""

import json
from pathlib import Path
from typing import Any

from transformer_lab.figures import png
from transformer_lab.folders import replace
from transformer_lab.scores import CONFIDENCE, between
from transformer_lab.tasks.base import quoted
from transformer_lab.terminal import without_markup
from transformer_lab.training.evaluation import RESAMPLES, Evaluation

WIDEST = 30  # columns of a table that a person reads


def details(found: Evaluation) -> dict[str, Any]:
    """Everything, fit for JSON; `of` says of which texts the resamples are."""
    return {
        "of": {"text_hash": found.packing.corpus.text_hash, "unit": found.unit, "count": len(found.texts)},
        "metrics": found.metrics,
        "intervals": found.intervals,
        **found.tables,
        "mistakes": found.mistakes,
        "resamples": {name: [float(f"{value:.6g}") for value in values] for name, values in found.resamples.items()},
    }


def markdown(found: Evaluation, title: str, pictures: dict[str, str]) -> str:
    """As a text for people; `pictures` are files by their names."""
    sure = {name: between(*interval) for name, interval in found.intervals.items()}
    rows = [
        {"score": name, "value": f"{value:.4g}", f"{CONFIDENCE:.0%} interval": sure.get(name, "")}
        for name, value in found.metrics.items()
    ]
    unit = found.unit.partition(",")[0]
    parts = [
        f"# {without_markup(title)}",
        table(rows),
        f"The intervals are of {RESAMPLES:,} resamples of the {len(found.texts):,} {unit} (the bootstrap).",
        *(f"![{name}]({file})" for name, file in pictures.items()),
        read(found),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def read(found: Evaluation) -> str:
    """Its tables and the hardest texts."""
    tables = found.tables.items()
    parts = [f"## {name.capitalize()}\n\n{table(rows)}" for name, rows in tables if len(rows[0]) <= WIDEST]
    if found.mistakes:
        parts.append("## The hardest texts")
        parts.append("\n\n---\n\n".join(f"{_about(one)}\n\n{quoted(one['text'])}" for one in found.mistakes))
    return "\n\n".join(parts)


def _about(mistake: dict[str, Any]) -> str:
    """What is short of it, in a line."""
    told = {name: value for name, value in mistake.items() if name in ("loss", "label", "prediction")}
    return ", ".join(f"{name} {cell(value)}" for name, value in told.items())


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else without_markup(str(value))


def write(found: Evaluation, output: Path) -> list[Path]:
    """A .md and a .json beside each other, and a .png for each picture: their names begin with `output`."""
    figures = found.task.pictures(found.texts).items()
    pictures = {name: (f"{output.name}-{name}.png", png(figure)) for name, figure in figures}
    text = markdown(found, output.name, {name: file for name, (file, _) in pictures.items()})
    files: list[tuple[str, str | bytes]] = [
        (f"{output.name}.md", text),
        (f"{output.name}.json", json.dumps(details(found), indent=1, ensure_ascii=False) + "\n"),
        *pictures.values(),
    ]
    for name, content in files:
        replace(output.with_name(name), content)
    return [output.with_name(name) for name, _ in files]

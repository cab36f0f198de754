"""Several runs side by side: their curves by tokens and by time, what differs in their configs, and whether what they
reached differs by more than chance."""

import csv
import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from transformer_lab.composition.hyperparameters import hyperparameters
from transformer_lab.figures import legible, new_figure
from transformer_lab.scores import CURVES, EVALUATIONS, interval_of, metrics_of, middle, scores_of

Curve = list[tuple[float, float, float]]  # tokens, seconds of training, value


@dataclass(frozen=True)
class Run:
    """A run's folder, read: its config by dotted keys, what it reached, and its curves by their names."""

    name: str
    config: dict[str, Any]
    reached: dict[str, float]
    intervals: dict[str, str]  # of what it reached, in brackets
    curves: dict[str, Curve]
    evaluations: dict[str, dict[str, Any]]  # what its folder says of each split


def folders(runs: str) -> list[Path]:
    """Folders separated by commas, or globs of them. Raises ValueError where one is no run."""
    found = []
    for part in map(str.strip, runs.split(",")):
        matches = [Path(path).parent for path in sorted(glob.glob(f"{part}/config.yaml"))]
        if not matches:
            what = "is not the folder of a run: it has no config.yaml" if Path(part).exists() else "no such folder"
            hint = f"; the runs of a sweep are {part}/*" if (Path(part) / "sweep.json").exists() else ""
            raise ValueError(f"runs: {part}: {what}{hint}")
        found += matches
    return found


def read(folder: Path, name: str) -> Run:
    """Raises ValueError for a run without curves, or whose config cannot be read."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"runs: {folder / 'config.yaml'} is no YAML: {' '.join(str(error).split())}") from error
    metrics = metrics_of(folder)
    reached = scores_of(metrics)
    intervals = {key: interval_of(metrics, key) for key in reached}
    return Run(name, hyperparameters(config), reached, intervals, _curves(_points(folder)), _evaluations(folder))


def _evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted((folder / EVALUATIONS).glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"runs: {file} is no JSON: {' '.join(str(error).split())}") from error
    return found


def _points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Of each curve its steps and values; of a run of before there was a table of them, as TensorBoard has them."""
    values: dict[str, list[tuple[int, float]]] = {}
    if (folder / CURVES).is_file():
        with (folder / CURVES).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                values.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
        return values
    if not (folder / "tensorboard").is_dir():
        raise ValueError(f"runs: {folder} has no {CURVES}: it has not begun")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _curves(values: dict[str, list[tuple[int, float]]]) -> dict[str, Curve]:
    """Curves by tokens and by the seconds that training took, pauses and validations not counted."""
    pace = dict(values.get("train/tokens_per_second", []))
    reached, seconds, before = {0: (0.0, 0.0)}, 0.0, 0.0
    for step, tokens in values.get("train/tokens", []):
        seconds += (tokens - before) / pace.get(step, float("inf"))
        before = tokens
        reached[step] = (tokens, seconds)
    steps = sorted(reached)

    def at(step: int) -> tuple[float, float]:
        """Where a step lies; between two points of the training curve, in proportion."""
        if step in reached or step > steps[-1]:
            return reached.get(step, reached[steps[-1]])
        above = next(each for each in steps if each > step)
        below = steps[steps.index(above) - 1]
        share = (step - below) / (above - below)
        return tuple(a + share * (b - a) for a, b in zip(reached[below], reached[above], strict=True))  # type: ignore[return-value]

    return {tag: [(*at(step), value) for step, value in some] for tag, some in values.items()}


def differences(runs: list[Run]) -> dict[str, list[Any]]:
    """The keys whose values are not the same in all runs, with those of each."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = {key: [run.config.get(key) for run in runs] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def table(runs: list[Run]) -> str:
    """What differs and what was reached, as Markdown: a column for each run."""
    reached = dict.fromkeys(key for run in runs for key in run.reached)
    lines = ["| | " + " | ".join(run.name for run in runs) + " |", "| --- |" + " --- |" * len(runs)]
    for key, row in differences(runs).items():
        lines.append(f"| `{key}` | " + " | ".join("" if value is None else f"{value}" for value in row) + " |")
    for key in reached:
        values = (f"{run.reached[key]:.4g}{run.intervals[key]}" if key in run.reached else "" for run in runs)
        lines.append(f"| {key} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def tests(runs: list[Run]) -> str:
    """By how much each run's scores differ from the first one's on the same texts, as Markdown: the paired bootstrap
    (Koehn, 2004). "" where no two were scored on the same texts."""
    parts = []
    for split in ("validation", "test"):
        first, *others = (run.evaluations.get(split) for run in runs)
        rows = []
        for run, other in zip(runs[1:], others, strict=True):
            if first and other and first["of"] == other["of"]:
                rows += [f"| {run.name} | {' | '.join(cells)} |" for cells in _paired(first, other)]
        if rows:
            assert first
            count, unit = first["of"]["count"], first["of"]["unit"].partition(",")[0]
            parts.append(
                f"Against {runs[0].name}, on the same {count:,} {unit} of the {split} split: differences between "
                "paired resamples, the middle 95 % of them, and how likely one as large is by chance alone (p, of each "
                "by itself)\n\n| run | score | difference | 95 % | p |\n| --- | --- | --- | --- | --- |\n"
                + "\n".join(rows)
            )
    return "\n\n".join(parts)


def _paired(first: dict[str, Any], other: dict[str, Any]) -> Iterator[list[str]]:
    """Of each score of both: its name, the difference, where it surely lies, and p of both sides."""
    for name, values in first["resamples"].items():
        if name in other["resamples"]:
            gaps = np.array(other["resamples"][name]) - np.array(values)
            gaps = gaps[np.isfinite(gaps)]
            low, high = middle(gaps)
            tail = min((gaps <= 0).sum(), (gaps >= 0).sum())
            p = min(1.0, 2 * (1 + tail) / (1 + len(gaps)))
            gap = other["metrics"][name] - first["metrics"][name]
            yield [name, f"{gap:+.4g}", f"{low:+.4g} to {high:+.4g}", f"{p:.3f}"]


def curves_picture(folder: Path, names: Sequence[str]) -> Any:
    """A matplotlib figure: curves of one run by steps, or its losses. Raises ValueError for one that it has not."""
    known = _points(folder)
    names = names or [name for name in ("train/loss", "val/loss") if name in known]
    figure = new_figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for name in names:
        if name not in known:
            raise ValueError(f"names: {folder} has no curve {name}; there are {', '.join(sorted(known))}")
        style = {"marker": "o", "markersize": 3} if name.startswith("val/") else {}
        axis.plot(*zip(*known[name], strict=True), label=name, **style)
    axis.set(xlabel="step")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return legible(figure)


def picture(runs: list[Run], metric: str) -> Any:
    """A matplotlib figure: the loss in training and the `metric` of validations, by tokens and by time.

    Raises ValueError for a metric that no run has.
    """
    tags = ["train/loss", f"val/{metric}"]
    known = sorted({tag.removeprefix("val/") for run in runs for tag in run.curves if tag.startswith("val/")})
    if metric not in known:
        raise ValueError(f"metric: no run has {metric}; there are {', '.join(known)}")
    figure = new_figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for row, tag in zip(axes, tags, strict=True):
        for axis, column, label in zip(row, (0, 1), ("tokens", "seconds of training"), strict=True):
            for run in runs:
                points = run.curves.get(tag, [])
                style = {"marker": "o", "markersize": 3} if tag.startswith("val/") else {}
                axis.plot([point[column] for point in points], [point[2] for point in points], label=run.name, **style)
            axis.set(xlabel=label, ylabel=tag)
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    return legible(figure)

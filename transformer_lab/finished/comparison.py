"""Several runs side by side: their curves by tokens and by time, and what differs in their configs."""

import csv
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from transformer_lab.composition.hyperparameters import hyperparameters
from transformer_lab.figures import legible, new_figure
from transformer_lab.scores import CURVES, metrics_of, scores_of

Curve = list[tuple[float, float, float]]  # tokens, seconds of training, value


@dataclass(frozen=True)
class Run:
    """A run's folder, read: its config by dotted keys, what it reached, and its curves by their names."""

    name: str
    config: dict[str, Any]
    reached: dict[str, float]
    curves: dict[str, Curve]


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
    reached = scores_of(metrics_of(folder))
    return Run(name, hyperparameters(config), reached, _curves(_points(folder)))


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
        values = (run.reached.get(key) for run in runs)
        lines.append(f"| {key} | " + " | ".join("" if value is None else f"{value:.4g}" for value in values) + " |")
    return "\n".join(lines)


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

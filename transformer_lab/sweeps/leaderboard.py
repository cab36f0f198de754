"""What the trials of a sweep have reached: ranked, with the values they tried, and which of those matter."""

import csv
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from transformer_lab.folders import replace
from transformer_lab.scores import interval_of, metrics_of, scores_of
from transformer_lab.sweeps import trials
from transformer_lab.terminal import cell, one_line, without_markup

WORDS = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not ended",
}
ENOUGH = 20  # finished trials of a search, and at least TRIALS_EACH for each key, say which values matter
TRIALS_EACH = 10
SAME = 1e-9  # values that differ by no more, of their size, do not differ
INTERPLAY = "their interplay"


@dataclass(frozen=True)
class Leaderboard:
    """`lines` are the trials, best first: their numbers, states, values and metrics; `importance` adds up to 1, and is
    empty where nothing can be said of it."""

    values: list[str]  # keys that were searched
    metrics: list[str]
    lines: list[dict[str, Any]]
    importance: dict[str, float]
    is_grid: bool = True

    @classmethod
    def read(cls, folder: Path) -> "Leaderboard":
        """Raises ValueError where there is no sweep."""
        study = trials.load(folder)
        searched = list(trials.about(folder)["space"])
        every = sorted(study.get_trials(deepcopy=False), key=lambda trial: _order(folder, trial))
        lines = [_line(folder, trial, rank + 1) for rank, trial in enumerate(every)]
        metrics = list(dict.fromkeys(name for line in lines for name in line["metrics"]))
        done = [trial for trial in every if trial.state == TrialState.COMPLETE]
        if is_grid := trials.about(folder)["sampler"] == "grid":
            shares = _shares_of_grid(trials.about(folder)["space"], done)
        else:
            shares = _importance(study, done)
        return cls(searched, metrics, lines, shares, is_grid)

    @property
    def headings(self) -> list[str]:
        return ["", "trial", *self.values, *self.metrics, "steps", "state"]

    def rows(self, intervals: bool = False) -> list[list[str]]:
        found = []
        for line in self.lines:
            values = [_shown(line["values"].get(name)) for name in self.values]
            sure = line["intervals"] if intervals else {}
            metrics = [_shown(line["metrics"].get(name)) + sure.get(name, "") for name in self.metrics]
            numbers = [str(line["rank"]), line["trial"]]
            found.append([*numbers, *values, *metrics, _shown(line["steps"]), line["state"]])
        return found

    def table(self) -> Table:
        """For a terminal: without the scores on test data, by which nothing should be chosen."""
        table = Table(title="Trials, best first", title_justify="left")
        shown = [index for index, heading in enumerate(self.headings) if not heading.startswith("test ")]
        for index in shown:
            table.add_column(one_line(self.headings[index].removeprefix("validation ")), overflow="fold")
        for row in self.rows():
            table.add_row(*(one_line(row[index]) for index in shown))
        table.caption, table.caption_justify = "\n".join(map(one_line, self.remarks())), "left"
        return table

    def remarks(self) -> list[str]:
        """Why trials failed, and which values matter."""
        lines = [f"trial {line['trial']} failed: {line['reason']}" for line in self.lines if line["reason"]]
        if self.importance:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.importance.items())
            what = "share of the variance" if self.is_grid else "share of the difference that each makes (PED-ANOVA)"
            lines.append(f"{what}: {shares}")
        return lines

    def write(self, folder: Path) -> None:
        """As leaderboard.csv and leaderboard.md, which has the intervals of the scores."""
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(map(cell, ["rank", *self.headings[1:]]))
        for line in self.lines:
            writer.writerow(
                map(
                    cell,
                    [
                        line["rank"],
                        line["trial"],
                        *(line["values"].get(name) for name in self.values),
                        *(line["metrics"].get(name) for name in self.metrics),
                        line["steps"],
                        line["reason"] or line["state"],
                    ],
                )
            )
        replace(folder / "leaderboard.csv", table.getvalue())
        rows = [self.headings, ["---"] * len(self.headings), *self.rows(intervals=True)]
        text = "\n".join(f"| {' | '.join(map(without_markup, row))} |" for row in rows)
        text += "".join(f"\n\n{without_markup(line)}" for line in self.remarks())
        replace(folder / "leaderboard.md", text + "\n")


def _order(folder: Path, trial: FrozenTrial) -> tuple[int, float, float, int]:
    """As `scores.rank` has it: of trials that reached the same, the one with the least loss comes first."""
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL]
    latest = max(trial.intermediate_values.items(), default=(0, 0.0))[1]
    reached = trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else latest
    loss = metrics_of(trials.folder_of(folder, trial.number)).get("validation", {}).get("loss", math.inf)
    return states.index(trial.state), -reached, loss, trial.number


def _line(folder: Path, trial: FrozenTrial, rank: int) -> dict[str, Any]:
    own = trials.folder_of(folder, trial.number)
    metrics = metrics_of(own)
    scores = scores_of(metrics)
    return {
        "rank": rank,
        "trial": own.name,
        "values": trial.params,
        "metrics": scores,
        "intervals": {name: interval_of(metrics, name) for name in scores},
        "steps": metrics.get("steps", trial.user_attrs.get("pruned")),
        "state": WORDS.get(trial.state, "not begun"),
        "reason": trial.user_attrs.get("reason", ""),
    }


def _shares_of_grid(space: dict[str, list[str]], done: list[FrozenTrial]) -> dict[str, float]:
    """Of the variance over a full grid, what each key explains by itself, and what only all together do (analysis of
    variance; Fisher, 1925); nothing while a combination is missing."""
    reached = {tuple(trial.params[name] for name in space): float(trial.value or 0.0) for trial in done}
    everything = np.array(list(reached.values()))
    if len(reached) < math.prod(map(len, space.values())) or everything.std() <= SAME * abs(everything).max():
        return {}
    shares = {}
    for index, name in enumerate(space):
        means = [everything[[key[index] == value for key in reached]].mean() for value in space[name]]
        shares[name] = float(np.var(means) / everything.var())
    found = dict(sorted(shares.items(), key=lambda one: -one[1]))
    return found if len(space) == 1 else {**found, INTERPLAY: max(0.0, 1 - sum(shares.values()))}


def _importance(study: optuna.Study, done: list[FrozenTrial]) -> dict[str, float]:
    """Of a search (Watanabe, Bansal and Hutter, 2023, arXiv:2304.10255)."""
    enough = max(ENOUGH, TRIALS_EACH * len(done[0].params)) if done else ENOUGH
    if len(done) < enough or len({trial.value for trial in done}) < 2:
        return {}
    with warnings.catch_warnings(action="ignore"):
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {name: share for name, share in found.items() if share == share}


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

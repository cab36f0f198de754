"""The trials of a sweep, kept in its folder: which there were, with what values, and how each ended.

Optuna (Akiba et al., 2019, arXiv:1907.10902) keeps them in a SQLite file, which a process that is killed leaves whole.
What a trial tries is a pure function of the sweep's seed, its own number and the trials before it: a sweep that was
interrupted goes on as if nothing had happened.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from transformer_lab.sweeps.space import Interval, Space, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
STUDY, ABOUT = "study.db", "sweep.json"
NAME = "sweep"
SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"random": RandomSampler, "tpe": TPESampler}


def folder_of(folder: Path, number: int) -> Path:
    """Where a trial of the sweep in `folder` lies."""
    return folder / f"{number:03}"


def storage(folder: Path) -> str:
    return f"sqlite:///{folder.absolute() / STUDY}"


def about(folder: Path) -> dict[str, Any]:
    """What makes this sweep another one than others. Raises ValueError where there is none."""
    if not folder.is_dir():
        raise ValueError(f"sweep: {folder}: no such folder")
    if not (folder / ABOUT).is_file():
        raise ValueError(f"sweep: {folder} is not the folder of a sweep: it has no {ABOUT}")
    found: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return found


def load(folder: Path) -> optuna.Study:
    """The study of a sweep, to look at."""
    about(folder)
    if not (folder / STUDY).is_file():
        raise ValueError(f"sweep: {folder} holds no trial yet")
    return optuna.load_study(study_name=NAME, storage=storage(folder), sampler=RandomSampler())


class Trials:
    """Asks for trials and records their ends; one process of a sweep does."""

    def __init__(self, folder: Path, space: Space, sampler: str, seed: int) -> None:
        self.space, self.sampler, self.seed = space, sampler, seed
        self.study = optuna.create_study(
            study_name=NAME, storage=storage(folder), direction="maximize", load_if_exists=True, sampler=RandomSampler()
        )

    @property
    def all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def interrupted(self) -> list[int]:
        """Those that an earlier process began and did not end."""
        return [trial.number for trial in self.all if trial.state == TrialState.RUNNING]

    def begin(self) -> int:
        """One more trial; returns its number."""
        return self.study.ask().number

    def words(self, number: int) -> list[str]:
        """What a trial sets: chosen now, or as it was chosen before."""
        self.study.sampler = self._sampler_of(number)
        trial = self._trial(number)
        return self.space.words({each.name: _suggested(trial, each) for each in self.space.searched})

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self.all[number]._trial_id)

    def _sampler_of(self, number: int) -> BaseSampler:
        seed = (self.seed * 1_000_003 + number) % (1 << 32)
        if self.sampler == "grid":
            return PartialFixedSampler(self.space.combination(number), RandomSampler(seed))
        return SAMPLERS[self.sampler](seed=seed)

    def pruned(self, number: int) -> bool:
        return "pruned" in self.all[number].user_attrs

    def end(self, number: int, value: float | None, reason: str | None = None) -> None:
        """With what it reached; or with None: pruned, or failed for a reason."""
        if value is not None:
            self.study.tell(number, value)
        elif reason is None:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self._trial(number).set_user_attr("reason", reason)
            self.study.tell(number, state=TrialState.FAIL)


def _suggested(trial: optuna.Trial, dimension: Values | Interval) -> Any:
    if isinstance(dimension, Values):
        return trial.suggest_categorical(dimension.name, dimension.texts)
    if dimension.whole:
        return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)

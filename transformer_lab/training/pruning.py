"""Ends a trial that others are far ahead of: by the median (Golovin et al., 2017), or Hyperband (Li et al., 2018,
arXiv:1603.06560)."""

import math
from typing import Any, Literal

import optuna
from lightning.pytorch import Callback
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from transformer_lab.scores import height
from transformer_lab.training import ranks

STARTUP = 4  # trials that are left to their end before a median says something


class Pruning(Callback):
    """Tells the study (`storage`, trial `trial`) what each validation ranks, and leaves where that is hopeless.

    Raises optuna.TrialPruned then.
    """

    def __init__(self, *, storage: str, study: str, trial: int, pruner: Literal["median", "hyperband"]) -> None:
        self.storage, self.name, self.number, self.kind = storage, study, trial, pruner

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        study = optuna.load_study(
            study_name=self.name, storage=self.storage, sampler=RandomSampler(), pruner=self._pruner(trainer, pl_module)
        )
        frozen = study.get_trials(deepcopy=False)[self.number]
        self.trial = optuna.Trial(study, frozen._trial_id) if frozen.state == TrialState.RUNNING else None
        self.reported = set(frozen.intermediate_values)  # before an interruption

    def _pruner(self, trainer: Any, pl_module: Any) -> BasePruner:
        if self.kind == "median":
            return MedianPruner(n_startup_trials=STARTUP)
        every, last = trainer.datamodule.sampler.every, pl_module.budget.total_steps
        return HyperbandPruner(min_resource=every, max_resource=last or "auto", reduction_factor=3)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        step = pl_module.progress.step
        hopeless = False
        if self.trial is not None and trainer.is_global_zero:
            reached = height(pl_module.validated, pl_module.best_by)
            if math.isfinite(reached) and step not in self.reported:
                self.trial.report(reached, step)
            hopeless = not pl_module.trainer.should_stop and self.trial.should_prune()
            if hopeless:
                self.trial.set_user_attr("pruned", step)
        if ranks.broadcast(hopeless):
            raise optuna.TrialPruned(f"pruned after step {step}")

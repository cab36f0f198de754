"""Where a run's curves go, each through Lightning's own class: to files, and elsewhere only if somebody asks for it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Lightning's classes are imported where they are used: a config is checked without the seconds that takes.


class Curves:
    """Opens the logger of a run in its folder; curves already there go on after `first_step`, where that is given."""

    def open(self, folder: Path, first_step: int | None) -> Any:
        raise NotImplementedError

    def conclude(self, logger: Any, chosen: dict[str, Any], reached: dict[str, float]) -> None:
        """What a run was made of and what it reached, for tables that compare runs."""
        logger.log_hyperparams(chosen)
        logger.log_metrics(reached)
        logger.finalize("success")


class TensorBoard(Curves):
    """Curves, texts and pictures, for `tensorboard --logdir outputs`."""

    def open(self, folder: Path, first_step: int | None) -> Any:
        from lightning.pytorch.loggers import TensorBoardLogger

        # What it holds beyond the checkpoint that a run goes on from is hidden, or it would be drawn twice.
        return TensorBoardLogger(folder, name="", version="tensorboard", purge_step=first_step)

    def conclude(self, logger: Any, chosen: dict[str, Any], reached: dict[str, float]) -> None:
        logger.log_hyperparams(chosen, reached)  # together, for the table of hyperparameters
        logger.finalize("success")


class CSV(Curves):
    """A table of numbers; each time the run goes on, another one."""

    def open(self, folder: Path, first_step: int | None) -> Any:
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(folder, name="csv")


class WeightsAndBiases(Curves):
    """The service of that name. `offline` keeps all in the run's folder, for `wandb sync`; else it is sent there."""

    def __init__(self, *, project: str, offline: bool) -> None:
        _needed("wandb")
        self.project, self.offline = project, offline

    def open(self, folder: Path, first_step: int | None) -> Any:
        from lightning.pytorch.loggers import WandbLogger

        unique = str(folder.absolute()).replace("/", "-").strip("-")[-100:]  # the same run, when it goes on
        more: dict[str, Any] = {"resume": None if self.offline else "allow"}
        return WandbLogger(
            name=folder.name, id=unique, project=self.project, save_dir=folder, offline=self.offline, **more
        )


class MLflow(Curves):
    """An MLflow server, or files in the run's folder where `tracking_uri` is None."""

    def __init__(self, *, experiment: str, tracking_uri: str | None = None) -> None:
        _needed("mlflow")
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def open(self, folder: Path, first_step: int | None) -> Any:
        from lightning.pytorch.loggers import MLFlowLogger

        uri = self.tracking_uri or f"sqlite:///{folder.absolute()}/mlflow.db"
        return MLFlowLogger(experiment_name=self.experiment, run_name=folder.name, tracking_uri=uri)


def _needed(package: str) -> None:
    if find_spec(package) is None:
        raise ValueError(f"logger: needs the package {package}; pip install {package}")

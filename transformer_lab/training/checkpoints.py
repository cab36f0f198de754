"""When a run saves its checkpoints, and which of them it keeps; `saved` says what they are."""

import copy
import logging
import time
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from transformer_lab.keys import Above
from transformer_lab.training import saved
from transformer_lab.training.faults import NotSaved
from transformer_lab.training.signals import children_wait

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Saves every `every_steps` steps, after each best validation and at the end; keeps the `keep` newest and the best.

    A step that ends with a validation is saved once everybody has counted that: callbacks that stop early do so at the
    end of what Lightning calls an epoch, and a `Checkpoint` is asked last of all. Whatever ends the run early, the
    latest step is saved before; within a validation, as it was before it. `again` is the command that goes on then.
    Of less than two, none would be left where the newest turns out damaged.
    """

    def __init__(
        self,
        *,
        folder: Path,
        again: str,
        files: dict[str, str],
        identity: dict[str, Any],
        every_steps: Annotated[int, Above(0)],
        keep: Annotated[int, Above(1)],
    ) -> None:
        self.folder, self.again, self.files, self.identity = folder, again, files, identity
        self.every_steps, self.keep = every_steps, keep
        self.verified: set[str] = set()  # those that this process has read back and found whole
        self.before: dict[str, Any] = {}  # what a validation that goes on may change, as it was

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        progress = pl_module.progress
        if progress.step % self.every_steps == 0 and not progress.validation_due:
            self.save(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.before = copy.deepcopy(self._counted(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.before = {}
        progress = pl_module.progress
        progress.stopped = trainer.should_stop and not pl_module.over
        best = progress.best is not None and progress.best.step == progress.step
        if progress.step % self.every_steps == 0 or trainer.should_stop or best:
            self.save(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        step = pl_module.progress.step
        kept = not step or saved.name_of(step) in self.verified
        try:
            if not (kept or pl_module.updating or isinstance(exception, NotSaved)):
                self.save(trainer, pl_module)
        finally:
            found = saved.steps(self.folder)
            where = f"after step {saved.step_of(found[0])}" if found else "from the start"
            log.info("Interrupted; it goes on %s with: %s", where, self.again)

    def _counted(self, trainer: Any, module: Any) -> dict[str, Any]:
        module.collect()
        callbacks = {callback.state_key: state for callback in trainer.callbacks if (state := callback.state_dict())}
        return {"progress": module.progress.state_dict(), "callbacks": callbacks}

    def save(self, trainer: Any, module: Any) -> None:
        """Raises NotSaved where there is no room, or no permission. Of several ranks, the first writes."""
        progress, (weights, latest) = module.progress, module.weights()
        state = {
            **(self.before or self._counted(trainer, module)),
            "total_steps": module.budget.total_steps,
            "optimizer": module.optimizer.state_dict(),
            **({"weights": latest} if latest else {}),
        }
        name = saved.name_of(progress.step)
        if not trainer.is_global_zero:
            self.verified.add(name)
            return
        began = time.perf_counter()
        with children_wait():  # a loader worker that dies does not end the saving
            size = saved.write(self.folder / name, weights, {**state, "identity": self.identity}, self.files)
            self.verified.add(name)
            saved.point(self.folder / "last", name)
            if (best := state["progress"]["best"]) and best["step"] == progress.step:
                saved.point(self.folder / "best", name)
            self._forget(name)
        seconds = time.perf_counter() - began
        log.info("Saved step %s: %.1f MB in %.2f s", progress.step, size / 1e6, seconds)
        if module.logger:
            figures = {"checkpoint/megabytes": size / 1e6, "checkpoint/seconds": seconds}
            module.logger.log_metrics(figures, step=progress.step)

    def _forget(self, newest: str) -> None:
        """Delete what is too old, and what is newer: damaged ones that the run was set back behind.

        Too old is what lies behind `keep` that are known to be whole.
        """
        best = (self.folder / "best").resolve()
        whole = 0
        for folder in saved.steps(self.folder):
            if (folder.name > newest or whole >= self.keep) and folder.resolve() != best:
                saved.delete(folder)
            whole += folder.name in self.verified

    def set_back(self, module: Any) -> None:
        """Let `best` lead to the best step that the run knows, if it went on from before a better one."""
        best = module.progress.best
        if best and (self.folder / saved.name_of(best.step)).is_dir():
            saved.point(self.folder / "best", saved.name_of(best.step))

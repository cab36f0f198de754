"""Going on with a run: only as the run that it was, from its newest whole checkpoint."""

import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from transformer_lab.composition.build import Section, build
from transformer_lab.composition.checks import limits, roles
from transformer_lab.keys import Role
from transformer_lab.training import saved
from transformer_lab.training.checkpoints import Checkpoints
from transformer_lab.training.hardware import Hardware, Precision
from transformer_lab.training.module import Training

log = logging.getLogger(__name__)


def restore(
    saver: Checkpoints, module: Training, watchers: dict[str, Callback], config: Section, resume: str
) -> dict[str, Any] | None:
    """Put the newest whole checkpoint back where it came from; returns what it holds, or None where there is none.

    With `resume` "changed", what is learned with may differ from before; else any difference is refused.
    """
    found = saved.newest_whole(saver.folder)
    if found is None:
        return None
    with saved.as_saved(found):
        training = saved.read_training(found)
        before, state = training["identity"], training["callbacks"]
    for change in refuse_another_run(before, saver.identity, _allowed(resume)):
        log.warning("Going on with a change: %s", change)
    with saved.as_saved(found):
        module.task.load_state_dict(saved.read_weights(found))
        if module.average:
            module.average.restore(module.task, training["weights"])
        _restore_optimizer(module.optimizer, training["optimizer"])
        module.progress.load_state_dict(training["progress"])
        _restore_callbacks(watchers, state, config["callbacks"])
        if module.progress.stopped and saved.read_config(found)["callbacks"] != config["callbacks"]:
            module.progress.stopped = False
            log.info("The callbacks are no longer those that stopped it after step %s", module.progress.step)
    saver.verified.add(found.name)
    saver.set_back(module)
    return training


def take_up(
    saver: Checkpoints, module: Training, watchers: dict[str, Callback], config: Section, folder: Path
) -> dict[str, Any] | None:
    """As `restore`, where the config says that the run in a folder is to go on; raises ValueError where it would end
    before what it has."""
    if not config["resume"]:
        return None
    resumed, total = restore(saver, module, watchers, config, config["resume"]), module.budget.total_steps
    if resumed and total is not None and module.progress.step > total:
        key = next(limit for limit in limits() if config[limit] is not None)
        raise ValueError(f"{key}: the run has {module.progress.step} steps already, and would end at {total}")
    if not resumed and (folder / "config.yaml").exists():
        log.info("%s holds no checkpoint yet: from the first step", folder)
    return resumed


def say_resumed(config: Section, module: Training, resumed: dict[str, Any]) -> None:
    ended = not module.trains_on
    stopped = "; a callback has stopped it" if module.progress.stopped else ""
    log.info(f"{'It has ended already,' if ended else 'Going on'} after step {module.progress.step}{stopped}")
    _warn_of_another_end(config, module, resumed)


def _warn_of_another_end(config: Section, module: Training, resumed: dict[str, Any]) -> None:
    """Say where a run that now ends elsewhere has had other learning rates than if it had been so from the start."""
    before, schedule = resumed["total_steps"], resumed["identity"]["config"]["schedule"]
    if before in (None, module.budget.total_steps) or schedule != config["schedule"]:  # that is said elsewhere
        return
    planned = build(config["schedule"], total_steps=before)
    other = sum(planned(step) != module.schedule(step) for step in range(module.progress.step))
    if other:
        log.warning(
            "The run was to end at step %s, and now at %s: %s of its %s steps so far had another learning rate "
            "than in a run of that length from the start",
            before,
            module.budget.total_steps,
            other,
            module.progress.step,
        )


def _allowed(resume: str) -> Collection[str]:
    return learning() if resume == "changed" else ()


def learning() -> set[str]:
    """The keys of a run that resume=changed may change; of the hardware, only the precision is compared."""
    return {"hardware", *(key for key, role in roles().items() if role is Role.LEARNING)}


def precision_of(folder: Path, machine: Hardware) -> Precision | None:
    """In which the run in a folder has been trained so far; None where it has no checkpoint.

    Earlier versions did not record what auto had been: bf16 on a GPU that has it, else fp32.
    """
    for step in saved.steps(folder / "checkpoints"):
        with suppress(Exception):  # damaged: once the data are there, that is told
            recorded: dict[str, Precision] = saved.read_identity(step)["config"].get("hardware", {})
            return recorded.get("precision", "bf16" if machine.bf16 else "fp32")
    return None


def refuse_other_config(folder: Path, fixed: Section, resume: str) -> None:
    """Raises ValueError where a config is not that of the run in a folder: before its data are prepared, which may take
    long."""
    for step in saved.steps(folder / "checkpoints"):
        with suppress(Exception):  # damaged: once the data are there, that is told
            before = saved.read_identity(step)["config"]
            # What nobody has set, the data may decide, as they did before.
            decided = {key: value for key, value in before["task"].items() if fixed["task"].get(key) is None}
            break
    else:
        return
    refuse_another_run({"config": before}, {"config": fixed | {"task": fixed["task"] | decided}}, _allowed(resume))


def _restore_callbacks(watchers: dict[str, Callback], state: dict[str, Any], sections: Section) -> None:
    """What they have counted; their options, which some keep as well, are those of the config."""
    for name, watcher in watchers.items():
        if watcher.state_key in state:
            watcher.load_state_dict(state[watcher.state_key])
            for option in sections[name].keys() & state[watcher.state_key].keys():
                setattr(watcher, option, sections[name][option])


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """What it has gathered, and the present rate; its options are those of the config."""
    options = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise ValueError(
            "resume: the optimizer's state is of other groups of parameters; optimizer.layer_decay and "
            "optimizer._target_ have to stay as they were"
        ) from error
    for group, own in zip(optimizer.param_groups, options, strict=True):
        for option in group.keys() - own.keys() - {"params", "lr"}:  # of an earlier version
            del group[option]
        group.update(own)


def refuse_another_run(
    before: dict[str, Any], now: dict[str, Any], allowed: Collection[str] = ()
) -> list["Difference"]:
    """Raises ValueError where going on would not be the same run; returns the differences in sections `allowed`."""
    if "hardware" not in before["config"]:  # an earlier version did not record it
        now = now | {"config": {key: value for key, value in now["config"].items() if key != "hardware"}}
    changed = list(differences(before, now))
    refused = [one for one in changed if one.section not in allowed]
    if refused:
        told = "; ".join(map(str, refused[:3])) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
        would_do = not allowed and all(one.section in learning() for one in refused)
        hint = "; resume=changed goes on all the same" if would_do else ""
        raise ValueError(f"resume: this would be another run: {told}{hint}")
    return changed


@dataclass(frozen=True)
class Difference:
    """Between what two runs, or two ranks, were made of: a dotted key, and its two values."""

    path: str
    before: Any
    now: Any

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path} was {self.before}, is {self.now}"


def differences(before: Any, now: Any, path: str = "") -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield Difference(path.removeprefix("config."), before, now)

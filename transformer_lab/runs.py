"""A run as a folder: opened, gone on with, concluded, and searched for its best weights."""

import errno
import fcntl
import itertools
import json
import logging
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch import Callback

from transformer_lab.build import Section
from transformer_lab.folders import refuse_links, replace
from transformer_lab.going_on import CONFIG
from transformer_lab.report import RunLog
from transformer_lab.scores import METRICS
from transformer_lab.tasks.base import Task
from transformer_lab.terminal import plain
from transformer_lab.training import checkpoints
from transformer_lab.training.module import Training
from transformer_lab.training.progress import Progress

log = logging.getLogger(__name__)
LOCK = ".lock"  # in a run's folder
LEARNING = ("optimizer.", "schedule.", "gradient_clip ")  # what resume=changed may change


@contextmanager
def taken(run_dir: str | None, name: str, resume: str | None) -> Iterator[Path]:
    """The folder of the run, from here on this process' own; where no run comes of it, nothing of it stays.

    Raises ValueError where another process has it, or something is in the way.
    """
    for folder in _candidates(run_dir, name, resume):
        first = next(place for place in reversed((folder, *folder.parents)) if not place.exists() or place == folder)
        try:
            folder.mkdir(parents=True, exist_ok=run_dir is not None)
        except FileExistsError:  # of another run that began in this second
            continue
        except OSError as error:
            raise _unwritable(folder, error) from error
        break
    try:
        with lock(folder):
            yield folder
    finally:
        if not (folder / CONFIG).exists():
            _forget(folder, first)


def _candidates(run_dir: str | None, name: str, resume: str | None) -> Iterator[Path]:
    """Where the run may lie: where the user says, or in the first free one of these."""
    if run_dir is not None:
        yield _checked(Path(run_dir), resume)
        return
    if resume:
        raise ValueError("resume: auto needs run_dir, the folder of the run to go on with")
    if Path(name).name in ("", ".."):
        raise ValueError(f"name: {name!r} is no name for a folder")
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        yield Path("outputs") / Path(name).name / (f"{time}-{number}" if number > 1 else time)


def _checked(folder: Path, resume: str | None) -> Path:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"run_dir: {folder} is a file; name a folder")
    refuse_links(folder, "run_dir")
    if not resume and folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        if (folder / LOCK).exists():
            lock(folder).close()  # whoever has it is the better reason
        raise ValueError(f"run_dir: {folder} is not empty; resume=auto goes on with the run in it")
    return folder


def _forget(folder: Path, first: Path) -> None:
    """Delete an empty folder of a run, and those above it that were made for it: down to `first`."""
    with suppress(OSError):  # as soon as one is not empty
        (folder / LOCK).unlink(missing_ok=True)
        for place in (folder, *folder.parents):
            place.rmdir()
            if place == first:
                break


def lock(folder: Path) -> TextIO:
    """Keep a run's folder for this process, until the returned file is closed or the process is dead.

    Raises ValueError where another process has it.
    """
    while True:
        file = _open_lock(folder)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # loader workers do not inherit it: they cannot outlive it
        except (BlockingIOError, PermissionError) as error:
            with file:
                owner = plain(file.read(200)) or "another process"
            raise ValueError(f"run_dir: {folder} is in use by {owner}") from error
        except OSError as error:
            log.warning("run_dir: %s cannot be locked (%s): use it from one process only", folder, error.strerror)
        with suppress(OSError):  # it was deleted meanwhile
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK)):
                break
        file.close()
    file.truncate(0)
    file.write(this_process())
    file.flush()
    return file


def _open_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+", encoding="utf-8",
                         errors="replace")  # fmt: skip
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"run_dir: {folder / LOCK} is a link; delete it") from error
        raise _unwritable(folder, error) from error
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        raise ValueError(f"run_dir: {folder / LOCK} is another file's second name; delete it")
    return file


def this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _unwritable(folder: Path, error: OSError) -> ValueError:
    return ValueError(f"run_dir: {folder} cannot be written: {error.strerror}")


def restore(
    saver: checkpoints.Checkpoints, module: Training, watchers: dict[str, Callback], config: Section, resume: str
) -> dict[str, Any] | None:
    """Put the newest whole checkpoint back where it came from; returns what it holds, or None where there is none.

    With `resume` "changed", what is learned with may differ from before; else any difference is refused.
    """
    found = checkpoints.newest_whole(saver.folder)
    if found is None:
        return None
    with checkpoints.as_saved(found):
        training = checkpoints.read_training(found)
        before, state = training["identity"], training["callbacks"]
    for change in refuse_another_run(before, saver.identity, _allowed(resume)):
        log.warning("Going on with a change: %s", change)
    with checkpoints.as_saved(found):
        module.task.load_state_dict(checkpoints.read_weights(found))
        if module.average:
            module.average.restore(module.task, training["weights"])
        _restore_optimizer(module.optimizer, training["optimizer"])
        module.progress.load_state_dict(training["progress"])
        _restore_callbacks(watchers, state, config["callbacks"])
        if module.progress.stopped and checkpoints.read_config(found)["callbacks"] != config["callbacks"]:
            module.progress.stopped = False
            log.info("The callbacks are no longer those that stopped it after step %s", module.progress.step)
    saver.verified.add(found.name)
    saver.set_back(module)
    return training


def _allowed(resume: str) -> Collection[str]:
    return LEARNING if resume == "changed" else ()


def refuse_other_config(folder: Path, fixed: Section, resume: str) -> None:
    """Raises ValueError where a config is not that of the run in a folder: before its data are prepared, which may take
    long."""
    for step in checkpoints.steps(folder / "checkpoints"):
        with suppress(Exception):  # damaged: once the data are there, that is told
            before = checkpoints.read_identity(step)["config"]
            break
    else:
        return
    # What nobody has set, the data may decide, as they did before.
    decided = {key: value for key, value in before["task"].items() if fixed["task"].get(key) is None}
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
        raise ValueError("resume: the optimizer's state is of other groups of parameters; optimizer.layer_decay and "
                         "optimizer._target_ have to stay as they were") from error  # fmt: skip
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


def refuse_another_run(before: dict[str, Any], now: dict[str, Any], allowed: Collection[str] = ()) -> list[str]:
    """Raises ValueError where going on would not be the same run; returns the differences in sections `allowed`."""
    changed = list(differences(before, now))
    refused = [line for line in changed if not line.startswith(tuple(allowed))]
    if refused:
        hint = "" if allowed or not all(line.startswith(LEARNING) for line in refused) else (
            "; resume=changed goes on all the same")  # fmt: skip
        raise ValueError(f"resume: this would be another run: {'; '.join(refused[:3])}"
                         + (f" and {len(refused) - 3} more" if len(refused) > 3 else "") + hint)  # fmt: skip
    return changed


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Between what two runs, or two ranks, were made of: a few words for each."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path.removeprefix('config.')} was {before}, is {now}"


def open_run(folder: Path, files: dict[str, str], run_log: RunLog) -> None:
    """Put into the run's folder what is known before the first step."""
    try:
        for name, text in files.items():
            replace(folder / name, text)
        run_log.keep_in(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def conclude(
    folder: Path, progress: Progress, tested: dict[str, float] | None, task: Task, best_by: str
) -> dict[str, Any]:
    """Write what `scores` reads: what the best weights reached, by what validations are ranked, and what it took."""
    best, scored_by = progress.best, task.scored_by()
    metrics = {
        "validation": best.metrics if best else {},
        "best_by": best_by,
        **({"test": tested} if tested else {}),
        **({"scored_by": scored_by} if scored_by else {}),
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 3),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1),
    }
    replace(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics


def best_checkpoint(run: str, key: str = "run") -> Path:
    """The checkpoint of a run's best validation, or the newest whole one where that is damaged.

    Raises ValueError where `run` is no run or holds no whole checkpoint.
    """
    folder = Path(run) / "checkpoints"
    if not Path(run).is_dir():
        raise ValueError(f"{key}: {run}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{key}: {run} is not the folder of a run: it has no checkpoints")
    best = folder / Path(os.path.realpath(folder / "best")).name  # one of these, wherever a link may lead
    wrong = checkpoints.damage(best) if best in checkpoints.steps(folder) else "it is missing"
    if wrong is None:
        return best
    newest = checkpoints.newest_whole(folder, key)
    if newest is None:
        raise ValueError(f"{key}: {run} holds no checkpoint yet")
    step = checkpoints.step_of(newest)
    log.warning("The best checkpoint cannot be used (%s); in its place that of step %s is", wrong, step)
    return newest

"""A run as a folder: opened, gone on with, concluded, and searched for its best weights."""

import fcntl
import itertools
import json
import logging
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback

from transformer_lab.report import RunLog
from transformer_lab.training import checkpoints
from transformer_lab.training.module import Training
from transformer_lab.training.progress import Progress

log = logging.getLogger(__name__)
LOCK = ".lock"  # in a run's folder


def run_folder(run_dir: str | None, name: str, resume: str | None) -> Path:
    """Where the run will lie; nothing is written yet."""
    if run_dir is None:
        if resume:
            raise ValueError("resume: auto needs run_dir, the folder of the run to go on with")
        first = Path("outputs") / Path(name).name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        names = (f"{first.name}-{number}" if number > 1 else first.name for number in itertools.count(1))
        return next(folder for folder in map(first.with_name, names) if not folder.exists())
    folder = Path(run_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"run_dir: {folder} is a file; name a folder")
    if not resume and folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(f"run_dir: {folder} is not empty; resume=auto goes on with the run in it")
    return folder


def refuse_unwritable(**folders: Path) -> None:
    """Raises ValueError for a folder that cannot be made or written, named by its key; better now than after hours."""
    for key, folder in folders.items():
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ValueError(
                f"{key}: {folder} cannot be written: {there} is {'read-only' if there.is_dir() else 'a file'}"
            )


def lock(folder: Path) -> TextIO:
    """Keep a run's folder for this process, until the returned file is closed or the process is dead.

    Raises ValueError where another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # loader workers do not inherit it, and so cannot outlive it
    except (BlockingIOError, PermissionError) as error:
        with file:
            file.seek(0)
            owner = file.read() or "another process"
        raise ValueError(f"run_dir: {folder} is in use by {owner}") from error
    except OSError as error:
        log.warning("run_dir: %s cannot be locked (%s): use it from one process only", folder, error.strerror)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _unwritable(folder: Path, error: OSError) -> ValueError:
    return ValueError(f"run_dir: {folder} cannot be written: {error.strerror}")


def restore(saver: checkpoints.Checkpoints, module: Training, watchers: Sequence[Callback]) -> bool:
    """Put the newest whole checkpoint back where it came from; False where there is none."""
    checkpoints.clean(saver.folder)
    found = checkpoints.newest_whole(saver.folder)
    if found is None:
        return False
    training = checkpoints.read_training(found)
    refuse_another_run(training["identity"], saver.identity)
    module.task.load_state_dict(checkpoints.read_weights(found))
    module.optimizer.load_state_dict(training["optimizer"])
    module.progress.load_state_dict(training["progress"])
    saver.verified.add(found.name)
    saver.set_back(module)
    for watcher in watchers:
        if watcher.state_key in training["callbacks"]:
            watcher.load_state_dict(training["callbacks"][watcher.state_key])
    return True


def refuse_another_run(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError where going on would not be the same run."""
    changed = list(_differences(before, now, ""))
    if changed:
        raise ValueError(f"resume: this would be another run: {'; '.join(changed[:3])}"
                         + (f" and {len(changed) - 3} more" if len(changed) > 3 else ""))  # fmt: skip


def _differences(before: Any, now: Any, path: str) -> Any:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path.removeprefix('config.')} was {before}, is {now}"


def open_run(folder: Path, files: dict[str, str], run_log: RunLog) -> None:
    """Create the run's folder with what is known before the first step."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        run_log.keep_in(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def conclude(
    folder: Path, progress: Progress, tested: dict[str, float] | None, scored_by: str | None
) -> dict[str, Any]:
    """Write `metrics.json`: what the best weights reached, and what it took."""
    metrics = {
        "validation": progress.best.metrics if progress.best else {},
        **({"test": tested} if tested else {}),
        **({"scored_by": scored_by} if scored_by else {}),
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 3),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def best_checkpoint(run: str, key: str = "run") -> Path:
    """The checkpoint of a run's best validation, or the newest whole one where that is damaged.

    Raises ValueError where `run` is no run or holds no whole checkpoint.
    """
    folder = Path(run) / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"{key}: {run} is not the folder of a run: it has no checkpoints")
    best = (folder / "best").resolve()
    wrong = checkpoints.damage(best) if best.is_dir() else "it is missing"
    if wrong is None:
        return best
    log.warning("The best checkpoint cannot be used (%s); the newest whole one is", wrong)
    newest = checkpoints.newest_whole(folder)
    if newest is None:
        raise ValueError(f"{key}: {run} holds no checkpoint yet")
    return newest

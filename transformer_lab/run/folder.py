"""A run as a folder: opened, concluded, and searched for its best weights."""

import errno
import fcntl
import itertools
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from transformer_lab.composition.earlier_runs import CONFIG
from transformer_lab.data.examples import Split
from transformer_lab.folders import refuse_links, replace
from transformer_lab.scores import EVALUATIONS, METRICS
from transformer_lab.tasks.base import Task
from transformer_lab.terminal import plain
from transformer_lab.training import saved
from transformer_lab.training.evaluation import Evaluation
from transformer_lab.training.evaluation_report import write
from transformer_lab.training.progress import Progress

if TYPE_CHECKING:
    from transformer_lab.run.report import RunLog

log = logging.getLogger(__name__)
LOCK = ".lock"  # in a run's folder


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
    yield from candidates(name)


def candidates(name: str) -> Iterator[Path]:
    """Folders under outputs/ where a run of this name may lie, one after the other."""
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
        file = os.fdopen(
            os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666),
            "r+",
            encoding="utf-8",
            errors="replace",
        )
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


def open_run(folder: Path, files: dict[str, str], run_log: "RunLog") -> None:
    """Put into the run's folder what is known before the first step."""
    try:
        for name, text in files.items():
            replace(folder / name, text)
        run_log.keep_in(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def conclude(
    folder: Path, progress: Progress, found: Mapping[Split, Evaluation], task: Task, best_by: str
) -> dict[str, Any]:
    """Write what `scores` reads: what the best weights reached, by what validations are ranked, and what it took; and
    all that was found of each split."""
    best, scored_by = progress.best, task.scored_by()
    (folder / EVALUATIONS).mkdir(exist_ok=True)
    for split, one in found.items():
        write(one, folder / EVALUATIONS / split)
    metrics = {
        "validation": best.metrics if best else {},
        "best_by": best_by,
        **({"test": found["test"].metrics} if "test" in found else {}),
        "intervals": {split: one.intervals for split, one in found.items()},
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
    wrong = saved.damage(best) if best in saved.steps(folder) else "it is missing"
    if wrong is None:
        return best
    newest = saved.newest_whole(folder, key)
    if newest is None:
        raise ValueError(f"{key}: {run} holds no checkpoint yet")
    step = saved.step_of(newest)
    log.warning("The best checkpoint cannot be used (%s); in its place that of step %s is", wrong, step)
    return newest

"""What `python train.py -m` runs: the trials of a sweep, one after the other or as a launcher of Hydra's will.

Each trial is a run of its own in a folder of the sweep. The same command again goes on: trials that have ended are
left alone, one that was interrupted resumes from its checkpoint, up to the total that is asked for.
"""

import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra._internal.callbacks import Callbacks
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from transformer_lab.composition.checks import problems, roles
from transformer_lab.composition.configs import Configs
from transformer_lab.composition.earlier_runs import decided
from transformer_lab.composition.problems import Problem, Refused, fail, full_error
from transformer_lab.composition.words import written
from transformer_lab.folders import refuse_links, replace
from transformer_lab.keys import Above
from transformer_lab.scores import height, metrics_of
from transformer_lab.sweeps.space import Space
from transformer_lab.terminal import UNREAD, command, console, hang_up, plain

Sampler = Literal["grid", "random", "tpe"]
Pruner = Literal["none", "median", "hyperband"]
CHECKED = 64  # combinations that are built in rehearsal before the first trial
STOPPED = 128  # exit codes from here on are those of signals: the sweep ends, and goes on another time
GOES_ON = "interrupted; the same command goes on with the sweep"


class TrialFailed(RuntimeError):
    """A trial ended with an error that was told in a line or more."""


class TrialInterrupted(RuntimeError):
    """A trial can go on another time."""


class Trial:
    """A run as part of a sweep: an error ends the run, not the process."""

    def __init__(self, run: TaskFunction) -> None:
        self.run = run

    def __call__(self, config: DictConfig) -> Any:
        try:
            return self.run(config)
        except Refused as error:
            if error.code >= STOPPED:
                raise
            kind = TrialInterrupted if error.again else TrialFailed
            raise kind("; ".join(error.lines)) from error


class Sweep:
    """The trials of a sweep. `sampler` says how values are chosen: every combination (grid), at random, or where trials
    before were good (tpe; Bergstra et al., 2011); `pruner` how hopeless trials end early (see `training.pruning`).

    `total` is how many trials there are in the end; None: all combinations of a grid. `jobs` go to the launcher at a
    time. `params` are what is searched, in files; see `Space`. `composed` is the config of the command without what
    is searched, `configs` what has composed it, `run` what trains one trial.
    """

    def __init__(
        self,
        *,
        configs: Configs,
        composed: DictConfig,
        run: TaskFunction,
        sampler: Sampler,
        pruner: Pruner,
        total: Annotated[int | None, Above(0)],
        jobs: Annotated[int, Above(0)],
        seed: int,
        params: Mapping[str, Any],
    ) -> None:
        self.sampler, self.pruner, self.total, self.jobs, self.seed = sampler, pruner, total, jobs, seed
        self.params = dict(params)
        self.console = console()
        self.configs, self.loader, self.composed = configs, configs.loader, composed
        self.launches = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(configs.loader, Callbacks()), task_function=Trial(run), config=composed
        )

    def sweep(self, words: list[str]) -> None:
        """Run what is left of it. `words` are those of the command; ends the process where not all can be run."""
        try:
            self._sweep(words)
        except ValueError as error:
            if full_error():
                raise
            fail([str(error)])
        except BrokenPipeError:
            hang_up()
            raise SystemExit(UNREAD) from None
        except KeyboardInterrupt:
            fail([GOES_ON], STOPPED + 2)
        except SystemExit as stop:  # with which a trial has obeyed a signal
            if isinstance(stop, Refused):
                raise
            fail([GOES_ON], int(stop.code or 0))

    def _sweep(self, words: list[str]) -> None:
        parser = OverridesParser.create(config_loader=self.loader)
        space = Space(parser, self.params, words, self.loader.list_groups(""))
        total = self._total(space)
        self._rehearse(space)
        # Slow to import, and all that could be wrong with the words is found.
        from transformer_lab.run.folder import lock
        from transformer_lab.sweeps.leaderboard import Leaderboard
        from transformer_lab.sweeps.trials import ABOUT, Trials

        folder = self._folder(space)
        refuse_links(folder, "run_dir")
        with lock(folder):
            self._same_sweep(folder / ABOUT, space)
            trials = Trials(folder, space, self.sampler, self.seed)
            started = len(trials.all)
            if started:
                self._say(f"Going on with {folder}: {started - len(trials.interrupted)} of {total} trials have ended")
            else:
                self._say(f"{total} trials in {folder}")
            left: set[int] = set()  # interrupted now: for another time
            while waiting := self._next(trials, total, left):
                left |= self._run(folder, space, trials, waiting, total)
            found = Leaderboard.read(folder)
            self.console.print(found.table())
            found.write(folder)
            self._say(command("scripts/leaderboard.py", f"sweep={folder}"))
            if left:
                fail([f"{len(left)} of {total} trials were interrupted; the same command goes on"], 1)

    def _next(self, trials: Any, total: int, left: set[int]) -> list[int]:
        """Trials to run at once: those that an earlier process left, then new ones."""
        again = [number for number in trials.interrupted if number not in left]
        return again[: self.jobs] or [trials.begin() for _ in range(min(self.jobs, total - len(trials.all)))]

    def _run(self, folder: Path, space: Space, trials: Any, numbers: Sequence[int], total: int) -> set[int]:
        """Trials that are begun, at once as far as the launcher can; those that have ended already are only noted.

        Returns which were interrupted.
        """
        own = {number: trials.words(number) for number in numbers}
        todo = [number for number in numbers if self._reached(folder, number) is None and not trials.pruned(number)]
        for number in todo:
            values = " ".join(word.lstrip("+") for word in own[number])
            self._say(f"Trial {number:03}, {number + 1} of {total}: {values}")
        jobs = [[*space.fixed.values(), *own[number], *self._words(folder, number)] for number in todo]
        errors = {}
        if jobs:
            returns = self.launches.launch(jobs, initial_job_idx=todo[0])
            for number, returned in zip(todo, returns, strict=True):
                if returned.status != JobStatus.COMPLETED:
                    errors[number] = returned._return_value
        interrupted = {number for number, error in errors.items() if isinstance(error, TrialInterrupted)}
        for number in numbers:
            reached = self._reached(folder, number)
            if number in interrupted:
                continue
            if reached is not None:
                trials.end(number, reached)
            elif trials.pruned(number):
                trials.end(number, None)
            else:
                trials.end(number, None, self._why(errors.get(number)))
        return interrupted

    def _words(self, folder: Path, number: int) -> list[str]:
        from transformer_lab.sweeps import trials

        words = {"run_dir": trials.folder_of(folder, number), "resume": "auto"}
        if self.pruner != "none":
            section = {
                "_target_": "transformer_lab.training.pruning.Pruning",
                "storage": trials.storage(folder),
                "study": trials.NAME,
                "trial": number,
                "pruner": self.pruner,
            }
            words |= {f"callbacks.pruning.{key}": value for key, value in section.items()}
        return [f"++{key}={written(value)}" for key, value in words.items()]

    def _reached(self, folder: Path, number: int) -> float | None:
        """What a trial that ran to its end reached; its own file says so, whatever process it was."""
        from transformer_lab.sweeps.trials import folder_of

        metrics = metrics_of(folder_of(folder, number))
        return height(metrics["validation"], metrics["best_by"]) if metrics.get("validation") else None

    def _why(self, error: Any) -> str:
        if isinstance(error, TrialFailed):
            return str(error)
        if isinstance(error, BaseException):
            traceback.print_exception(error)
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return "ended without a result"

    def _total(self, space: Space) -> int:
        if not space.searched:
            raise ValueError("-m: nothing is searched; give a key several values, such as model.dim=64,128")
        size = space.size
        if self.sampler == "grid":
            if size is None:
                raise ValueError("hydra.sweeper.sampler: a grid has no intervals; sweep=optuna searches them")
            return size if self.total is None else min(size, self.total)
        if self.total is None:
            raise ValueError("hydra.sweeper.total: how many trials? Only a grid has an end of its own")
        return self.total

    def _rehearse(self, space: Space) -> None:
        """Build what a trial would build, for every combination or some of each value: better now than after hours."""
        from transformer_lab.composition.build import rehearse

        found: dict[str, None] = {}
        for words in space.samples(CHECKED):
            every = [*space.fixed.values(), *words]
            config = self.loader.load_sweep_config(self.composed, every)
            values: Any = OmegaConf.to_container(
                OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), resolve=True
            )
            values = decided(values, partial(self.configs.given, every, roles()))
            said = " ".join(word.lstrip("+") for word in words)
            wrong: list[object] = [*problems(values, typed=values.get("extensions") or [])]
            alone = [key for key in ("plan", "preview") if values.get(key)]
            wrong += [Problem(key, "of one run at a time; without -m") for key in alone]
            try:
                if not wrong:
                    rehearse(values)
            except ValueError as error:
                wrong = [error]
            found |= dict.fromkeys(f"{problem} (with {said})" for problem in wrong)
        if found:
            fail(found)

    def _folder(self, space: Space) -> Path:
        """`run_dir`, or one whose name follows from what is searched, so that the same command finds it again."""
        given = space.fixed.pop("run_dir", None)
        if given is not None:
            return Path(given.partition("=")[2].strip("'\""))
        digest = hashlib.sha256(json.dumps(self._about(space), sort_keys=True).encode()).hexdigest()
        return Path("outputs") / "sweeps" / f"{Path(self.composed.name).name}-{digest[:8]}"

    def _about(self, space: Space) -> dict[str, Any]:
        return {"sampler": self.sampler, "pruner": self.pruner, "seed": self.seed, **space.describe()}

    def _same_sweep(self, file: Path, space: Space) -> None:
        now = self._about(space)
        if not file.exists():
            replace(file, json.dumps(now, indent=1) + "\n")
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        for key in now:
            if now[key] != before.get(key):
                raise ValueError(
                    f"run_dir: {file.parent} holds another sweep: {key} was {before.get(key)}, is {now[key]}"
                )

    def _say(self, text: str) -> None:
        self.console.print(plain(text), highlight=False, soft_wrap=True)

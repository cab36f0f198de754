"""A run from its config to its metrics, in an order you can read aloud."""

import logging
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning.pytorch import Trainer

from transformer_lab.composition.build import Section, build, build_optimizer, kernel_name
from transformer_lab.composition.checks import limits
from transformer_lab.composition.hyperparameters import hyperparameters
from transformer_lab.composition.targets import refuse_callbacks
from transformer_lab.data.examples import Split
from transformer_lab.data.module import DataModule
from transformer_lab.interop.writing import exports_to
from transformer_lab.keys import Above, Between, Role
from transformer_lab.run.agreement import refuse_disagreement
from transformer_lab.run.assembly import (
    build_loaders,
    build_saver,
    build_trainer,
    build_training,
    check_metrics,
    fixed_of,
    settled,
)
from transformer_lab.run.estimate import Estimate, estimate
from transformer_lab.run.folder import best_checkpoint, conclude, open_run, taken
from transformer_lab.run.preparation import prepare_task
from transformer_lab.run.report import RunLog, data_rows, run_rows, scores_after, words_after
from transformer_lab.run.resuming import precision_of, refuse_other_config, say_resumed, take_up
from transformer_lab.run.transfer import freeze, start_from
from transformer_lab.scores import scores_of
from transformer_lab.training import ranks, saved
from transformer_lab.training.callbacks import CurveFile, ProgressBar, Samples, ValidationLines
from transformer_lab.training.evaluation import Evaluation, evaluate
from transformer_lab.training.faults import Halted, Interrupted, no_room, out_of_memory, worker_died
from transformer_lab.training.hardware import Hardware, reuse_memory
from transformer_lab.training.loggers import Curves
from transformer_lab.training.module import Training
from transformer_lab.training.notebook import NotebookProgress, in_notebook
from transformer_lab.training.progress import Progress
from transformer_lab.training.signals import EXIT, Signals
from transformer_lab.training.trace import Trace

log = logging.getLogger(__name__)

PREVIEWED = 10  # examples


def train(
    *,
    model: Section,
    position: Section,
    attention: Annotated[Section, Role.FREE],
    norm: Section,
    mixer: Section,
    feed_forward: Section,
    residual: Section,
    task: Section,
    data: Annotated[Section, Role.FREE],
    tokenizer: Annotated[Section, Role.FREE],
    optimizer: Annotated[Section, Role.LEARNING],
    schedule: Annotated[Section, Role.LEARNING],
    hardware: Annotated[Section, Role.FREE],
    logger: Annotated[Section, Role.RECORD],
    name: Annotated[str, Role.RECORD],
    run_dir: Annotated[str | None, Role.PROCESS],
    seed: Annotated[int, Between(0, 4_294_967_295)],
    resume: Annotated[Literal["auto", "changed"] | None, Role.PROCESS],
    init_from: str | None,
    freeze_layers: int,
    tokens_per_step: Annotated[int, Above(0)],
    max_steps: Annotated[int | None, Role.LIMIT, Above(0)],
    max_epochs: Annotated[int | None, Role.LIMIT, Above(0)],
    max_tokens: Annotated[int | None, Role.LIMIT, Above(0)],
    max_minutes: Annotated[float | None, Role.LIMIT, Above(0)],
    gradient_clip: Annotated[float | None, Role.LEARNING, Above(0)],
    log_every_steps: Annotated[int, Role.RECORD, Above(0)],
    validate_every_steps: Annotated[int, Above(0)],
    checkpoint: Annotated[Section, Role.RECORD],
    pictures: Annotated[Section, Role.RECORD],
    cache_dir: Annotated[str, Role.PROCESS],
    extensions: Annotated[list[str], Role.PROCESS],
    callbacks: Annotated[Section, Role.RECORD],
    allow_overlap: Annotated[bool, Role.RECORD],
    preview: Annotated[bool, Role.PROCESS],
    plan: Annotated[bool, Role.PROCESS],
    average: Section | None = None,  # a run of before there were any has none
    best_by: str | None = None,
    overfit: bool = False,
) -> dict[str, Any]:
    """Train the model that the config describes; every argument is a top-level key of `configs/train.yaml`.

    Expects a config in which `checks.problems` and `build.rehearse` found nothing. Returns what `metrics.json` holds.
    Raises ValueError, in one line that names the key, for what only data and folders can tell.
    """
    config = dict(locals())
    first = ranks.rank() == 0  # the one that writes and speaks
    run_log = RunLog(first=first)
    machine: Hardware = build(hardware)
    if machine.device.type == "cpu":
        reuse_memory()
    curves: Curves = build(logger)
    watchers = {name: build(section) for name, section in callbacks.items()}
    refuse_callbacks(watchers)
    with ExitStack() as held:
        held.enter_context(ranks.joined(machine.device, timedelta(minutes=machine.timeout_minutes)))
        mine = first and not (plan or preview)
        folder = ranks.broadcast(held.enter_context(taken(run_dir, name, resume)) if mine else Path())
        if resume:  # auto is what it has been so far
            before = ranks.broadcast(precision_of(folder, machine) if mine and machine.precision == "auto" else None)
            machine = replace(machine, precision=before or machine.precision)
            config |= {"hardware": hardware | {"precision": machine.precision}}
        if resume and mine:
            refuse_other_config(folder, fixed_of(config), resume)

        goes_on = bool(
            resume and run_dir and saved.steps(Path(run_dir) / "checkpoints")
        )  # of init_from, nothing is read
        progress = Progress()
        with ranks.first_of_machine():
            made = prepare_task(config, source=init_from and (run_dir if goes_on else init_from), weightless=plan)
            learner = made.task
            loaders, budget = build_loaders(config, learner, made.store, machine, progress)
        config, machine = settled(config, learner, machine)
        if plan:
            needed = estimate(learner, build_optimizer(optimizer, learner), loaders, budget, machine)
            say_plan(run_log, needed, exports_to(config, learner))
            return {}
        best_by = best_by or learner.best_by
        check_metrics(best_by, watchers, learner, loaders, machine)
        if preview:
            run_log.table("Data", data_rows(learner, loaders, made.facts))
            steps = loaders.steps
            run_log.say(learner.show(steps.batch(0, steps.plan.step(0), PREVIEWED)))
            return {}
        if init_from and not goes_on:
            start_from(init_from, learner, config)
        freeze(learner, freeze_layers)
        module = build_training(config, learner, loaders, budget, progress, machine, best_by)
        saver = build_saver(config, folder, made)

        if first:
            saved.clean(saver.folder)
        refuse_disagreement(folder, saver.identity | {limit: config[limit] for limit in (*limits(), "resume")})
        resumed = take_up(saver, module, watchers, config, folder)
        if first:
            open_run(folder, saver.files, run_log)
        kernel = kernel_name(config, learner, machine)
        rows = run_rows(learner, loaders, budget, machine, kernel, module.speed)
        run_log.table("Run", rows | {"exports to": exports_to(config, learner)})
        if resumed:
            say_resumed(config, module, resumed)
        if machine.activation_checkpointing:
            learner.model.checkpoint_activations()
        if machine.compile:
            learner.compile()
        kept = None
        if module.trains_on:
            kept = curves.open(folder, progress.step + 1)
            validation = {"batches": loaders.evaluation_sets["validation"]}
            seen = [Samples(**validation), build(pictures, **validation)]
            shown: list[Any] = [
                ProgressBar(console=run_log.console),
                ValidationLines(),
                CurveFile(folder=folder),
                *seen,
            ]
            if machine.profile and first:
                shown.append(Trace(folder=folder))
            if in_notebook() and first:
                shown.append(NotebookProgress())
            signals = Signals(unread=lambda: run_log.unread)
            fit(build_trainer(machine, kept, [*shown, *watchers.values(), signals, saver]), module, loaders)
            ranks.barrier()  # for the last checkpoint
            if progress.stopped:
                log.info("Stopped after step %s: %s", progress.step, why_stopped(watchers))

        learner.load_state_dict(saved.read_weights(best_checkpoint(str(folder))))
        found = {split: evaluate_best(module, loaders, split, machine) for split in loaders.evaluation_sets}
        if not first:
            return {}
        metrics = conclude(folder, progress, found, learner, best_by)
        if kept is not None:
            reached = {f"final/{name.replace(' ', '_')}": value for name, value in scores_of(metrics).items()}
            curves.conclude(kept, hyperparameters(config), reached)
        if in_notebook():  # where no command is typed
            run_log.say(scores_after(metrics, folder))
            return metrics
        prompt = learner.try_with(loaders.corpora["validation"])
        run_log.say(words_after(metrics, folder, prompt, cache_dir, extensions))
        return metrics


def fit(trainer: Trainer, module: Training, loaders: DataModule) -> None:
    """Train to the end of the budget; raises Halted for what stops it in the middle and can be told in one line."""
    try:
        trainer.fit(module, datamodule=loaders)
    except ValueError as error:  # Lightning makes one of whatever a logger raises
        if full := no_room(error):
            raise full from None
        raise
    except (RuntimeError, EOFError, OSError) as error:
        if out_of_memory(error):
            raise Halted(
                "hardware: out of memory outside of a step's forward and backward pass; a smaller model, or a "
                "smaller hardware.micro_batch_tokens for validation, may fit"
            ) from error
        if not worker_died(error):
            raise
        if module.received:  # it was told to leave as the run was, or by the run
            raise SystemExit(EXIT + module.received) from error
        raise Interrupted(
            "hardware.workers: a loader process was killed, by the system if memory ran out; fewer of "
            "them, or 0, need less"
        ) from error


def evaluate_best(module: Training, loaders: DataModule, split: Split, machine: Hardware) -> Evaluation:
    """The best weights, which the task has, on a split; a validation of this process is not made a second time."""
    batches, best = loaders.evaluation_sets[split], module.progress.best
    if split == "validation" and module.best_texts and best and module.best_texts[0] == best.step:
        return Evaluation(module.task, batches.packing, module.best_texts[1])
    return evaluate(module.task, batches, machine)


def say_plan(run_log: RunLog, found: Estimate, exported: str) -> None:
    run_log.table("Plan", found.rows() | {"exports to": exported})
    for warning in found.warnings():
        log.warning("%s", warning)


def why_stopped(watchers: dict[str, Any]) -> str:
    """Which callback it was that has stopped the run, and what it says of it."""
    for name, watcher in watchers.items():
        if reason := getattr(watcher, "stopping_reason_message", None):
            return f"callbacks.{name}: {reason}"
    return f"by one of the callbacks {', '.join(watchers)}"

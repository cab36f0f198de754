"""A run from its config to its metrics, in an order you can read aloud."""

import json
import logging
import os
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment

from transformer_lab.composition.build import Section, build, build_optimizer, kernel_name
from transformer_lab.composition.checks import limits, roles
from transformer_lab.composition.hyperparameters import hyperparameters
from transformer_lab.composition.problems import unknown
from transformer_lab.composition.targets import refuse_callbacks
from transformer_lab.data.examples import Split
from transformer_lab.data.module import DataModule, StepSampler
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.steps import EvaluationSet, Steps
from transformer_lab.data.store import Corpus, Store
from transformer_lab.keys import Above, Between, Role
from transformer_lab.run.agreement import refuse_disagreement
from transformer_lab.run.estimate import estimate
from transformer_lab.run.folder import best_checkpoint, conclude, open_run, taken
from transformer_lab.run.preparation import Prepared, prepare_task
from transformer_lab.run.report import RunLog, data_rows, quiet_lightning, run_rows, words_after
from transformer_lab.run.resuming import refuse_other_config, restore
from transformer_lab.run.transfer import freeze, start_from
from transformer_lab.scores import scores_of
from transformer_lab.tasks.base import Task
from transformer_lab.terminal import around, command
from transformer_lab.training import ranks, saved
from transformer_lab.training.callbacks import CurveFile, ProgressBar, Samples, ValidationLines
from transformer_lab.training.checkpoints import Checkpoints
from transformer_lab.training.evaluation import Totals, evaluate, reported
from transformer_lab.training.faults import Halted, Interrupted, no_room, out_of_memory, worker_died
from transformer_lab.training.flops import measure
from transformer_lab.training.hardware import Hardware
from transformer_lab.training.loggers import Curves
from transformer_lab.training.module import Training
from transformer_lab.training.progress import Budget, Progress
from transformer_lab.training.signals import EXIT, Signals
from transformer_lab.training.strategy import SummedGradients

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
    curves: Curves = build(logger)
    watchers = {name: build(section) for name, section in callbacks.items()}
    refuse_callbacks(watchers)
    with ExitStack() as held:
        held.enter_context(ranks.joined(machine.device, timedelta(minutes=machine.timeout_minutes)))
        mine = first and not (plan or preview)
        folder = ranks.broadcast(held.enter_context(taken(run_dir, name, resume)) if mine else Path())
        if resume and mine:
            refuse_other_config(folder, fixed_of(config), resume)

        progress = Progress()
        with ranks.first_of_machine():
            made = prepare_task(config, weightless=plan)
            learner = made.task
            loaders, budget = build_loaders(config, learner, made.store, machine, progress)
        if plan:
            found = estimate(learner, build_optimizer(optimizer, learner), loaders, budget, machine)
            run_log.table("Plan", found.rows())
            for warning in found.warnings():
                log.warning("%s", warning)
            return {}
        best_by = best_by or learner.best_by
        check_metrics(best_by, watchers, learner, loaders, machine)
        if preview:
            run_log.table("Data", data_rows(learner, loaders, made.facts))
            steps = loaders.steps
            run_log.say(learner.show(steps.batch(0, steps.plan.step(0), PREVIEWED)))
            return {}
        if init_from:
            start_from(best_checkpoint(init_from, "init_from"), learner)
        freeze(learner, freeze_layers)
        module = build_training(config, learner, loaders, budget, progress, machine, best_by)
        saver = build_saver(config, folder, made)

        if first:
            saved.clean(saver.folder)
        refuse_disagreement(folder, saver.identity | {limit: config[limit] for limit in (*limits(), "resume")})
        resumed = restore(saver, module, watchers, config, resume) if resume else None
        if resumed and budget.total_steps is not None and progress.step > budget.total_steps:
            key = next(limit for limit in limits() if config[limit] is not None)
            raise ValueError(f"{key}: the run has {progress.step} steps already, and would end at {budget.total_steps}")
        if resume and not resumed and (folder / "config.yaml").exists():
            log.info("%s holds no checkpoint yet: from the first step", folder)
        if first:
            open_run(folder, saver.files, run_log)
        kernel = kernel_name(config, learner, machine)
        run_log.table("Run", run_rows(learner, loaders, budget, machine, kernel, module.speed))
        if resumed:
            ended = not module.trains_on
            stopped = "; a callback has stopped it" if progress.stopped else ""
            log.info(f"{'It has ended already,' if ended else 'Going on'} after step {progress.step}{stopped}")
            warn_of_another_end(config, module, resumed)
        if machine.activation_checkpointing:
            learner.model.checkpoint_activations()
        if machine.compile:
            learner.compile()
        kept = None
        if module.trains_on:
            kept = curves.open(folder, progress.step + 1)
            validation = {"batches": loaders.evaluation_sets["validation"]}
            seen = [Samples(**validation), build(pictures, **validation)]
            shown = [ProgressBar(console=run_log.console), ValidationLines(), CurveFile(folder=folder), *seen]
            signals = Signals(unread=lambda: run_log.unread)
            fit(build_trainer(machine, kept, [*shown, *watchers.values(), signals, saver]), module, loaders)
            ranks.barrier()  # for the last checkpoint
            if progress.stopped:
                log.info("Stopped after step %s: %s", progress.step, why_stopped(watchers))

        learner.load_state_dict(saved.read_weights(best_checkpoint(str(folder))))
        tested = (
            evaluate(learner, loaders.evaluation_sets["test"], machine) if "test" in loaders.evaluation_sets else None
        )
        if not first:
            return {}
        metrics = conclude(folder, progress, tested, learner, best_by)
        if kept is not None:
            reached = {f"final/{name.replace(' ', '_')}": value for name, value in scores_of(metrics).items()}
            curves.conclude(kept, hyperparameters(config), reached)
        prompt = learner.try_with(loaders.corpora["validation"])
        run_log.say(words_after(metrics, folder, prompt, cache_dir, extensions))
        return metrics


def check_metrics(best_by: str, watchers: dict[str, Any], task: Task, loaders: DataModule, machine: Hardware) -> None:
    """Raises ValueError where weights are chosen by a metric, or a callback watches one, that no validation reports."""
    watched = {name: monitor for name, watcher in watchers.items() if (monitor := getattr(watcher, "monitor", None))}
    if watched or best_by != task.best_by:
        totals = Totals()
        batch = loaders.evaluation_sets["validation"][0].to(machine.device)
        with torch.inference_mode(), machine.autocast():
            totals.add(batch, task.to(machine.device).eval().score(batch))
        task.train()
        there = list(reported(task, *totals.mean(), loaders.evaluation_sets["validation"].packing))
        if best_by not in there:
            raise ValueError(f"best_by={unknown(best_by, 'metric', there)}")
        known = [f"val/{name}" for name in there]
        for name, monitor in watched.items():
            if monitor not in known:
                raise ValueError(f"callbacks.{name}.monitor={unknown(monitor, 'metric', known)}")


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


def why_stopped(watchers: dict[str, Any]) -> str:
    """Which callback it was that has stopped the run, and what it says of it."""
    for name, watcher in watchers.items():
        if reason := getattr(watcher, "stopping_reason_message", None):
            return f"callbacks.{name}: {reason}"
    return f"by one of the callbacks {', '.join(watchers)}"


def build_loaders(
    config: Section, task: Task, store: Store, machine: Hardware, progress: Progress
) -> tuple[DataModule, Budget]:
    """The loaders, and the end of the run that follows from how much data there is."""
    corpora: dict[Split, Corpus] = {split: store.splits[split] for split in get_args(Split) if split in store.splits}
    if "validation" not in corpora and not config["overfit"]:
        raise ValueError("data.validation: a run needs a validation split; 0.05 is usual")
    units_per_step = config["tokens_per_step"] // task.capacity
    train = task.packing(corpora["train"])
    num_units = min(train.num_units, units_per_step) if config["overfit"] else train.num_units
    batch_plan = BatchPlan(
        num_units=num_units, units_per_step=units_per_step, seed=config["seed"], data=store.text_hash
    )
    sizes: dict[str, Any] = {"collate": task.collate, "micro_batch_tokens": machine.micro_batch_tokens}
    steps = Steps(packing=train, plan=batch_plan, rank=ranks.rank(), world_size=ranks.world_size(), **sizes)
    evaluation_sets: dict[Split, EvaluationSet] = {
        split: EvaluationSet(packing=task.evaluation_packing(corpus), **sizes)
        for split, corpus in corpora.items()
        if split != "train"
    }
    if config["overfit"]:
        evaluation_sets["validation"] = EvaluationSet(packing=train, num_units=num_units, **sizes)
        corpora["validation"] = corpora["train"]
    budget = Budget(
        steps_per_epoch=batch_plan.steps_per_epoch,
        tokens_per_epoch=train.num_tokens * num_units // train.num_units,
        **{limit: config[limit] for limit in limits()},
    )
    sampler = StepSampler(
        now=lambda: progress.step,
        due=lambda: progress.validation_due,
        every=config["validate_every_steps"],
        last=budget.total_steps,
    )
    loaders = DataModule(
        steps=steps,
        sampler=sampler,
        evaluation_sets=evaluation_sets,
        corpora=corpora,
        workers=machine.workers,
        pin_memory=machine.device.type == "cuda",
    )
    return loaders, budget


def build_training(
    config: Section,
    task: Task,
    loaders: DataModule,
    budget: Budget,
    progress: Progress,
    machine: Hardware,
    best_by: str,
) -> Training:
    return Training(
        task=task,
        optimizer=build_optimizer(config["optimizer"], task),
        schedule=build(config["schedule"], total_steps=budget.total_steps),
        budget=budget,
        progress=progress,
        validation=loaders.evaluation_sets["validation"].packing,
        gradient_clip=config["gradient_clip"],
        log_every_steps=config["log_every_steps"],
        seed=config["seed"],
        speed=measure(task, loaders.steps, machine),
        best_by=best_by,
        average=build(config["average"]) if config["average"] else None,
    )


def warn_of_another_end(config: Section, module: Training, resumed: dict[str, Any]) -> None:
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


def fixed_of(config: Section) -> Section:
    """What may not be another when a run goes on."""
    known = roles()
    return {key: value for key, value in config.items() if known[key] in (Role.IDENTITY, Role.LEARNING)}


def build_saver(config: Section, folder: Path, made: Prepared) -> Checkpoints:
    tokenizer = made.task.tokenizer
    saver: Checkpoints = build(
        config["checkpoint"],
        folder=folder / "checkpoints",
        again=command(
            "train.py", f"run_dir={folder}", "resume=auto", *around(config["extensions"], config["cache_dir"])
        ),
        files={
            "config.yaml": yaml.safe_dump(config, sort_keys=False),
            "tokenizer.json": tokenizer.json,
            "facts.json": json.dumps(made.facts, indent=1, ensure_ascii=False),
        },
        identity={"config": fixed_of(config), "text": made.store.text_hash, "tokenizer": tokenizer.hash},
    )
    return saver


def build_trainer(machine: Hardware, logger: Logger, callbacks: list[Any]) -> Trainer:
    """Lightning's Trainer, without what the run does itself: progress bar, samplers, limits, checkpoints in its way."""
    quiet_lightning()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Trainer(
        accelerator=machine.device.type,
        devices=here,
        num_nodes=ranks.world_size() // here,
        strategy=SummedGradients() if ranks.world_size() > 1 else "auto",
        plugins=None if ranks.world_size() > 1 else LightningEnvironment(),  # else it asks Slurm, also for one process
        precision="bf16-mixed" if machine.bf16 else "32-true",
        logger=logger,
        callbacks=callbacks,
        max_epochs=-1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )

"""What a run is put together from, once its task and its data are there."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment

from transformer_lab.composition.build import Section, build, build_optimizer
from transformer_lab.composition.checks import limits, roles
from transformer_lab.composition.problems import unknown
from transformer_lab.data.examples import Split
from transformer_lab.data.module import DataModule, StepSampler
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.steps import EvaluationSet, Steps
from transformer_lab.data.store import Corpus, Store
from transformer_lab.keys import Role
from transformer_lab.models.stack import Stack
from transformer_lab.run.preparation import Prepared
from transformer_lab.run.report import quiet_lightning
from transformer_lab.tasks.base import Task
from transformer_lab.terminal import around, command
from transformer_lab.training import ranks
from transformer_lab.training.checkpoints import Checkpoints
from transformer_lab.training.evaluation import Evaluation, Tally
from transformer_lab.training.flops import measure
from transformer_lab.training.hardware import Hardware
from transformer_lab.training.module import Training
from transformer_lab.training.progress import Budget, Progress
from transformer_lab.training.strategy import SummedGradients


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


def settled(config: Section, task: Task, machine: Hardware) -> tuple[Section, Hardware]:
    """The config and the hardware with the precision of the run, which its first rank decides."""
    tokens = min(config["tokens_per_step"] // ranks.world_size(), machine.micro_batch_tokens)
    stacks = [module for module in task.modules() if isinstance(module, Stack)]
    width = max((stack.dim for stack in stacks), default=0)
    machine = machine.resolved(tokens // max(1, len(stacks)) * width)  # each has a share of the tokens
    machine = replace(machine, precision=ranks.broadcast(machine.precision))
    return config | {"hardware": config["hardware"] | {"precision": machine.precision}}, machine


def check_metrics(best_by: str, watchers: dict[str, Any], task: Task, loaders: DataModule, machine: Hardware) -> None:
    """Raises ValueError where weights are chosen by a metric, or a callback watches one, that no validation reports."""
    watched = {name: monitor for name, watcher in watchers.items() if (monitor := getattr(watcher, "monitor", None))}
    if watched or best_by != task.best_by:
        tally, batches = Tally(), loaders.evaluation_sets["validation"]
        batch = batches[0].to(machine.device)
        with torch.inference_mode(), machine.autocast():
            tally.add(batch, task.to(machine.device).eval().score(batch))
        task.train()
        there = list(Evaluation(task, batches.packing, tally.texts()).metrics)
        if best_by not in there:
            raise ValueError(f"best_by={unknown(best_by, 'metric', there)}")
        known = [f"val/{name}" for name in there]
        for name, monitor in watched.items():
            if monitor not in known:
                raise ValueError(f"callbacks.{name}.monitor={unknown(monitor, 'metric', known)}")


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


def fixed_of(config: Section) -> Section:
    """What may not be another when a run goes on; of the hardware, the precision, once that is decided."""
    known = roles()
    fixed = {key: value for key, value in config.items() if known[key] in (Role.IDENTITY, Role.LEARNING)}
    precision = config["hardware"]["precision"]
    return fixed if precision == "auto" else fixed | {"hardware": {"precision": precision}}


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

"""What a run will take, worked out before it begins (`plan=true`): the model has no weights, only their sizes.

A step is gone through once on PyTorch's device without memory, "meta"; what it keeps for the backward pass is added
up, and so is what it computes. How fast this machine multiplies matrices of that size and copies memory is measured.
"""

import copy
import time
from collections import defaultdict
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from transformer_lab.data.module import DataModule
from transformer_lab.data.steps import Batch
from transformer_lab.layout import Layout
from transformer_lab.models.layers.attention import kernels_of
from transformer_lab.models.token_loss import LOGITS_AT_ONCE
from transformer_lab.tasks.base import Task
from transformer_lab.training.flops import flops_per_token, matrix_rate, synchronize
from transformer_lab.training.hardware import Hardware, room
from transformer_lab.training.optimizers import QUINTICS, Muon, product_dtype
from transformer_lab.training.progress import Budget

# What is kept of a step costs as much time as to copy it so many times: activations and norms, and their gradients. As
# measured on six configs on a CPU, and on three on a GPU (docs/plan.md), where a compiler spares half of it.
TOUCHED = {"cpu": 22, "cuda": 40, "cuda, compiled": 19}
PASSING = 0.4  # as much again as is kept is there while a backward pass goes on: gradients on their way, old memory
COPIES = 4  # of its matrices, that Muon makes in a step
OWN = 30e6  # bytes that PyTorch and Lightning take for themselves in the first steps on a CPU
FLOAT = 4  # bytes
MEMORY = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "passing": "in passing",
    "activations": "activations of a micro-batch",
    "memory": "memory together",
}


@dataclass(frozen=True)
class Estimate:
    """Sizes in bytes, `room` being what the device has, seconds of one step, and counts of the whole run."""

    parameters: dict[str, int]
    flops_per_token: float
    weights: float
    gradients: float
    optimizer: float
    activations: float
    passing: float
    room: float
    tokens_per_step: float
    total_steps: int | None
    step_seconds: float

    @property
    def memory(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.passing

    def warnings(self) -> list[str]:
        """What would go wrong, as far as it can be told."""
        if self.memory <= self.room:
            return []
        fixed = self.weights + self.gradients + self.optimizer
        less = (
            "a smaller hardware.micro_batch_tokens, or hardware.activation_checkpointing=true, needs less"
            if fixed < self.room
            else f"weights, gradients and optimizer alone take {_size(fixed)}"
        )
        return [f"hardware: {_size(self.memory)} of memory are needed, and {_size(self.room)} are there; {less}"]

    def rows(self) -> dict[str, str]:
        """For a table."""
        total = sum(self.parameters.values())
        rows = {f"parameters of {name}": f"{count:,}" for name, count in self.parameters.items()}
        rows["parameters"] = f"{total:,}"
        rows["FLOPs"] = f"{self.flops_per_token / 1e6:,.1f} million a token"
        for name, label in MEMORY.items():
            rows[label] = _size(getattr(self, name))
        rows[label] += f" of {_size(self.room)}"
        rows["a step"] = f"{self.tokens_per_step:,.0f} tokens, {self.step_seconds:,.3f} s"
        pace = self.tokens_per_step / self.step_seconds
        rows["tokens a second"] = f"{pace:,.0f}" if pace >= 10 else f"{pace:.2g}"
        if self.total_steps is not None:
            tokens = self.tokens_per_step * self.total_steps
            rows["the run"] = (
                f"{self.total_steps:,} steps, {tokens:,.0f} tokens, {tokens * self.flops_per_token:.3g} FLOPs"
            )
            rows["time in training steps"] = _duration(self.total_steps * self.step_seconds)
        return rows


def estimate(
    task: Task, optimizer: torch.optim.Optimizer, loaders: DataModule, budget: Budget, machine: Hardware
) -> Estimate:
    """`task` is built on the device "meta"; the loaders are real."""
    step = loaders.steps[0]
    batch = max(step.micro_batches, key=lambda each: each.num_tokens)
    half = 2 if machine.bf16 else 1
    if machine.activation_checkpointing:
        task.model.checkpoint_activations()
    with _no_attention(task):
        kept = _kept(task, _weightless(batch)) / half
    flops = flops_per_token(task, _weightless(batch))
    if machine.activation_checkpointing:
        flops *= 4 / 3
    weights = FLOAT * sum(p.numel() for p in task.parameters())
    gradients = FLOAT * sum(p.numel() for p in task.parameters() if p.requires_grad)
    states = FLOAT * sum(
        _states(optimizer, group) * sum(p.numel() for p in group["params"]) for group in optimizer.param_groups
    )
    wide = task.model.embedding.num_embeddings * max(batch.num_targets.values(), default=0)
    logits = FLOAT * min(LOGITS_AT_ONCE[machine.device.type], wide)
    per_step = budget.tokens_per_step
    bandwidth = _bandwidth(machine)
    share = per_step / loaders.steps.world_size
    seconds = share * flops / _rate(task, batch, machine)
    touched = TOUCHED["cuda, compiled" if machine.compile and machine.device.type == "cuda" else machine.device.type]
    seconds += touched * kept * share / batch.num_tokens / bandwidth
    seconds += _update_seconds(task, optimizer, machine, bandwidth)
    matrices = FLOAT * sum(p.numel() for p in _orthogonal(optimizer))
    passing = PASSING * (kept + logits) + COPIES * matrices + (OWN if machine.device.type == "cpu" else 0)
    return Estimate(
        _by_module(task),
        flops,
        weights,
        gradients,
        states,
        kept + logits,
        passing,
        _room(machine),
        per_step,
        budget.total_steps,
        seconds,
    )


def _orthogonal(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The weights whose updates are made orthogonal."""
    if not isinstance(optimizer, Muon):
        return []
    return [p for group in optimizer.param_groups if optimizer.orthogonalises(group) for p in group["params"]]


def _states(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    """How many numbers an optimizer keeps for each weight of a group: as it does for a small matrix."""
    small = torch.nn.Parameter(torch.zeros(4, 4))
    small.grad = torch.zeros(4, 4)
    other = copy.copy(optimizer)
    other.param_groups, other.state = [{**group, "params": [small]}], defaultdict(dict)
    other.step()
    return sum(x.numel() for x in other.state[small].values() if isinstance(x, Tensor) and x.ndim) / small.numel()


def _room(machine: Hardware) -> float:
    """Bytes of memory that a device has."""
    if machine.device.type == "cuda":
        return float(torch.cuda.get_device_properties(machine.device).total_memory)
    return room()


def _by_module(task: Task) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, parameter in task.named_parameters():
        part = ".".join(name.split(".")[:2]) if name.startswith("model.") else name.split(".")[0]
        found[part] = found.get(part, 0) + parameter.numel()
    return found


def _kept(task: Task, batch: Batch) -> float:
    """Bytes that a forward pass keeps for the backward pass, besides the weights."""
    weights = {p.untyped_storage()._cdata for p in (*task.parameters(), *task.buffers())}
    sizes: dict[int, int] = {}
    alive = []  # a storage that is gone would lend its number to the next

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights and x.device.type == "meta":
            sizes[storage._cdata] = storage.nbytes()
            alive.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        outcome = task.train()(batch)
    del outcome
    return float(sum(sizes.values()))


def _weightless(batch: Batch) -> Batch:
    """A batch whose tensors have sizes alone; where its sequences begin stays known."""
    moved: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to("meta")
        elif isinstance(value, Layout):
            scratch = {"sequence": value.sequence.to("meta"), "lengths": value.lengths}
            moved[field.name] = Layout(value.offsets.to("meta"), value.longest, value.positions.to("meta"), scratch)
    return replace(batch, **moved)


class _Looked(torch.autograd.Function):
    """What an attention kernel keeps: queries, keys, values and what they gave, and one number for each row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, mixed, q.new_empty(q.shape[:2]))
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError


def _no_attention(task: Task) -> AbstractContextManager[None]:
    return kernels_of(task, lambda module: lambda q, k, v, **rules: _Looked.apply(q, k, v))  # type: ignore[no-untyped-call]


def _rate(task: Task, batch: Batch, machine: Hardware) -> float:
    """Operations a second in a product of the size that the feed-forward layers have."""
    hidden = max((p.shape[0] for name, p in task.named_parameters() if ".up.weight" in name), default=task.model.dim)
    return matrix_rate(machine.device, machine.dtype, shape=(batch.num_tokens, task.model.dim, hidden))


def _bandwidth(machine: Hardware, megabytes: int = 64) -> float:
    """Bytes a second that are read or written when memory is copied."""
    a = torch.ones(megabytes << 18, device=machine.device)
    b = torch.empty_like(a)
    best = 0.0
    for _ in range(5):
        synchronize(machine.device)
        started = time.perf_counter()
        b.copy_(a)
        synchronize(machine.device)
        best = max(best, 2 * FLOAT * a.numel() / (time.perf_counter() - started))
    return best


def _update_seconds(task: Task, optimizer: torch.optim.Optimizer, machine: Hardware, bandwidth: float) -> float:
    """Of the optimizer: memory is read and written, and Muon's matrices are multiplied."""
    flops, moved = 0.0, sum(FLOAT * p.numel() * 8 for group in optimizer.param_groups for p in group["params"])
    for p in _orthogonal(optimizer):
        small, large = sorted(p.shape[-2:])
        flops += p.numel() / (small * large) * len(QUINTICS) * (4 * small**2 * large + 2 * small**3)
    seconds = moved / bandwidth
    if flops:
        size = (task.model.dim, task.model.dim, 4 * task.model.dim)
        seconds += flops / matrix_rate(machine.device, product_dtype(machine.device), shape=size)
    return seconds


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"

"""What the run runs on."""

import contextlib
import ctypes
import os
from dataclasses import dataclass, replace
from typing import Literal

import torch

from transformer_lab.training.optimizers import product_dtype

Precision = Literal["auto", "fp32", "bf16"]

# Numbers in the hidden states of a forward pass from which on a CPU that multiplies bf16 takes at most five sixths of
# the time in it. Steps of the four tasks on two cores: with 100,000 to 150,000 numbers 0.8 to 1.16 of the time in fp32,
# with 200,000 to 300,000 0.66 to 0.82.
WORTH_BF16 = 200_000
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h of the GNU C library numbers them
# How many products' code oneDNN keeps, and how many of these PyTorch holds once more; each by default 1,024.
CODE_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "16"}


def room() -> float:
    """Bytes of memory that this machine has, beside those of its GPUs."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def reuse_memory() -> None:
    """Let this process keep the memory that tensors leave for the next ones.

    The C library hands large pieces back to the system, which then maps and zeroes each page anew: 33,000 of them in a
    step of 4,096 tokens of six layers, a tenth of its time on a CPU. Libraries other than glibc have no such switch.

    And let it keep less of the code that is made for products in bf16, 0.7 MB for each number of rows, of which packed
    batches have ever others: training on pairs took 1.6 GB instead of 0.9, in the same time. Asked before the first
    such product; what the environment says goes before.
    """
    for name, number in CODE_KEPT.items():
        os.environ.setdefault(name, number)
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 1 << 30)  # bytes of a piece that still goes back
        library.mallopt(TRIM_THRESHOLD, -1)  # never


def _ranks_here() -> int:
    """How many processes torchrun or srun has started on this machine; 0 where neither has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 0)) if "RANK" in os.environ else 0


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Device, number format and size of a forward pass; none of them changes what is computed beyond rounding.

    `devices` are those of this machine, a process for each; under torchrun or srun, their processes count, and
    `timeout_minutes` is how long one of several waits for the others in a step.
    `activation_checkpointing` computes what a block has worked out again in the backward pass instead of keeping it.
    With `profile=trace`, three steps' operators are written into the run's folder (`training/trace.py`).
    `precision` is fp32, bf16 (products and activations; weights stay fp32) or auto, until `resolved` has decided.
    """

    accelerator: Literal["auto", "cpu", "gpu"]
    precision: Precision
    compile: bool
    micro_batch_tokens: int
    activation_checkpointing: bool = False
    workers: int = 0
    devices: int = 1
    timeout_minutes: float = 10.0
    profile: Literal["trace"] | None = None

    def __post_init__(self) -> None:
        if self.micro_batch_tokens < 1:
            raise ValueError(f"hardware.micro_batch_tokens: {self.micro_batch_tokens} is too small; at least 1")
        if self.workers < 0:
            raise ValueError(f"hardware.workers: {self.workers} is negative; 0 loads in the main process")
        if self.devices < 1:
            raise ValueError(f"hardware.devices: {self.devices} is too few; at least 1")
        if not 0 < self.timeout_minutes <= 1440:
            raise ValueError(
                f"hardware.timeout_minutes: {self.timeout_minutes:g} is no time to wait for other ranks; "
                "above 0, up to 1440 (a day)"
            )
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError(
                "hardware.accelerator: gpu asked for, but PyTorch finds no CUDA device; hardware=cpu runs here"
            )
        if self.device.type == "cuda" and (wanted := _ranks_here() or self.devices) > (
            there := torch.cuda.device_count()
        ):
            started = ", one for each process that torchrun or srun has started here" if _ranks_here() else ""
            raise ValueError(f"hardware.devices: {wanted} asked for{started}, but PyTorch finds {there}")
        if self.precision == "bf16" and product_dtype(self.device) != torch.bfloat16:
            kind = "GPU" if self.device.type == "cuda" else "CPU"
            raise ValueError(f"hardware.precision: bf16 is many times slower than fp32 on this {kind}; precision=fp32")

    @property
    def device(self) -> torch.device:
        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if gpu else "cpu")

    def resolved(self, hidden: int) -> "Hardware":
        """With a precision in place of auto: bf16 on a GPU that has it, and on a CPU that does for a forward pass with
        so many numbers in its hidden states that it is worth it."""
        if self.precision != "auto":
            return self
        wide = self.device.type == "cpu" and hidden >= WORTH_BF16 and product_dtype(self.device) == torch.bfloat16
        return replace(self, precision="bf16" if wide or self.bf16 else "fp32")

    @property
    def bf16(self) -> bool:
        if self.precision == "auto":
            return self.device.type == "cuda" and product_dtype(self.device) == torch.bfloat16
        return self.precision == "bf16"

    @property
    def dtype(self) -> torch.dtype:
        """What products are computed in."""
        return torch.bfloat16 if self.bf16 else torch.float32

    def autocast(self) -> torch.autocast:
        """A context in which they are."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.bf16)

    @property
    def description(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name()
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"

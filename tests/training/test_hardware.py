"""What is asked of a machine is there, or is answered in one line."""

import subprocess
import sys

import pytest
import torch

from transformer_lab.training.hardware import Hardware

PLAIN = {"accelerator": "cpu", "precision": "fp32", "compile": False, "micro_batch_tokens": 64}


@pytest.mark.parametrize("minutes", [0.0, -1.0, 1441.0, float("nan"), float("inf")])
def test_a_time_that_cannot_be_waited_is_refused(minutes):
    with pytest.raises(ValueError, match=r"^hardware.timeout_minutes: \S+ is no time to wait for other ranks"):
        Hardware(**PLAIN, timeout_minutes=minutes)


def test_ranks_that_were_started_from_outside_count_in_place_of_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    gpu = PLAIN | {"accelerator": "gpu", "devices": 2}  # as hardware=ddp has it
    with pytest.raises(ValueError, match=r"^hardware.devices: 2 asked for, but PyTorch finds 1$"):
        Hardware(**gpu)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    Hardware(**gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"^hardware.devices: 4 asked for, one for each process that torchrun or srun"):
        Hardware(**gpu)


PRODUCTS = """
import torch
from transformer_lab.training.hardware import reuse_memory

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024

reuse_memory()
matrix, rows = torch.ones(256, 256, dtype=torch.bfloat16), torch.ones(2000, 256, dtype=torch.bfloat16)
for size in range(500, 1500):
    if size == 900:
        before = resident()
    rows[:size] @ matrix
print(resident() - before)
"""


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="products in bf16 need AVX-512")
def test_memory_does_not_grow_with_the_sizes_that_batches_have_had():
    done = subprocess.run([sys.executable, "-c", PRODUCTS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # MB, for 600 sizes: without a bound that matters, 400

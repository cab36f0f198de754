"""What is asked of a machine is there, or is answered in one line."""

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

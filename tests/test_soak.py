"""Half an hour of everything that can happen to a run, again and again: it still ends where it would have ended.

`SOAK_MINUTES=5 pytest -m battery tests/test_soak.py -s` for a shorter one.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import curves, fingerprint
from transformer_lab.training import saved

ROOT = Path(__file__).parent.parent
WORDS = [
    "data=text",
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=2",
    "model.dropout=0.1",
    "task.context=32",
    "tokens_per_step=512",
    "hardware.micro_batch_tokens=200",
    "hardware.workers=1",
    "max_steps=1500",
    "validate_every_steps=60",
    "checkpoint.every_steps=25",
    "log_every_steps=4",
    "schedule=cosine",
    "schedule.warmup_steps=5",
]


@pytest.mark.battery
def test_faults_without_end_change_nothing(place, tmp_path):
    def start(folder):
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            *WORDS,
            f"data.path={place}/corpus",
            "resume=auto",
            f"cache_dir={place}/cache",
            f"run_dir={folder}",
        ]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    whole = tmp_path / "whole"
    said, _ = (undisturbed := start(whole)).communicate()
    assert undisturbed.returncode == 0, said
    draw, happened = random.Random(4), Counter()
    end = time.monotonic() + 60 * float(os.environ.get("SOAK_MINUTES", 30))
    while time.monotonic() < end:
        run = tmp_path / f"run{happened['finished']}"
        while not (run / "metrics.json").exists():
            process = start(run)
            fault = draw.choice(["kill", "SIGTERM", "SIGINT", "two signals", "worker", "damage"])
            try:
                said, _ = process.communicate(timeout=draw.uniform(4, 25))
            except subprocess.TimeoutExpired:
                inflict(fault, process, run, draw)
                happened[fault] += 1
                try:
                    said, _ = process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    left = subprocess.run(
                        ["ps", "-s", str(process.pid), "-o", "pid,ppid,stat,wchan:20,args"],
                        capture_output=True,
                        text=True,
                    ).stdout
                    os.killpg(process.pid, signal.SIGKILL)
                    pytest.fail(f"60 s after {fault} (returncode {process.returncode}) there is still\n{left}")
            assert "Traceback" not in said or process.returncode < 0, said
        assert fingerprint(run) == fingerprint(whole) and curves(run) == curves(whole), happened
        happened["finished"] += 1
    print(dict(happened))
    assert happened["finished"]


def inflict(fault, process, run, draw):
    if fault == "worker":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children[-1:]:
            os.kill(int(child), signal.SIGKILL)
        time.sleep(5)
        process.kill()  # if it had none yet
    elif fault in ("SIGTERM", "SIGINT"):
        process.send_signal(getattr(signal, fault))
    elif fault == "two signals":
        process.send_signal(signal.SIGINT)
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGINT)
    else:
        process.kill()
        process.wait()
        kept = saved.steps(run / "checkpoints")
        if fault == "damage" and len(kept) > 1:
            file = draw.choice(sorted(path for path in kept[0].iterdir()))
            data = bytearray(file.read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            file.write_bytes(bytes(data))

"""Several ranks train what one process trains: the same examples, the same gradients, the same scores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import curves
from transformer_lab.training.checkpoints import damage

ROOT = Path(__file__).parent.parent
# With 60 tokens each, the last step of an epoch leaves one of three ranks with nothing; with 3 batches, so does
# the validation.
WORDS = ["tokenizer=bytes", "model.dim=32", "model.num_layers=1", "hardware=ddp", "hardware.accelerator=cpu",
         "hardware.micro_batch_tokens=100", "log_every_steps=1", "validate_every_steps=10", "max_steps=20",
         "checkpoint.every_steps=10", "schedule=constant"]  # fmt: skip


@pytest.fixture(scope="module")
def command(place, tmp_path_factory):
    lines = (place / "lines.tsv").read_text().splitlines()[:60]
    table = tmp_path_factory.mktemp("ranks") / "lines.tsv"
    table.write_text("\n".join(lines) + "\n")

    def words(folder, devices, *more, task):
        return [sys.executable, str(ROOT / "train.py"), *task, f"data.path={table}", *WORDS, *more,
                f"cache_dir={place / 'cache'}", f"run_dir={folder}", f"hardware.devices={devices}"]  # fmt: skip

    return words


TASKS = {
    "translation": ["task=translation", "data=parallel", "data.source=text", "data.target=back", "task.context=60",
                    "tokens_per_step=240", "data.validation=0.1", "data.test=0.1", "task.beam_size=2"],
    "mlm_nsp": ["task=mlm_nsp", "data=text", "task.context=32", "tokens_per_step=96", "data.validation=0.1",
                "data.test=0.1"],
}  # fmt: skip


@pytest.mark.parametrize("task", ["translation", pytest.param("mlm_nsp", marks=pytest.mark.battery)])
def test_ranks_train_what_one_process_trains_also_when_resumed_on_another_number(command, tmp_path, task):
    done = [subprocess.run(command(tmp_path / f"{devices}", devices, task=TASKS[task]), capture_output=True, text=True)
            for devices in (1, 3)]  # fmt: skip
    assert all(run.returncode == 0 for run in done), done
    more = [subprocess.run(command(tmp_path / f"{before}", devices, "max_steps=30", "resume=auto", task=TASKS[task]),
                           capture_output=True, text=True) for before, devices in ((1, 2), (3, 1))]  # fmt: skip
    assert all(run.returncode == 0 for run in more), more
    assert "3 × CPU" in done[1].stdout and "Going on after step 20" in more[0].stdout
    one, three = curves(tmp_path / "1"), curves(tmp_path / "3")
    assert one["train/loss"][0][1] == pytest.approx(three["train/loss"][0][1], rel=1e-6)
    for name in one:
        assert [step for step, _ in one[name]] == [step for step, _ in three[name]]
        values, others = ([value for _, value in curve] for curve in (one[name], three[name]))
        assert values == pytest.approx(others, rel=2e-3, abs=1e-4)
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("1", "3"))
    assert first["tokens"] == second["tokens"] and first["test"] == pytest.approx(second["test"], rel=2e-3, abs=1e-4)
    subprocess.run(command(tmp_path / "1", 3, "max_steps=30", "resume=auto", task=TASKS[task]), capture_output=True)
    again = json.loads((tmp_path / "1" / "metrics.json").read_text())  # the same weights, scored by three
    assert again["test"] == pytest.approx(first["test"], rel=1e-6)


def test_a_mistake_is_told_once_and_before_data_are_read(command, tmp_path):
    done = subprocess.run(command(tmp_path / "run", 2, "task.context=2000000", task=TASKS["mlm_nsp"]),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "task.context" in done.stderr
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    done = subprocess.run(command(tmp_path / "used", 2, task=TASKS["mlm_nsp"]), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: run_dir: ") and len(done.stderr.splitlines()) == 1


def children(process):
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("how", ["killed", "SIGTERM", "Ctrl-C"])
def test_one_dead_rank_ends_all_and_a_signal_ends_all_together(command, tmp_path, how):
    words = command(tmp_path / "run", 2, "max_steps=1000000", "validate_every_steps=1000000", task=TASKS["mlm_nsp"])
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "run" / "checkpoints" / "last").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    ranks = children(process)
    assert len(ranks) == 2
    if how == "killed":
        os.kill(ranks[1], signal.SIGKILL)
    else:
        process.send_signal({"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}[how])
    said, _ = process.communicate(timeout=60)
    assert process.returncode == {"killed": 1, "SIGTERM": 143, "Ctrl-C": 130}[how], said
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    assert "Traceback" not in said and damage(tmp_path / "run" / "checkpoints" / "last") is None
    if how == "killed":
        assert "error: hardware.devices: " in said

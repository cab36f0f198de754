"""Several ranks train what one process trains: the same examples, the same gradients, the same scores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import curves, settings
from tests.programs import ROOT, Program, call, latest
from transformer_lab.finished.loaded_run import evaluate_run, load_run
from transformer_lab.run.train import train
from transformer_lab.training.saved import damage, name_of, read_training

# A step of two packs leaves one of three ranks with nothing, and so does the end of a validation.
WORDS = [
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=1",
    "hardware=ddp",
    "hardware.accelerator=cpu",
    "hardware.micro_batch_tokens=100",
    "log_every_steps=1",
    "pictures.layers=[]",
    "validate_every_steps=10",
    "max_steps=30",
    "checkpoint.every_steps=10",
    "schedule=constant",
]


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc to find ranks and sockets in")
TASKS = {
    "translation": [
        "task=translation",
        "data=parallel",
        "data.source=text",
        "data.target=back",
        "task.context=30",
        "tokens_per_step=120",
        "data.validation=0.1",
        "data.test=0.1",
        "task.beam_size=2",
    ],
    "mlm_nsp": [
        "task=mlm_nsp",
        "data=text",
        "task.context=32",
        "tokens_per_step=96",
        "data.validation=0.1",
        "data.test=0.1",
    ],
}


@pytest.fixture(scope="module")
def words(place, tmp_path_factory):
    """What follows `train.py` for one of the tasks, on sixty lines."""
    table = tmp_path_factory.mktemp("ranks") / "lines.tsv"
    table.write_text("\n".join((place / "lines.tsv").read_text().splitlines()[:60]) + "\n")

    def words(folder, task, *more):
        return [*TASKS[task], f"data.path={table}", *WORDS, f"cache_dir={place / 'cache'}", f"run_dir={folder}", *more]

    return words


def command(words):
    return [sys.executable, str(ROOT / "train.py"), *latest(words)]


def answer(words):
    return call("train.py", *words)


@pytest.mark.parametrize("task", ["translation", pytest.param("mlm_nsp", marks=pytest.mark.battery)])
def test_three_ranks_train_and_score_what_one_process_does_also_when_it_goes_on(words, tmp_path, task):
    # Muon makes every direction of a gradient as long as the others, rounding errors too.
    more = ["optimizer=adamw", "checkpoint.every_steps=1", "checkpoint.keep=30"]
    train(**settings(*words(tmp_path / "one", task, "hardware.devices=1", "max_steps=20", *more)))
    train(**settings(*words(tmp_path / "one", task, "hardware.devices=1", "resume=auto", *more)))
    done = answer(words(tmp_path / "three", task, "hardware.devices=3", "max_steps=20", *more))
    assert done.returncode == 0 and "3 × CPU" in done.stdout, done.stderr
    scored = json.loads((tmp_path / "three" / "metrics.json").read_text())
    for split in ("validation", "test"):  # the same weights, scored by one process
        again = evaluate_run(load_run(str(tmp_path / "three"), []), split, "cpu").metrics
        assert scored[split] == pytest.approx(again, rel=1e-6)
    after_one = [tmp_path / name / "checkpoints" / name_of(1) for name in ("one", "three")]
    states = (read_training(checkpoint)["optimizer"]["state"].values() for checkpoint in after_one)
    for state, other in zip(*states, strict=True):
        gradient = state["exp_avg"]  # a tenth of it, as the optimizer's mean begins at zero
        assert (gradient - other["exp_avg"]).norm() <= 1e-6 * gradient.norm() + 1e-12
    train(**settings(*words(tmp_path / "three", task, "hardware.devices=1", "resume=auto", *more)))
    one, three = curves(tmp_path / "one"), curves(tmp_path / "three")
    assert one["train/loss"][0][1] == pytest.approx(three["train/loss"][0][1], rel=1e-6)
    for name in one:
        assert [step for step, _ in one[name]] == [step for step, _ in three[name]]
        values, others = ([value for _, value in curve] for curve in (one[name], three[name]))
        assert values == pytest.approx(others, rel=2e-6, abs=1e-6)
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "three"))
    assert first["tokens"] == second["tokens"]


def test_a_mistake_is_told_once(words, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    done = answer(words(tmp_path / "used", "mlm_nsp", "hardware.devices=2"))
    assert done.returncode == 2 and done.stderr.startswith("error: run_dir: ") and len(done.stderr.splitlines()) == 1


def step(number, world_size, **more):
    """The variables of a task that srun has started on this machine."""
    return {
        **os.environ,
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "here",
        "SLURM_STEP_NUM_TASKS": str(world_size),
        "SLURM_STEP_TASKS_PER_NODE": str(world_size),
        "SLURM_NTASKS": str(world_size),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_NODEID": "0",
        **more,
    }


@needs_proc
def test_tasks_of_srun_are_ranks_of_one_run_and_listen_to_each_other_only(words, tmp_path):
    whole = command(words(tmp_path / "run", "mlm_nsp", "max_steps=100", "validate_every_steps=100"))
    tasks = [
        subprocess.Popen(whole, env=step(number, 2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for number in (0, 1)
    ]
    begun(tasks[0], tmp_path / "run")
    heard = listening(task.pid for task in tasks)
    said, other = (task.communicate(timeout=120)[0] for task in tasks)
    assert heard and heard <= LOOPBACK
    assert [task.returncode for task in tasks] == [0, 0], said + other
    assert "2 × CPU" in said and (tmp_path / "run" / "metrics.json").exists()
    assert not [line for line in other.splitlines() if not line.startswith("[W")]  # PyTorch, of names without DNS


@needs_proc
@pytest.mark.battery
def test_ranks_of_torchrun_listen_to_each_other_only(words, tmp_path):
    own = words(tmp_path / "run", "mlm_nsp", "max_steps=1000000", "validate_every_steps=1000000")
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command(own)[1:]]
    process = subprocess.Popen([sys.executable, *started], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun(process, tmp_path / "run")
    heard = listening(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.terminate()
    assert process.wait(60) == 1 and heard and heard <= LOOPBACK


@pytest.mark.battery
def test_ranks_that_were_typed_differently_are_told_what_differs(words, tmp_path):
    typed = [command(words(tmp_path / "run", "mlm_nsp", f"optimizer.lr={lr}")) for lr in (0.01, 0.02)]
    tasks = [
        subprocess.Popen(one, env=step(number, 2), stderr=subprocess.PIPE, text=True)
        for number, one in enumerate(typed)
    ]
    for task in tasks:
        said = task.communicate(timeout=120)[1]
        assert task.returncode == 2 and "error: hardware: ranks 0 and 1 differ: optimizer.lr was 0.01, is 0.02" in said


def test_one_process_in_a_job_of_many_tasks_is_a_run_of_its_own(words, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")  # without SLURM_NTASKS_PER_NODE, Lightning refuses that
    before = signal.getsignal(signal.SIGUSR1)
    train(**settings(*words(tmp_path / "run", "mlm_nsp", "hardware.devices=1", "max_steps=2")))
    assert (tmp_path / "run" / "metrics.json").exists() and signal.getsignal(signal.SIGUSR1) is before


IMPATIENT = f"""
import runpy
from transformer_lab.run import launch
launch.GRACE = 1.0
if __name__ == "__main__":
    runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""


@needs_proc
def test_a_rank_that_stands_still_ends_all_within_the_limit(words, tmp_path):
    more = ["hardware.devices=2", "hardware.timeout_minutes=0.1", "max_steps=1000000", "validate_every_steps=1000000"]
    (tmp_path / "train.py").write_text(IMPATIENT)
    process = Program(tmp_path / "train.py", *words(tmp_path / "run", "mlm_nsp", *more))
    begun(process, tmp_path / "run")
    time.sleep(0.5)
    ranks = children(process)
    os.kill(ranks[1], signal.SIGSTOP)
    began = time.monotonic()
    said, wrong = process.communicate(timeout=60)
    waited = time.monotonic() - began  # the limit; then GRACE before SIGTERM, and before SIGKILL
    assert process.returncode == 1 and 6 <= waited < 6 + 2 * 1.0 + 5, (waited, said, wrong)
    line = "hardware.timeout_minutes: no word from the other ranks for 0.1 minutes, so this one cannot go on"
    assert [line for line in wrong.splitlines() if line.startswith("error: ")] == [f"error: {line}"], wrong
    assert "Traceback" not in said + wrong and damage(tmp_path / "run" / "checkpoints" / "last") is None
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)


def begun(process, run):
    """Return once there is a checkpoint."""
    while not (run / "checkpoints" / "last").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def listening(pids):
    """The addresses, in hexadecimal, that these processes listen at."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(link.readlink().name)
            except OSError:
                continue
    tables = [Path(f"/proc/net/{table}").read_text() for table in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def children(process):
    """The ranks of a program: each leads a group of its own, and a child of the program has forked them."""

    def below(pid):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return [pid for child in below(process.pid) for pid in below(child) if os.getpgid(pid) == pid]


@needs_proc
@pytest.mark.parametrize("how", ["killed", "SIGTERM", pytest.param("Ctrl-C", marks=pytest.mark.battery)])
def test_one_dead_rank_ends_all_and_a_signal_ends_all_together(words, tmp_path, how):
    more = ["hardware.devices=2", "max_steps=1000000", "validate_every_steps=1000000"]
    process = Program("train.py", *words(tmp_path / "run", "mlm_nsp", *more))
    begun(process, tmp_path / "run")
    ranks = children(process)
    assert len(ranks) == 2
    heard = listening([process.pid, *ranks])
    assert heard and heard <= LOOPBACK
    if how == "killed":
        os.kill(ranks[1], signal.SIGKILL)
    else:
        process.send_signal({"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}[how])
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == {"killed": 1, "SIGTERM": 143, "Ctrl-C": 130}[how], said
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    assert "Traceback" not in said and damage(tmp_path / "run" / "checkpoints" / "last") is None
    if how == "killed":
        assert "error: hardware.devices: " in said

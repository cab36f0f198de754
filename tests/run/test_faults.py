"""What goes wrong in the middle of a run costs at most the step it went wrong in, and is said."""

import json
import logging
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, curves, settings
from tests.programs import Program
from transformer_lab.run.launch import launch
from transformer_lab.run.report import LogFile
from transformer_lab.run.train import train
from transformer_lab.tasks.base import Outcome
from transformer_lab.tasks.language_modeling import LanguageModeling
from transformer_lab.training.faults import Halted
from transformer_lab.training.module import MOST_SKIPPED, Training
from transformer_lab.training.saved import damage, read_weights

WORDS = [*TINY, "max_steps=30", "validate_every_steps=10", "checkpoint.every_steps=10"]


@pytest.fixture
def go(place, tmp_path):
    """Train in this process, with more words; returns the run's folder."""

    def train_with(*words, name="run"):
        more = [f"data.path={place}/corpus", f"cache_dir={place}/cache", f"run_dir={tmp_path / name}", *words]
        train(**settings(*WORDS, *more))
        return tmp_path / name

    return train_with


def log_of(run):
    return " ".join((run / "log.txt").read_text().split())


def step_of(run):
    return json.loads((run / "checkpoints" / "last" / "training.json").read_text())["progress"]["step"]


def at_steps(monkeypatch, spoilt, change):
    """Let `change` have the outcome of each batch of these steps, counted from 0."""
    forward, now = LanguageModeling.forward, {"step": -1}
    backward = Training._backward

    def of_step(self, step, targets):
        now["step"] = step.number
        try:
            return backward(self, step, targets)
        finally:
            now["step"] = -1

    def of_batch(self, batch):
        outcome = forward(self, batch)
        return change(outcome, batch) if now["step"] in spoilt else outcome

    monkeypatch.setattr(Training, "_backward", of_step)
    monkeypatch.setattr(LanguageModeling, "forward", of_batch)


class Spoil(torch.autograd.Function):
    """The number itself, and a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


@pytest.mark.parametrize(
    "change",
    [
        lambda loss: loss * float("nan"),
        lambda loss: loss + float("inf"),
        Spoil.apply,
    ],
    ids=["NaN loss", "infinite loss", "NaN gradient"],
)
def test_a_step_that_is_not_finite_is_skipped_counted_and_told(go, monkeypatch, change):
    at_steps(monkeypatch, {4, 17}, lambda outcome, _: Outcome({"tokens": change(outcome.losses["tokens"])}))
    run = go()
    assert step_of(run) == 30
    state = json.loads((run / "checkpoints" / "last" / "training.json").read_text())
    assert state["progress"]["skipped"] == 2 and state["progress"]["skipped_in_a_row"] == 0
    assert "Step 5 is skipped" in log_of(run) and "Step 18 is skipped" in log_of(run)
    assert all(value.isfinite().all() for value in read_weights(run / "checkpoints" / "last").values())


def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were(go, monkeypatch):
    nothing = lambda outcome, _: Outcome({"tokens": outcome.losses["tokens"] * float("nan")})  # noqa: E731
    at_steps(monkeypatch, {29}, nothing)
    spoilt = go()
    monkeypatch.undo()
    before = go("max_steps=29", name="before")
    for name in ("model.safetensors", "training.safetensors"):
        one, other = ((run / "checkpoints" / "last" / name).read_bytes() for run in (spoilt, before))
        assert one == other


def test_a_run_that_learns_nothing_any_more_stops_and_names_examples(go, monkeypatch, tmp_path):
    forward = LanguageModeling.forward
    broken = lambda self, batch: Outcome({"tokens": forward(self, batch).losses["tokens"] * float("nan")})  # noqa: E731
    at_steps(monkeypatch, {12}, lambda outcome, _: monkeypatch.setattr(LanguageModeling, "forward", broken) or outcome)
    with pytest.raises(Halted, match=f"{MOST_SKIPPED} steps in a row") as error:
        go()
    assert "weights are those of step 13" in str(error.value) and "examples with such a loss are:" in str(error.value)
    last = tmp_path / "run" / "checkpoints" / "last"
    assert step_of(tmp_path / "run") == 13 + MOST_SKIPPED and damage(last) is None
    assert all(value.isfinite().all() for value in read_weights(last).values())


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(go, monkeypatch):
    whole = go("log_every_steps=1", name="whole")

    def full(outcome, batch):
        if batch.num_tokens > 80:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return outcome

    at_steps(monkeypatch, range(6, 100), full)
    run = go("log_every_steps=1")
    assert log_of(run).count("Out of memory in step 7") == 2  # 256 tokens, 128, 64
    assert "hardware.micro_batch_tokens=64" in log_of(run)
    losses, others = (dict(curves(folder)["train/loss"]) for folder in (whole, run))
    assert losses.keys() == others.keys()
    assert others[7] == pytest.approx(losses[7], rel=1e-6) and others[30] == pytest.approx(losses[30], rel=1e-3)


def test_out_of_memory_with_one_sequence_ends_in_one_line(go, monkeypatch, tmp_path):
    def full(outcome, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    at_steps(monkeypatch, {6}, full)
    with pytest.raises(Halted, match="out of memory with no more than one unit of 32"):
        go()
    assert step_of(tmp_path / "run") == 6  # saved on the way out


def test_a_full_disk_keeps_the_checkpoint_before(go, monkeypatch, tmp_path):
    from transformer_lab.training import saved

    save, count = saved.save_file, []

    def full(tensors, path):
        count.append(path)
        if len(count) == 4:  # the optimizer of the second checkpoint
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(saved, "save_file", full)
    with pytest.raises(Halted, match=r"No space left on device; it needs [\d,]+ bytes, [\d,]+ are free"):
        go()
    assert step_of(tmp_path / "run") == 10 and damage(tmp_path / "run" / "checkpoints" / "last") is None
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_full_disk_ends_a_run_in_one_line_and_before_that_its_log_alone(go, place, tmp_path, capfd):
    run = go("max_steps=10", "validate_every_steps=100000")
    room = (run / "checkpoints" / "last" / "training.safetensors").stat().st_size + 5000
    with (run / "log.txt").open("a") as file:
        file.write("x" * (room - file.tell()))
    words = [
        *WORDS,
        f"data.path={place}/corpus",
        f"cache_dir={place}/cache",
        f"run_dir={run}",
        "resume=auto",
        "max_steps=100000",
        "validate_every_steps=100000",
        "log_every_steps=1",
        "checkpoint.every_steps=1000",
        "hardware.accelerator=cpu",
    ]
    config = settings(*words)
    capfd.readouterr()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            launch(config)
        except SystemExit as end:
            os._exit(end.code)
        finally:
            os._exit(77)
    _, status = os.waitpid(child, 0)
    said, wrong = capfd.readouterr()
    assert os.waitstatus_to_exitcode(status) == 1, said + wrong
    assert said.count(f"{run}/log.txt cannot be written: File too large; the run goes on") == 1
    assert wrong == "error: a file of the run cannot be written: File too large; what was saved before stays\n"
    assert (
        f"Interrupted; it goes on after step {step_of(run)} with: python" in said and step_of(run) > 10
    )  # TensorBoard's file


def test_what_an_interrupted_save_left_is_gone_after_the_next_start(go, tmp_path):
    run = go("max_steps=10")
    (run / "checkpoints" / ".step-00000020.partial").mkdir()
    (run / "checkpoints" / ".step-00000020.partial" / "model.safetensors").write_bytes(b"half")
    (run / "checkpoints" / ".last.partial").symlink_to("step-00000020")
    go("resume=auto")
    assert not list((run / "checkpoints").glob(".*"))


def test_the_last_two_that_are_known_to_be_whole_are_never_deleted(go):
    run = go("checkpoint.every_steps=5")
    kept = [path.name for path in sorted((run / "checkpoints").glob("step-*"))]
    assert kept[-2:] == ["step-00000025", "step-00000030"]
    (run / "checkpoints" / "step-00000030" / "model.safetensors").write_bytes(b"damaged")
    go("checkpoint.every_steps=5", "max_steps=35", "resume=auto")
    whole = [path.name for path in sorted((run / "checkpoints").glob("step-*")) if damage(path) is None]
    assert whole[-2:] == ["step-00000030", "step-00000035"]


def test_all_checkpoints_damaged_is_no_fresh_start(go):
    run = go()
    for file in (run / "checkpoints").glob("step-*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"all 2 checkpoints in .* are damaged"):
        go("resume=auto")


def start(place, folder, *words):
    return Program(
        "train.py", *WORDS, f"data.path={place}/corpus", f"cache_dir={place}/cache", f"run_dir={folder}", *words
    )


def until(process, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


LONG = ["max_steps=100000", "validate_every_steps=100000"]


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(place, tmp_path):
    first = start(place, tmp_path / "run", *LONG)
    until(first, (tmp_path / "run" / "checkpoints" / "last").exists)
    second = start(place, tmp_path / "run", *LONG, "resume=auto")
    said = "".join(second.communicate(timeout=60))
    assert second.returncode == 2 and f"in use by process {first.pid}" in " ".join(said.split())
    first.kill()
    first.communicate()
    end = step_of(tmp_path / "run") + 10
    third = start(place, tmp_path / "run", f"max_steps={end}", "validate_every_steps=100000", "resume=auto")
    said = "".join(third.communicate(timeout=60))
    assert third.returncode == 0, said


def test_loader_workers_serve_a_run_however_python_starts_them(go):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)  # the default from Python 3.14 on
    try:
        assert step_of(go("hardware.workers=1", "max_steps=2")) == 2
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_a_killed_loader_worker_ends_the_run_and_nothing_is_lost(place, tmp_path):
    process = start(place, tmp_path / "run", *LONG, "hardware.workers=1")
    until(process, (tmp_path / "run" / "checkpoints" / "last").exists)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == 1 and "error: hardware.workers: a loader process was killed" in said, said
    assert "Traceback" not in said and damage(tmp_path / "run" / "checkpoints" / "last") is None


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "no socket")])
def test_a_connection_that_breaks_with_a_loader_worker_says_the_same(go, monkeypatch, error):
    """As when it is killed in the middle of handing over a step."""

    def broken(*_args, **_more):
        raise error

    monkeypatch.setattr("multiprocessing.resource_sharer._ResourceSharer.get_connection", broken)
    with pytest.raises(Halted, match=r"hardware\.workers: a loader process was killed"):
        go("hardware.workers=1")


def test_a_dead_loader_worker_is_not_forgotten_where_a_line_is_being_logged(tmp_path):
    """PyTorch raises wherever the process happens to be."""

    class Dead:
        def __str__(self):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    file = LogFile(tmp_path / "log.txt")
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        file.emit(logging.makeLogRecord({"msg": "%s", "args": (Dead(),)}))

"""Checkpoints: what was saved is what is read, and what is damaged is noticed."""

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from transformer_lab.training import saved
from transformer_lab.training.checkpoints import Checkpoints
from transformer_lab.training.signals import children_wait

FILES = {"config.yaml": "name: test\n", "tokenizer.json": "{}", "facts.json": "{}"}


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoints" / "step-00000003"
    weights = {"a": torch.randn(30, 20), "b.c": torch.arange(7)}
    training = {"step": 3, "optimizer": {"state": {0: {"momentum": torch.randn(30, 20)}}}, "none": None}
    saved.write(folder, weights, training, FILES)
    return folder, weights, training


def test_what_is_written_is_what_is_read(checkpoint):
    folder, weights, training = checkpoint
    read, state = saved.read_weights(folder), saved.read_training(folder)
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert torch.equal(
        state["optimizer"]["state"][0].pop("momentum"), training["optimizer"]["state"][0].pop("momentum")
    )
    assert state == training
    assert saved.damage(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def damages():
    """Ways a folder can be hurt: each file missing, empty, shorter, longer, garbage, one bit flipped in 4 places."""
    for name in (
        "model.safetensors",
        "training.safetensors",
        "training.json",
        "config.yaml",
        "tokenizer.json",
        "facts.json",
        "manifest.json",
    ):
        yield f"{name} missing", lambda f, n=name: (f / n).unlink()
        yield f"{name} empty", lambda f, n=name: (f / n).write_bytes(b"")
        yield f"{name} shorter", lambda f, n=name: (f / n).write_bytes((f / n).read_bytes()[:-1])
        yield f"{name} garbage", lambda f, n=name: (f / n).write_bytes(random.Random(0).randbytes(500))
        for quarter in range(4):
            yield f"{name} bit {quarter}", lambda f, n=name, q=quarter: flip(f / n, q)


def flip(path, quarter):
    data = bytearray(path.read_bytes())
    data[len(data) * quarter // 4] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("hurt", [pytest.param(hurt, id=name) for name, hurt in damages()])
def test_every_damage_is_noticed_and_the_one_before_is_taken(checkpoint, hurt, caplog):
    folder, *_ = checkpoint
    before = folder.with_name("step-00000002")
    shutil.copytree(folder, before)
    hurt(folder)
    assert saved.damage(folder)
    assert saved.newest_whole(folder.parent) == before
    hurt(before)
    with pytest.raises(ValueError, match="all 2 checkpoints"):
        saved.newest_whole(folder.parent)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("ab.<>", max_size=3), inner, max_size=3)
            | st.dictionaries(st.integers(), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_any_state_goes_through_files_unchanged(tmp_path, state):
    saved.write(tmp_path / "step-1", {}, {"state": state}, FILES)
    assert saved.read_training(tmp_path / "step-1") == {"state": state}


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_goes_through_files_bit_by_bit(tmp_path, make):
    model = torch.nn.Linear(5, 3)
    optimizer = make(model.parameters(), lr=0.1)
    model(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    saved.write(tmp_path / "step-1", {}, {"optimizer": optimizer.state_dict()}, FILES)
    back = saved.read_training(tmp_path / "step-1")["optimizer"]
    for parameter, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(back["state"][parameter][key], value) if value is not None else True
    optimizer.load_state_dict(back)


def save_steps(folder, last, best=None):
    """Save one step after the other, as fast as possible; the best is of step `best`."""
    weights = {"a": torch.randn(300, 200)}
    progress = SimpleNamespace(step=0, state_dict=lambda: {"best": best and {"step": best}})
    module = SimpleNamespace(
        collect=lambda: None,
        progress=progress,
        logger=None,
        weights=lambda: (weights, {}),
        budget=SimpleNamespace(total_steps=None),
        optimizer=SimpleNamespace(state_dict=lambda: {"momentum": weights["a"]}),
    )
    saver = Checkpoints(folder=folder, again="", files=FILES, identity={}, every_steps=1, keep=2)
    for progress.step in range(1, last + 1):
        saver.save(SimpleNamespace(is_global_zero=True, callbacks=[]), module)


def test_the_newest_and_the_best_are_kept(tmp_path):
    save_steps(tmp_path, 7, best=3)
    assert [saved.step_of(path) for path in saved.steps(tmp_path)] == [7, 6, 3]
    assert (tmp_path / "best").resolve().name == "step-00000003" and (tmp_path / "last").resolve().name[-1] == "7"
    assert saved.damage(tmp_path / "best") is None


@pytest.mark.parametrize("place", ["/dev/shm", None])
def test_a_kill_in_the_middle_of_a_save_leaves_what_was_saved_before(place):
    """F1: 50 instants on each of two file systems."""
    if place and not Path(place).is_dir():
        pytest.skip(f"no {place} here")
    draw = random.Random(0)
    for _ in range(50):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            kept = Path(folder) / "checkpoints"
            child = os.fork()
            if not child:
                try:
                    save_steps(kept, 10**6)
                finally:
                    os._exit(1)
            while not (kept / "last").exists():
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            saved.clean(kept)
            found = saved.steps(kept)
            # What `last` leads to is whole, the newest may be one further; nothing else lies about.
            assert all(saved.damage(path) is None for path in found), [saved.damage(path) for path in found]
            assert len(found) >= min(2, saved.step_of(found[0]))
            assert (kept / "last").resolve() in found
            assert {path.name for path in kept.iterdir()} <= {"last", *(path.name for path in found)}


def test_a_child_that_dies_while_something_is_saved_is_told_of_afterwards(tmp_path):
    def found_dead(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    before = signal.signal(signal.SIGCHLD, found_dead)  # as PyTorch has it while there are loader workers
    try:
        with pytest.raises(RuntimeError, match="DataLoader worker"), children_wait():
            os.kill(os.getpid(), signal.SIGCHLD)
            saved.write(tmp_path / "step-00000001", {"a": torch.ones(3)}, {}, FILES)
        assert signal.getsignal(signal.SIGCHLD) == found_dead
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert saved.damage(tmp_path / "step-00000001") is None

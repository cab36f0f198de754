"""Checkpoints: what was saved is what is read, and what is damaged is noticed."""

import json
import random
import shutil

import pytest
import torch

from transformer_lab.training import checkpoints

FILES = {"config.yaml": "name: test\n", "tokenizer.json": "{}", "training.json": json.dumps({"step": 3})}


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "checkpoints" / "step-00000003"
    weights = {"a": torch.randn(30, 20), "b.c": torch.arange(7)}
    checkpoints.write(folder, weights, {"0.momentum": torch.randn(30, 20)}, FILES)
    return folder, weights


def test_what_is_written_is_what_is_read(saved):
    folder, weights = saved
    read, optimizer, training = checkpoints.read(folder)
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert list(optimizer) == ["0.momentum"] and training == {"step": 3}
    assert checkpoints.damage(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def damages():
    """Ways a folder can be hurt: each file missing, empty, shorter, longer, garbage, one bit flipped in 4 places."""
    for name in ("model.safetensors", "training.safetensors", "training.json", "tokenizer.json", "manifest.json"):
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
def test_every_damage_is_noticed_and_the_one_before_is_taken(saved, hurt, caplog):
    folder, _ = saved
    before = folder.with_name("step-00000002")
    shutil.copytree(folder, before)
    hurt(folder)
    assert checkpoints.damage(folder)
    assert checkpoints.newest_whole(folder.parent) == before
    hurt(before)
    with pytest.raises(ValueError, match="all 2 checkpoints"):
        checkpoints.newest_whole(folder.parent)


def test_an_optimizer_goes_through_files_bit_by_bit(tmp_path):
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    tensors, numbers = checkpoints.split_state(optimizer.state_dict())
    back = checkpoints.join_state(tensors, json.loads(json.dumps(numbers)))
    for parameter, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(back["state"][parameter][key], value) for key, value in state.items())
    optimizer.load_state_dict(back)

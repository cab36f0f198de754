"""Ranks that were started differently, or see different folders, are told apart before the first step."""

import os
import socket

import pytest

from transformer_lab.run import agreement
from transformer_lab.run.folder import lock

IDENTITY = {"config": {"optimizer": {"lr": 0.01}, "seed": 1}, "text": "abc", "max_steps": 10}


@pytest.fixture
def as_rank_1(monkeypatch, tmp_path):
    """This process is rank 1 of two, and rank 0 has said what it is. Returns what is done then."""
    monkeypatch.setattr(agreement, "SEEN_AFTER", 0.1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    monkeypatch.setattr(agreement.ranks, "broadcast", lambda value: (IDENTITY, owner))
    monkeypatch.setattr(agreement.ranks, "all_gather", lambda value: [None, value])
    return lambda folder=tmp_path, **other: agreement.refuse_disagreement(folder, IDENTITY | other)


def test_ranks_that_agree_go_on(as_rank_1, tmp_path):
    with lock(tmp_path):
        as_rank_1()


@pytest.mark.parametrize(
    "other, named",
    [
        ({"config": {"optimizer": {"lr": 0.02}, "seed": 1}}, "optimizer.lr was 0.01, is 0.02"),
        ({"text": "abd"}, "text was abc, is abd"),
        ({"max_steps": 20}, "max_steps was 10, is 20"),
    ],
)
def test_another_config_other_data_or_another_end_are_named(as_rank_1, tmp_path, other, named):
    with lock(tmp_path), pytest.raises(ValueError, match=f"^hardware: ranks 0 and 1 differ: {named}; start all alike"):
        as_rank_1(**other)


@pytest.mark.parametrize("there", ["nothing", "no lock", "another process"])
def test_another_folder_of_the_same_name_is_told(as_rank_1, tmp_path, there):
    folder = tmp_path / "elsewhere"
    if there != "nothing":
        folder.mkdir()
    if there == "another process":
        (folder / ".lock").write_text("process 1 on mars")
    with pytest.raises(ValueError, match=r"^run_dir: rank 1 does not see rank 0's .*elsewhere; name a folder that all"):
        as_rank_1(folder)


def test_the_first_rank_keeps_its_lock(as_rank_1, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    opened = []
    monkeypatch.setattr(agreement, "_locked_by", lambda *_: opened.append(1))
    with lock(tmp_path):
        as_rank_1()
    assert not opened  # closing the file would give up the lock

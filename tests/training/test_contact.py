"""How ranks find each other, what they say while they wait, and what ties them to whoever started them."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_lab.training import waiting
from transformer_lab.training.contact import first_host, interface, meet, take_srun
from transformer_lab.training.faults import NoContact

# What srun sets for the third of four tasks, two on each of two machines (srun(1), output environment variables).
STEP = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}
# What the script of a batch job of four tasks sees.
BATCH = {
    "SLURM_JOB_ID": "123456",
    "SLURM_NTASKS": "4",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "0",
    "SLURM_NODEID": "0",
}
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def variables():
    """Sets environment variables; every change is undone at the end."""
    before = dict(os.environ)
    for name in (*RANKS, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.pop(name, None)
    yield os.environ.update
    os.environ.clear()
    os.environ.update(before)


NAMES = st.from_regex(r"[a-z]{1,4}-?", fullmatch=True)
RANGES = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3)), min_size=1, max_size=3)
ENTRIES = st.tuples(
    NAMES, st.lists(st.tuples(RANGES, st.integers(1, 4), st.sampled_from(["", "x", "-ib"])), max_size=2)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_the_first_of_a_list_of_hosts(entries):
    """A list is written as Slurm does, and its first host beside it: `a[01-03,7]x[2]`, `a01x2`."""
    written, first = [], []
    for name, parts in entries:
        written.append(name), first.append(name)
        for ranges, width, behind in parts:
            numbers = [f"{n:0{width}}" + (f"-{n + more:0{width}}" if more else "") for n, more in ranges]
            written[-1] += f"[{','.join(numbers)}]{behind}"
            first[-1] += f"{ranges[0][0]:0{width}}{behind}"
    assert first_host(",".join(written)) == first[0]


def test_tasks_of_srun_know_their_ranks(variables):
    variables(STEP)
    take_srun()
    found = [os.environ[name] for name in RANKS]
    assert found[:6] == ["2", "4", "0", "2", "1", "gpu07"] and 10_000 <= int(found[6]) < 30_000


@pytest.mark.parametrize("given", [BATCH, {**BATCH, **STEP, "SLURM_STEP_NUM_TASKS": "1"}], ids=["batch", "one task"])
def test_what_srun_has_not_started_several_times_is_no_rank(variables, given):
    variables(given)
    take_srun()
    assert not any(name in os.environ for name in RANKS)


def test_srun_changes_nothing_that_torchrun_or_the_user_has_said(variables):
    variables(STEP | {"RANK": "5"})
    take_srun()
    assert os.environ["RANK"] == "5" and "WORLD_SIZE" not in os.environ
    del os.environ["RANK"]
    variables({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5"})
    take_srun()
    assert [os.environ[name] for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")] == ["2", "10.0.0.1", "5"]


def test_machines_with_other_numbers_of_tasks_are_refused(variables):
    variables(STEP | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"})
    with pytest.raises(ValueError, match=r"^srun: 2,1 tasks on the machines.*--ntasks-per-node"):
        take_srun()


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are read as on Linux")
def test_the_interface_of_an_address():
    assert interface("127.0.0.1") == interface("127.0.1.1") == interface("::1") == "lo"
    assert interface("203.0.113.7") is interface("2001:db8::7") is None  # kept for documentation: nobody's


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def place(rank, world_size, here, address="127.0.0.1", port=None):
    local = {"LOCAL_RANK": str(rank % here), "LOCAL_WORLD_SIZE": str(here)}
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": port or free_port(),
        **local,
    }


@pytest.mark.parametrize(
    "given, line",
    [
        (
            place(1, 2, 1, "localhost"),
            "MASTER_ADDR: localhost leads from this machine to itself.*--master-addr=ADDRESS",
        ),
        (
            place(1, 2, 1, "no.such.host.invalid"),
            "MASTER_ADDR: no.such.host.invalid cannot be reached from this machine",
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2"},
            "RANK is set, but not LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT",
        ),
    ],
)
def test_what_cannot_lead_to_the_others_is_told_at_once(variables, given, line):
    variables(given)
    with pytest.raises(ValueError, match=f"^{line}"):
        meet(timedelta(seconds=10))


def test_who_has_not_come_is_told_and_where_to(variables):
    variables(place(0, 5, 5))
    with pytest.raises(
        NoContact,
        match=r"^MASTER_ADDR=127.0.0.1 MASTER_PORT=\d+: rank 1, rank 2, rank 3 and others "
        r"did not come within 0.01 minutes \(hardware.timeout_minutes\)$",
    ):
        meet(timedelta(seconds=0.6))
    variables(place(1, 2, 2))
    with pytest.raises(NoContact, match=r"rank 0 was not reached within 0.01 minutes"):
        meet(timedelta(seconds=0.6))


def test_a_port_that_is_taken_is_told(variables):
    with socket.create_server(("127.0.0.1", 0)) as other:
        variables(place(0, 2, 2, port=str(other.getsockname()[1])))
        with pytest.raises(NoContact, match="another program listens at this port"):
            meet(timedelta(seconds=5))


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.mark.parametrize("first", [True, False])
def test_the_first_rank_of_a_machine_says_each_minute_for_what_it_waits(first):
    kept = Kept()
    waiting.log.addHandler(kept)
    watch = waiting.Watch(first=first, minute=0.2)
    watch.start()
    try:
        with waiting.waiting("the other ranks", timedelta(minutes=10)):
            time.sleep(0.75)
        time.sleep(0.3)
        with waiting.waiting("nobody", timedelta(minutes=1)):
            pass
    finally:
        watch.close()
        waiting.log.removeHandler(kept)
    lines = [f"Waiting for the other ranks for {number}; the limit is 10" for number in ("1 minute", "2 minutes")]
    assert kept.lines[:2] == (lines if first else []) and len(kept.lines) <= (3 if first else 0)


ORPHAN = """
import time
from transformer_lab.training.waiting import Watch
Watch(first=True).start()
print("watched", flush=True)
time.sleep(100)
"""


def test_a_rank_ends_when_what_has_started_it_is_gone():
    shell = f"{sys.executable} -c '{ORPHAN}' & echo $!; wait"
    starter = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, text=True)
    rank = int(starter.stdout.readline())
    assert starter.stdout.readline() == "watched\n"
    starter.kill()
    killer = threading.Timer(20, os.kill, (rank, signal.SIGKILL))  # so that the test ends whatever the rank does
    killer.start()
    began = time.monotonic()
    starter.stdout.read()  # up to the end of the rank, which holds the other end
    killer.cancel()
    assert time.monotonic() - began < 10


# As in gloo, the main thread does not come to Python code, and so to no handler, while it waits.
STILL = """
import sys
from datetime import timedelta
from torch import distributed
from transformer_lab.training import waiting
waiting.STUCK = 0.0
watch = waiting.Watch(first=True, minute=0.2)
watch.start()
with waiting.waiting("the other ranks", None):
    print("waiting", flush=True)
    distributed.FileStore(sys.argv[1], 2).wait(["nothing"], timedelta(seconds=30))
"""


def test_a_second_interrupt_ends_a_rank_that_waits(tmp_path):
    rank = subprocess.Popen([sys.executable, "-c", STILL, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
    assert rank.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    rank.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert rank.poll() is None
    rank.send_signal(signal.SIGINT)
    assert rank.wait(5) == 130

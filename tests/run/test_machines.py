"""Ranks on two machines, which are two network namespaces here, joined by a cable of their own (row F18)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.programs import latest
from transformer_lab.training.saved import damage

ROOT = Path(__file__).parent.parent.parent
HOSTS = Path("/etc/netns")  # what `ip netns exec` shows a namespace in place of the files in /etc
LIMIT = 12  # seconds: hardware.timeout_minutes=0.2
WORDS = [*TINY, "hardware=ddp", "hardware.accelerator=cpu", "hardware.timeout_minutes=0.2"]
ENDLESS = ["max_steps=1000000", "validate_every_steps=1000000", "checkpoint.every_steps=50"]


class Machines:
    """Two of them, with the addresses 10.77.0.1 and 10.77.0.2; `device` is how each names its end of the cable."""

    def __init__(self):
        self.names = [f"lab{os.getpid()}-{number}" for number in (1, 2)]
        self.device = f"wire{os.getpid()}"
        self.started = []

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def build(self):
        for name in self.names:
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
        one, two = self.names
        self.ip("link", "add", self.device, "netns", one, "type", "veth", "peer", "name", self.device, "netns", two)
        for number, name in enumerate(self.names, 1):
            self.ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", self.device)
            self.ip("-n", name, "link", "set", self.device, "up")
            # As Debian has it, the first machine knows its own name by a loopback address, and only the second better.
            (HOSTS / name).mkdir(parents=True)
            first = "127.0.1.1" if number == 1 else "10.77.0.1"
            (HOSTS / name / "hosts").write_text(f"127.0.0.1 localhost\n{first} one\n10.77.0.2 two\n")

    def remove(self):
        for process in self.started:
            process.kill()
            process.communicate()
        for name in self.names:
            for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            (HOSTS / name / "hosts").unlink(missing_ok=True)
            if (HOSTS / name).exists():
                (HOSTS / name).rmdir()

    def run(self, number, words, **variables):
        clean = {name: value for name, value in os.environ.items() if not name.endswith("_SOCKET_IFNAME")}
        clean["PYTHONPATH"] = str(ROOT)
        command = ["ip", "netns", "exec", self.names[number], *words]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean | variables
        )
        self.started.append(process)
        return process

    def torchrun(self, words):
        """One on each machine, as README has it."""
        program = [sys.executable, "-m", "torch.distributed.run"]
        return [
            self.run(
                number,
                [
                    *program,
                    "--nnodes=2",
                    f"--node-rank={number}",
                    "--nproc-per-node=1",
                    "--master-addr=10.77.0.1",
                    "--master-port=29500",
                    str(ROOT / "train.py"),
                    *latest(words),
                ],
            )
            for number in (0, 1)
        ]

    def cable(self, state):
        self.ip("-n", self.names[1], "link", "set", self.device, state)


@pytest.fixture
def machines():
    made = Machines()
    try:
        made.build()
    except (OSError, subprocess.CalledProcessError) as error:
        made.remove()
        pytest.skip(f"no network namespaces can be made here: {error}")
    yield made
    made.remove()


CONTACT = """
import os, torch
from datetime import timedelta
from transformer_lab.training import ranks
with ranks.joined(torch.device("cpu"), timedelta(seconds=60)):
    print(*ranks.all_gather((ranks.rank(), os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"])))
"""


def test_ranks_find_the_network_between_them_also_where_a_machine_knows_its_name_by_loopback(machines):
    given = {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "one",
        "MASTER_PORT": "29500",
    }
    ranks = [machines.run(n, [sys.executable, "-c", CONTACT], **given, RANK=str(n)) for n in (0, 1)]
    both = " ".join(str((n, machines.device, f"={machines.device}")) for n in (0, 1))
    for rank in ranks:
        said = rank.communicate(timeout=60)[0]
        assert rank.returncode == 0 and said.splitlines()[-1] == both, said


@pytest.mark.battery
def test_a_network_that_does_not_lead_to_the_others_is_told_within_the_limit(machines):
    given = {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "one",
        "MASTER_PORT": "29500",
    }
    quick = CONTACT.replace("seconds=60", f"seconds={LIMIT}")
    began = time.monotonic()
    ranks = [
        machines.run(n, [sys.executable, "-c", quick], **given, RANK=str(n), GLOO_SOCKET_IFNAME="lo") for n in (0, 1)
    ]
    for rank in ranks:
        said = rank.communicate(timeout=60)[0]
        assert rank.returncode == 1 and "the ranks have met there, but cannot talk to each other through lo" in said
    assert time.monotonic() - began < LIMIT + 20  # with the imports


@pytest.fixture
def words(place, tmp_path):
    return [*WORDS, f"data.path={place / 'corpus'}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]


def begun(processes, folder):
    while not (folder / "checkpoints" / "last").exists():
        assert all(process.poll() is None for process in processes), [p.communicate()[0] for p in processes]
        time.sleep(0.1)


def rank_of(agent):
    (pid,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return int(pid)


def alive(pid):
    """Also what has ended is there until somebody asks how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def saved(folder):
    """The step of the newest checkpoint, which is whole."""
    last = folder / "checkpoints" / "last"
    assert damage(last) is None
    return json.loads((last / "training.json").read_text())["progress"]["step"]


def errors(said):
    """What our program says of its end: torchrun shows a traceback of its own behind that."""
    return [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.mark.battery
def test_a_run_on_two_machines_as_typed(machines, words, tmp_path):
    one, two = machines.torchrun([*words, "max_steps=20", "validate_every_steps=10"])
    said, silent = one.communicate(timeout=120)[0], two.communicate(timeout=120)[0]
    assert one.returncode == two.returncode == 0, said + silent
    assert "2 × CPU" in said and "validation: loss" in said and saved(tmp_path / "run") == 20
    assert not [line for line in silent.splitlines() if not line.startswith("[W")]  # PyTorch, of names without DNS


@pytest.mark.battery
@pytest.mark.parametrize("event", ["a machine killed", "its torchrun killed", "the cable cut"])
def test_all_ranks_end_within_the_limit_with_one_true_line_each(machines, words, tmp_path, event):
    one, two = machines.torchrun([*words, *ENDLESS])
    begun([one, two], tmp_path / "run")
    before, ranks = saved(tmp_path / "run"), [rank_of(one), rank_of(two)]
    time.sleep(0.5)  # for some steps more, which are to be saved as well
    began = time.monotonic()
    if event == "the cable cut":
        machines.cable("down")
    else:
        two.kill()
        if event == "a machine killed":
            os.kill(ranks[1], signal.SIGKILL)
    said, others = one.communicate(timeout=60)[0], two.communicate(timeout=60)[0]
    # Beside the limit itself: to save, for Python to end, and for torchrun to see it.
    assert time.monotonic() - began < (LIMIT if event == "the cable cut" else 0) + 10
    assert not any(map(alive, ranks))
    assert one.returncode == 1 and saved(tmp_path / "run") > before, said
    silent = "error: hardware.timeout_minutes: no word from the other ranks for 0.2 minutes, so this one cannot go on"
    gone = "error: hardware.devices: another rank is gone, so this one cannot go on"
    if event == "the cable cut":
        assert errors(said) == errors(others) == [silent] and two.returncode == 1
    elif event == "a machine killed":
        assert errors(said) == [gone] and errors(others) == []
    else:  # all leave together, as after any SIGTERM
        assert errors(said) == errors(others) == [] and "is gone, so it ends as well" in others


@pytest.mark.battery
def test_a_slow_cable_or_one_that_is_back_in_time_only_takes_time(machines, words, tmp_path):
    processes = machines.torchrun([*words, *ENDLESS])
    begun(processes, tmp_path / "run")
    machines.cable("down")
    time.sleep(LIMIT / 2)
    before = saved(tmp_path / "run")
    machines.cable("up")
    slow = [
        "ip",
        "netns",
        "exec",
        machines.names[1],
        "tc",
        "qdisc",
        "add",
        "dev",
        machines.device,
        "root",
        "netem",
        "delay",
        "20ms",
    ]
    slowed = subprocess.run(slow, capture_output=True).returncode == 0  # where the kernel can
    limit = time.monotonic() + 60
    while (now := saved(tmp_path / "run")) <= before:
        assert time.monotonic() < limit and all(process.poll() is None for process in processes)
        time.sleep(0.5)
    processes[0].terminate()
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert saved(tmp_path / "run") >= now and errors(said[0]) == errors(said[1]) == [], (slowed, said)

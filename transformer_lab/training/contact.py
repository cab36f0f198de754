"""How ranks find each other: what torchrun or Slurm's srun says of them, where they meet, and through which network.

Ranks of several machines meet at MASTER_ADDR:MASTER_PORT, in a store that torchrun keeps, or else rank 0.
"""

import fcntl
import os
import re
import socket
import struct
import sys
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from torch import distributed

from transformer_lab.training.faults import NoContact

MEETING = "TRANSFORMER_LAB_RANKS"  # names a file of ours, where ranks of one machine meet without an open port
LOCALHOST = "127.0.0.1"
SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface (netdevice(7))


def take_srun() -> None:
    """Where srun has started several tasks, say of them what torchrun would say; else, change nothing.

    The step's variables are srun's alone: the script of a batch job sees only those of its job
    (https://slurm.schedmd.com/srun.html, output environment variables). Raises ValueError where machines have
    different numbers of tasks.
    """
    given = os.environ
    tasks = int(given.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == 1 or "RANK" in given:  # a torchrun on each machine has said it
        return
    spread = given["SLURM_STEP_TASKS_PER_NODE"]  # "8(x2)", or "8(x2),4"
    if "," in spread:
        raise ValueError(f"srun: {spread} tasks on the machines, which need as many each: srun --ntasks-per-node=N")
    here = int(spread.partition("(")[0])
    job, step = int(given["SLURM_JOB_ID"]), int(given.get("SLURM_STEP_ID", 0))
    given |= {
        "RANK": given["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": given["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(here),
        "GROUP_RANK": given["SLURM_NODEID"],
    }
    given.setdefault("MASTER_ADDR", first_host(given["SLURM_STEP_NODELIST"]) if tasks > here else LOCALHOST)
    # Another one for each step of each job, below the ports that the system hands out by itself.
    given.setdefault("MASTER_PORT", str(10_000 + (job + 1_009 * step) % 20_000))


def first_host(nodes: str) -> str:
    """Of a list in Slurm's notation: `rack1node03` of `rack[1-2]node[03-07,9],other`."""
    return re.sub(r"\[(\w+)[^]]*]", r"\1", nodes).split(",")[0]


def meet(limit: timedelta) -> distributed.Store:
    """Wait until all ranks have come to one store, and choose the network that they will talk through.

    Raises ValueError for variables that cannot be right, and NoContact where not all have come within `limit`.
    """
    needed = ["WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]
    needed += [] if MEETING in os.environ else ["MASTER_ADDR", "MASTER_PORT"]
    if missing := [name for name in needed if name not in os.environ]:
        raise ValueError(f"RANK is set, but not {', '.join(missing)}: torchrun and srun set them all")
    own, there = (LOCALHOST, LOCALHOST) if _one_machine() else _way()
    try:
        # Ranks that torchrun starts once more find its store as the first ones left it.
        store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), _store(limit))
        _choose_network(own, there, store)
        _wait_for_all(store, limit)
    except (distributed.DistError, OSError) as error:
        raise NoContact(f"{place()}: {_reason(error, limit)}") from error
    return store


def place() -> str:
    """Where the ranks meet, as a user knows it."""
    if MEETING in os.environ:
        return "hardware.devices"
    return f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}"


def _one_machine() -> bool:
    return os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"]


def _first_machine() -> bool:
    return int(os.environ["RANK"]) < int(os.environ["LOCAL_WORLD_SIZE"])


def _way() -> tuple[str, str]:
    """The address by which this machine reaches MASTER_ADDR, and that one's. Nothing is sent for it: connecting a UDP
    socket only looks up the way.

    Raises ValueError where there is none, or where it leads from another machine than the first to itself.
    """
    name = os.environ["MASTER_ADDR"]
    try:
        family, kind, *_, to = socket.getaddrinfo(name, int(os.environ["MASTER_PORT"]), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as asked:
            asked.connect(to)
            own = asked.getsockname()[0]
    except OSError as error:
        raise ValueError(f"MASTER_ADDR: {name} cannot be reached from this machine: {error.strerror}") from error
    if ip_address(own).is_loopback and not _first_machine():
        raise ValueError(
            f"MASTER_ADDR: {name} leads from this machine to itself: torchrun --master-addr=ADDRESS (for "
            "srun, MASTER_ADDR=ADDRESS) takes one by which the first machine is reached"
        )
    return str(own), str(to[0])


def _store(limit: timedelta) -> distributed.Store:
    world_size = int(os.environ["WORLD_SIZE"])
    if MEETING in os.environ:
        store: distributed.Store = distributed.FileStore(os.environ[MEETING], world_size)
        store.set_timeout(limit)
        return store
    host = os.environ["RANK"] == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    name, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # By itself the store would listen to everybody, also where all ranks are on this machine.
    file = socket.create_server((LOCALHOST, port)).detach() if host and _one_machine() else None
    return distributed.TCPStore(name, port, world_size, host, limit, wait_for_workers=False, master_listen_fd=file)


def _choose_network(own: str, there: str, store: distributed.Store) -> None:
    """Let gloo and NCCL talk, and listen, through the interface that leads to the other ranks, where nobody has chosen.

    A machine may know its own name by a loopback address (Debian's /etc/hosts); then the others tell the first.
    """
    if not _first_machine():
        store.set("address", there)
    elif not _one_machine() and ip_address(own).is_loopback:
        own = store.get("address").decode()
    if found := interface(own):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", found)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={found}")  # this one, not all whose names begin so


def interface(address: str) -> str | None:
    """The name of the network interface with this address; None where it is not found, as outside of Linux."""
    if ip_address(address).is_loopback:
        return "lo0" if sys.platform == "darwin" else "lo"
    if sys.platform != "linux":
        return None
    if ":" in address:
        packed = ip_address(address).packed.hex()
        rows = [row.split() for row in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()]
        return next((row[-1] for row in rows if row[0] == packed), None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:  # behind 16 bytes of name, in a sockaddr_in
                return name
    return None


def _wait_for_all(store: distributed.Store, limit: timedelta) -> None:
    names = [f"rank {rank}" for rank in range(int(os.environ["WORLD_SIZE"]))]
    store.set(f"rank {os.environ['RANK']}", "")
    try:
        store.wait(names, limit)
    except distributed.DistStoreError as error:
        missing = [name for name in names if not store.check([name])]
        raise NoContact(
            f"{place()}: {', '.join(missing[:3])}{' and others' * (len(missing) > 3)} did not come within "
            f"{minutes(limit)} (hardware.timeout_minutes)"
        ) from error


def _reason(error: Exception, limit: timedelta) -> str:
    if "address already in use" in str(error).lower():
        return "another program listens at this port; take another number, the same for all ranks"
    if "timed out" in str(error):
        return f"rank 0 was not reached within {minutes(limit)} (hardware.timeout_minutes)"
    return str(error).partition("\n")[0]


def minutes(limit: timedelta) -> str:
    number = limit.total_seconds() / 60
    return f"{number:g} minute{'s' * (number != 1)}"

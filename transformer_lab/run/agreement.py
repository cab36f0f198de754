"""What all ranks of a run must have in common before the first step: words, data, and the folder of the run."""

import time
from pathlib import Path
from typing import Any

from transformer_lab.run.folder import LOCK, this_process
from transformer_lab.run.resuming import differences
from transformer_lab.training import ranks

SEEN_AFTER = 30.0  # seconds


def refuse_disagreement(folder: Path, identity: dict[str, Any]) -> None:
    """Raises ValueError where a rank was started with other words, or has read other data, than the first; or where it
    sees another folder than the one that the first has locked (a network's file system may take a while to show it)."""
    if ranks.world_size() == 1:
        return
    first, owner = ranks.broadcast((identity, this_process()))
    changed, wrong = next(differences(first, identity), None), None
    if changed:
        wrong = f"hardware: ranks 0 and {ranks.rank()} differ: {changed}; start all alike, with the same data"
    if ranks.rank() > 0 and not _locked_by(owner, folder):
        wrong = f"run_dir: rank {ranks.rank()} does not see rank 0's {folder}; name a folder that all machines share"
    for found in filter(None, ranks.all_gather(wrong)):
        raise ValueError(found)


def _locked_by(owner: str, folder: Path) -> bool:
    """Not to be asked by the owner itself: whoever closes a file gives up his lock on it, however he opened it."""
    until = time.monotonic() + SEEN_AFTER
    while not ((folder / LOCK).exists() and (folder / LOCK).read_text(encoding="utf-8") == owner):
        if time.monotonic() > until:
            return False
        time.sleep(SEEN_AFTER / 30)
    return True

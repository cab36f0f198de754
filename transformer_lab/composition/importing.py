"""What may be imported from the folder that a person is in: the packages that he named himself, and nothing else.

The folder may be a stranger's, just downloaded. Python and many libraries import whatever is there by a name that they
try, so it stands on no search path, neither here nor in a process that is started from here.
"""

import os
import sys
from collections.abc import Collection, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class Named(MetaPathFinder):
    """Finds packages of the given names in the present folder, after Python has looked everywhere else."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [os.getcwd()]) if path is None and fullname in self.names else None


_named = Named()


def keep_out() -> None:
    """Of processes that this one starts, keep the present folder out too: `python -c` would look there first."""
    os.environ["PYTHONSAFEPATH"] = "1"


def importable(names: Collection[str]) -> None:
    """Let these packages of the present folder be imported: `extensions` that the user has typed."""
    _named.names |= set(names)
    if _named not in sys.meta_path:
        sys.meta_path.append(_named)

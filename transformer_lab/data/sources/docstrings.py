"""Docstrings of the Python packages on this machine: a corpus of technical English without a download."""

import hashlib
import json
import logging
import os
import pkgutil
import platform
import subprocess
import sys
import sysconfig
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformer_lab.data.examples import Document, Example, Split
from transformer_lab.data.sources.base import HashSplit, Source, no_such_name

log = logging.getLogger(__name__)
SHORTEST = 40  # characters; what is shorter says little
FILES_AT_ONCE = 128  # of one worker: enough to hide its start of some 30 ms
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


class PackageDocstrings(Source):
    """Finds the docstrings of packages, without importing these; a subclass makes its examples of them."""

    name: str  # in the signature

    def __init__(self, *, packages: list[str], validation: float = 0.05, test: float = 0.05) -> None:
        if not packages:
            raise ValueError("data.packages is empty: name a package, for instance stdlib")
        self.hash_split = HashSplit(validation=validation, test=test)
        self.roots = {package: _roots(package) for package in packages}
        self._read: Sequence[Example] | None = None  # scanning costs seconds and is asked for more than once

    def cache_key(self) -> dict[str, Any]:
        packages = {}
        for package, files in self.files.items():
            packages[package] = [_version(package), len(files), _state(files)]
        return {
            "source": self.name,
            "python": platform.python_version(),
            "packages": packages,
            "validation": self.hash_split.validation,
            "test": self.hash_split.test,
        }

    @cached_property
    def files(self) -> dict[str, list[str]]:
        """Of each package, in a fixed order."""
        found = {}
        for package, roots in self.roots.items():
            found[package] = [file for root in roots for file in _python_files(root)]
        return found

    def read(self) -> Iterator[tuple[Split, Any]]:
        if self._read is None:
            self._read = self.examples(self._scan())
        yield from self.hash_split(lambda: self._read or [])

    @abstractmethod
    def examples(self, found: Iterable[tuple[str, str]]) -> Sequence[Example]:
        """Made of all docstrings, each with its package, in a fixed order."""

    def _scan(self) -> Iterable[tuple[str, str]]:
        groups = [
            (package, files[i : i + FILES_AT_ONCE])
            for package, files in self.files.items()
            for i in range(0, len(files), FILES_AT_ONCE)
        ]
        read, total = 0, sum(len(files) for _, files in groups)
        found: dict[tuple[str, str], None] = {}  # a set that keeps the order
        with ThreadPoolExecutor(_cores()) as pool:
            scanned = pool.map(_docstrings, [files for _, files in groups])
            for done, ((package, files), texts) in enumerate(zip(groups, scanned, strict=True), 1):
                found.update(dict.fromkeys((package, text) for text in texts if len(text) >= SHORTEST))
                read += len(files)
                if done % 8 == 0 or done == len(groups):
                    log.info("Docstrings: %s of %s files, %s docstrings", f"{read:,}", f"{total:,}", f"{len(found):,}")
        if not found:
            raise ValueError(f"data.packages={','.join(self.roots)}: not one docstring of {SHORTEST} characters in it")
        return found


class Docstrings(PackageDocstrings):
    """Each docstring is a document; what occurs twice is read once."""

    name = "docstrings"
    example_type = Document

    def examples(self, found: Iterable[tuple[str, str]]) -> Sequence[Document]:
        return [Document(text) for text in dict.fromkeys(text for _, text in found)]


def _docstrings(files: list[str]) -> list[str]:
    """A process of its own for each group: one thread waits for it, so the cores are used and the order stays."""
    scan = [sys.executable, "-I", "-S", "-W", "ignore", str(Path(__file__).with_name("docstring_scan.py"))]
    return json.loads(subprocess.run(scan, input=json.dumps(files).encode(), stdout=subprocess.PIPE, check=True).stdout)


def _roots(package: str) -> list[str]:
    """Folders, or the one file, of an importable name, which is found but not imported."""
    if package == "stdlib":
        return [sysconfig.get_path("stdlib")]
    try:
        spec = None if "." in package else find_spec(package)  # find_spec imports the parent of a dotted name
    except ValueError:  # modules without a spec, such as __main__
        spec = None
    if spec is None:
        raise no_such_name("data.packages", package, _installed(), "not a package installed here")
    roots = list(spec.submodule_search_locations or [spec.origin or ""])
    if not spec.submodule_search_locations and not roots[0].endswith(".py"):
        raise ValueError(f"data.packages={package}: compiled, there is no Python source to read")
    return roots


@cache
def _installed() -> frozenset[str]:
    return frozenset({"stdlib", *sys.stdlib_module_names, *(module.name for module in pkgutil.iter_modules())})


def _python_files(root: str) -> Iterator[str]:
    if root.endswith(".py"):
        yield root
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # installed under another name; its files tell of changes too
        return None


def _state(files: list[str]) -> str:
    """A hash that is another when one of them was written to or replaced: one that is installed to be edited, say."""
    state = hashlib.blake2b(digest_size=16)
    for file in files:
        status = os.stat(file)
        state.update(f"{file!r} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
    return state.hexdigest()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

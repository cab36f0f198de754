"""Hydra's own part of a config: it acts on it before a run begins, so a file could build and write there at will."""

from collections.abc import Iterator
from typing import Any

from transformer_lab.composition.kinds import UNKNOWN, shown
from transformer_lab.composition.problems import Problem

SETTLED: dict[str, Any] = {
    "run.dir": ".",
    "output_subdir": None,
    "sweep.dir": "outputs",
    "sweep.subdir": ".",
    "job.env_set": {},
}
HARMLESS = {"logging.StreamHandler", "logging.NullHandler", "logging.Formatter", "ext://sys.stdout", "ext://sys.stderr"}


def hydra_problems(hydra: dict[str, Any]) -> Iterator[Problem]:
    for path, value in SETTLED.items():
        found: Any = hydra
        for key in path.split("."):
            found = found.get(key)
        if found != value:
            what = f"expected {shown(value) or '{}'}, found {shown(found)}; Hydra itself writes nothing"
            yield Problem(f"hydra.{path}", what)
    for part in ("launcher", "callbacks", "job_logging", "hydra_logging"):
        yield from _built(f"hydra.{part}", part, hydra.get(part))


def _built(path: str, key: str, value: Any) -> Iterator[Problem]:
    """What Hydra would build of a value that stands under a key."""
    inner = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    for name, item in inner.items():
        yield from _built(f"{path}.{name}", str(name), item)
    plugin = str(value).startswith(("hydra._internal.core_plugins.", "hydra_plugins."))
    names = key in ("class", "()") or str(value).startswith("ext://")
    if value is UNKNOWN or (key == "_target_" and not plugin) or (names and value not in HARMLESS):
        yield Problem(path, f"refused; Hydra would build {shown(value)} before anything is checked")

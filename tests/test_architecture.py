"""The shape of the house, held by its import statements and its source text."""

import ast
import re
from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "transformer_lab"
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [ROOT / "train.py", *sorted((ROOT / "scripts").glob("*.py"))]
# Who may import whom: every part of the package, and the parts that it sees.
SEES = {
    "layout": set(),
    "terminal": set(),
    "folders": set(),
    "figures": set(),
    "scores": set(),
    "renamed": set(),
    "keys": set(),
    "commands": {"composition", "run", "finished", "data", "sweeps", "training", "folders", "terminal", "course"},
    "__main__": {"commands"},
    "api": {"composition", "run", "finished", "training", "data", "figures", "folders", "scores", "terminal"},
    "course": {"data", "figures", "folders", "training"},  # what a lab asks about, its own files import
    "interop": {"data"},
    "models": {"layout"},
    "data": {"layout", "folders"},
    "tasks": {"layout", "models", "data", "terminal", "figures"},
    "training": {"keys", "layout", "models", "data", "tasks", "terminal", "figures", "folders", "scores", "renamed"},
    "composition": {
        "keys",
        "models",
        "data",
        "tasks",
        "training",
        "terminal",
        "renamed",
        "sweeps",
        "interop",
    },  # sweeps are composed, too
    "run": {
        "keys",
        "composition",
        "interop",
        "training",
        "tasks",
        "models",
        "data",
        "layout",
        "terminal",
        "folders",
        "scores",
    },
    "finished": {
        "run",
        "models",
        "composition",
        "interop",
        "layout",
        "folders",
        "training",
        "tasks",
        "data",
        "terminal",
        "figures",
        "scores",
    },
    "sweeps": {"keys", "composition", "run", "scores", "folders", "terminal"},  # of a sweep, a trial knows nothing
}
HYDRA = {"composition", "sweeps", "commands"}
LIGHTNING = {"training", "data/module.py", "run/train.py", "run/assembly.py", "run/resuming.py"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "transformer_lab":
            yield from (f"transformer_lab.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if path == PACKAGE / "__init__.py":  # what users import: names of everywhere
        return
    for module in imports(path):
        library, _, rest = module.partition(".")
        if library == "transformer_lab":
            seen = rest.partition(".")[0]
            assert seen == part or seen in SEES[part], f"{part} must not see {seen}"
        if library in ("hydra", "omegaconf"):
            assert part in HYDRA, f"only the composition layer knows {library}"
        if library == "lightning":
            assert {part, str(path.relative_to(PACKAGE))} & LIGHTNING


RISKY = re.compile(r"\bpickle\b|torch\.load\(|(?<![\w.])(eval|exec)\(|yaml\.load\(|shell=True|extractall\(")


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_reads_code_from_a_file(path):
    assert not RISKY.search(path.read_text(encoding="utf-8"))


def test_every_mutant_still_stands_in_the_source():
    for mutant in MUTANTS:
        text = (PACKAGE / mutant.file).read_text(encoding="utf-8")
        assert text.count(mutant.before) == 1, f"{mutant.file}: {mutant.before}"

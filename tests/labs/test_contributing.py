"""The lab of labs/CONTRIBUTING.md is complete: it is built, checked and run as it stands on the page."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.labs.test_notebooks import build
from transformer_lab.course import lab as labs
from transformer_lab.course.checking import check
from transformer_lab.course.lab import Lab

PAGE = (Path(__file__).parents[2] / "labs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)^```$", PAGE, re.M | re.S))


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "labs" / "07_small"
    folder.mkdir(parents=True)
    (folder.parent / "README.md").write_text("the labs")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name, text in build.built(folder).items():
        (folder / name).write_text(text)
    return Lab("small", folder)


def test_its_solutions_are_what_it_says(small):
    solutions = labs.module_of(small.folder / "solutions.py")
    exercise = small.exercises["centred"]
    for right in [exercise.right, *solutions.RIGHT["centred"]]:
        assert check(exercise, right, range(20)).passed
    for hint, mistake in exercise.mistakes.items():
        assert check(exercise, mistake).hint == hint
    assert len(solutions.WRONG["centred"]) >= 8
    for wrong, says in solutions.WRONG["centred"]:
        verdict = check(exercise, wrong)
        assert not verdict.passed and (verdict.hint is None if says is None else says in repr(verdict)), verdict


def test_its_notebooks_run(small, monkeypatch, tmp_path):
    start = f"from transformer_lab.course import lab as labs\nlabs.__file__ = {str(tmp_path / 'a' / 'b' / 'c')!r}\n"
    for name, says in (("lab.ipynb", "still to write: take the mean"), ("solved.ipynb", "1 of 1 exercises done")):
        book = nbformat.reads(build.built(small.folder)[name], as_version=4)
        book.cells[1].source = start + book.cells[1].source  # the labs lie elsewhere here
        NotebookClient(book, timeout=100, resources={"metadata": {"path": str(tmp_path)}}).execute()
        assert says in str(book)

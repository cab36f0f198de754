"""The notebooks of the labs are what their sources make, and run: with blanks, and solved."""

from io import BytesIO
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.labs.conftest import LABS
from transformer_lab.course.lab import module_of

ROOT = Path(__file__).parent.parent.parent
build = module_of(ROOT / "labs" / "build.py")
FIGURES = [(name, file) for name, lab in LABS.items() for file in sorted((lab.folder / "images").glob("*.png"))]


@pytest.mark.parametrize("name", LABS)
def test_notebooks_are_what_is_built(name):
    for file, text in build.built(LABS[name].folder).items():
        assert (LABS[name].folder / file).read_text(encoding="utf-8") == text, "python labs/build.py"


@pytest.mark.parametrize("name, file", FIGURES, ids=[f"{name}-{file.stem}" for name, file in FIGURES])
def test_pictures_are_what_is_drawn(name, file):
    image = BytesIO()
    build.pictures(LABS[name].folder)[file.name].savefig(image, format="png", dpi=110)
    image.seek(0)
    drawn, kept = matplotlib.image.imread(image), matplotlib.image.imread(file)
    assert drawn.shape == kept.shape and np.abs(drawn - kept).mean() < 0.01, "python labs/build.py"


@pytest.mark.parametrize("name", LABS)
def test_a_reading_names_only_pictures_that_are_drawn(name):
    folder = LABS[name].folder
    shown = {file.name for file in folder.glob("images/*.png")}
    text = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.md"))
    assert shown == {one.partition(")")[0] for one in text.split("](images/")[1:]} == set(build.pictures(folder))
    for reading in folder.glob("*.md"):
        assert 500 <= len(reading.read_text(encoding="utf-8").split()) <= 1000


def run(file, monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_FAST", "1")
    monkeypatch.setenv("TRANSFORMER_LAB_CACHE", str(tmp_path / "cache"))
    book = nbformat.read(file, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("name", LABS)
def test_with_blanks_it_says_what_is_to_be_written_and_goes_on(name, monkeypatch, tmp_path):
    lab = LABS[name]
    text = run(lab.folder / "lab.ipynb", monkeypatch, tmp_path)
    for exercise in lab.exercises:
        assert f"{exercise}: not there yet\n  still to write: " in text
    assert f"0 of {len(lab.exercises)} exercises done" in text


@pytest.mark.parametrize("name", LABS)
def test_solved_all_is_right(name, monkeypatch, tmp_path):
    lab = LABS[name]
    text = run(lab.folder / "solved.ipynb", monkeypatch, tmp_path)
    for exercise in lab.exercises:
        assert f"{exercise}: right" in text
    assert f"{len(lab.exercises)} of {len(lab.exercises)} exercises done" in text
    assert f"{len(lab.questions.kinds)} of {len(lab.questions.kinds)} right" in text


def test_a_blank_outside_of_a_function_is_refused(tmp_path):
    (tmp_path / "lab.py").write_text("# %%\n# BLANK something\nx = 1\n# END\n")
    with pytest.raises(ValueError, match="a blank stands in a function"):
        build.built(tmp_path)

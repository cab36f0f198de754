"""What the tests of the labs share: the labs, found as a notebook finds them, and a file of progress for each test."""

import pytest

from transformer_lab.course import lab as labs

LABS = {name: labs.lab(name) for name in labs.lab_folders()}


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    file = tmp_path / "course.json"
    monkeypatch.setenv("TRANSFORMER_LAB_COURSE", str(file))
    return file

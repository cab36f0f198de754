"""A run that is traced says what its steps' time went to, and is otherwise the run that it would be."""

import gzip
import json

from tests.conftest import fingerprint, settings
from transformer_lab.run.train import train


def test_steps_are_traced_and_nothing_else_changes(tiny, sound, tmp_path):
    folder = tmp_path / "traced"
    train(**settings(*tiny, "hardware.profile=trace", f"run_dir={folder}"))
    (file,) = (folder / "profile").iterdir()
    assert file.name == "steps-4-4.json.gz"  # the first three are left out
    with gzip.open(file, "rt") as opened:
        names = {event.get("name") for event in json.load(opened)["traceEvents"]}
    assert {"aten::linear", "aten::_softmax"} & names and any("backward" in str(name).lower() for name in names)
    assert str(file) in (folder / "log.txt").read_text()
    assert fingerprint(folder) == fingerprint(sound)


def test_a_run_that_is_too_short_to_be_traced_says_so(tiny, tmp_path):
    train(**settings(*tiny, "max_steps=2", "hardware.profile=trace", f"run_dir={tmp_path}/short"))
    assert "hardware.profile: no step was traced" in (tmp_path / "short" / "log.txt").read_text()

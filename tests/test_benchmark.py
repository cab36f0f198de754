"""The benchmark measures what it says: tables are written, a wrong word is told."""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))  # as for a script that lies there

from benchmarks import loading  # noqa: E402
from benchmarks.measure import median_interval  # noqa: E402
from benchmarks.setting import Setting  # noqa: E402
from benchmarks.table import unused  # noqa: E402

from tests.programs import call  # noqa: E402

CPU = Setting("cpu", "fp32", "", "small")


def benchmark(*words):
    return call("scripts/benchmark.py", *words)


def test_a_table_is_shown_and_written_and_says_whom_it_measured(tmp_path):
    done = benchmark("work=overhead", "peers=none", f"against={ROOT}", "rounds=2", "steps=3", f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    (row,) = found["rows"]
    ours, loop, older = row["lines"]
    assert (ours["name"], loop["name"]) == ("transformer_lab", "transformer_lab, in a plain loop")
    assert older["name"].startswith("transformer_lab at ") and older["differs"] == "an older state of this project"
    assert all(line["rate"] > 0 and line["megabytes"] > 0 for line in row["lines"]) and ours["ratio"] == [1, 1, 1]
    assert not row["skipped"]  # an older state is asked for what this row has
    assert found["versions"]["torch"] and "| transformer_lab |" in file.with_suffix(".md").read_text()
    assert unused(tmp_path, CPU).name == f"{file.stem}-2"  # what was measured before stays


def test_work_that_is_not_there_is_told_in_one_line():
    done = benchmark("work=loding")
    assert done.returncode == 2 and done.stderr == "error: loding: no such work; did you mean loading?\n"


def test_a_folder_that_is_no_clone_is_told_in_one_line(tmp_path):
    for words, told in (
        (["peers=nanogpt"], "peers: nanogpt is no package; nanogpt=FOLDER names a clone of it"),
        ([f"nanogpt={tmp_path}"], f"nanogpt: {tmp_path} has no model.py; the folder of a clone is wanted"),
        ([f"against={tmp_path}"], f"against: {tmp_path} has no scripts/benchmarks/measure.py; the folder of a clone"),
    ):
        done = benchmark("work=overhead", *words)
        assert done.returncode == 2 and done.stderr.startswith(f"error: {told}") and done.stderr.count("\n") == 1


def test_the_median_lies_in_its_interval_as_often_as_that_says():
    draw, held = np.random.default_rng(0), 0
    for _ in range(2000):
        low, high = median_interval(draw.exponential(size=20).tolist())
        held += low <= np.log(2) <= high
    assert 0.94 < held / 2000 < 0.98  # the binomial distribution says 0.959
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)  # of few values, all


def test_a_loader_hands_over_rows():
    ours = dict(loading.contenders(CPU))["transformer_lab"]()
    pace = ours.run(3)
    assert pace.items == 3 * loading.BATCH and pace.seconds > 0

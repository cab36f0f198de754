"""The benchmark measures what it says: tables are written, a wrong word is told."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))  # as for a script that lies there

from benchmarks import loading  # noqa: E402
from benchmarks.setting import Setting  # noqa: E402
from benchmarks.table import unused  # noqa: E402

from tests.programs import call  # noqa: E402

CPU = Setting("cpu", "fp32", "", "small")


def benchmark(*words):
    return call("scripts/benchmark.py", *words)


def test_a_table_is_shown_and_written_and_says_whom_it_measured(tmp_path):
    done = benchmark("work=overhead", "peers=none", "rounds=2", "steps=3", f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    (row,) = found["rows"]
    assert [line["name"] for line in row["lines"]] == ["transformer_lab", "transformer_lab, in a plain loop"]
    assert all(line["rate"] > 0 for line in row["lines"]) and row["lines"][0]["ratio"] == [1, 1, 1]
    assert found["versions"]["torch"] and "| transformer_lab |" in file.with_suffix(".md").read_text()
    assert unused(tmp_path, CPU).name == f"{file.stem}-2"  # what was measured before stays


def test_work_that_is_not_there_is_told_in_one_line():
    done = benchmark("work=loding")
    assert done.returncode == 2 and done.stderr == "error: loding: no such work; did you mean loading?\n"


def test_a_loader_hands_over_rows():
    ours = dict(loading.contenders(CPU))["transformer_lab"]()
    pace = ours.run(3)
    assert pace.items == 3 * loading.BATCH and pace.seconds > 0

"""The benchmark measures what it says: tables are written, a wrong word is told, operations are counted right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))  # as for a script that lies there

from benchmarks import language_modeling, loading, translation  # noqa: E402
from benchmarks.setting import Setting  # noqa: E402

CPU = Setting("cpu", "fp32", "", "small")


def benchmark(*words):
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_table_is_shown_and_written_and_says_whom_it_measured(tmp_path):
    done = benchmark("work=overhead", "peers=none", "rounds=2", "steps=3", "memory=false", f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    (row,) = found["rows"]
    assert [line["name"] for line in row["lines"]] == ["transformer_lab", "transformer_lab, in a plain loop"]
    assert all(line["rate"] > 0 for line in row["lines"]) and row["lines"][0]["ratio"] == [1, 1, 1]
    assert found["versions"]["torch"] and "| transformer_lab |" in file.with_suffix(".md").read_text()


def test_work_that_is_not_there_is_told_in_one_line():
    done = benchmark("work=loding")
    assert done.returncode == 2 and done.stderr == "error: loding: no such work; did you mean loading?\n"


@pytest.mark.parametrize("work", [language_modeling, translation])
def test_operations_are_six_for_each_weight_and_token_and_those_of_attention(work):
    ours = dict(work.contenders(CPU))["transformer_lab"]()
    layers, dim, _, context, _, vocab_size = work.SIZES["small"]
    step = ours.loaders.steps[0]
    if work is language_modeling:
        products = layers * 12 * dim**2 + vocab_size * dim
        attention = layers * 2 * dim * context  # scores and sums of half the pairs, forward
        expected = 6 * products + 3 * attention
    else:
        (batch,) = step.micro_batches
        source, target = (side.lengths.double() for side in (batch.source_layout, batch.target_layout))
        encoder, decoder = layers * 12 * dim**2 * source.sum(), layers * (14 * target.sum() + 2 * source.sum()) * dim**2
        pairs = source.square().sum() + target.square().sum() / 2 + (source * target).sum()
        products = encoder + decoder + vocab_size * dim * target.sum()
        expected = float(6 * products + 3 * layers * 4 * dim * pairs) / step.tokens
    assert ours.operations() == pytest.approx(expected, rel=1e-6)


def test_a_loader_hands_over_rows():
    ours = dict(loading.contenders(CPU))["transformer_lab"]()
    pace = ours.run(3)
    assert pace.items == 3 * loading.BATCH and pace.seconds > 0

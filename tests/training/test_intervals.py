"""How sure a score is: resamples of the texts, intervals, the report in a run's folder, and the paired test."""

import json

import numpy as np
import pytest
import torch

import transformer_lab as tl
from tests.conftest import CELLS, TINY, corpus_for, evaluation_set, settings, small_task
from transformer_lab.commands.compare import main as compare
from transformer_lab.commands.evaluate import main as evaluate_command
from transformer_lab.run.train import train
from transformer_lab.tasks.base import Texts
from transformer_lab.training.evaluation import Evaluation, evaluate
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)


def of_classes(said, true):
    """An evaluation of a task of two classes that has said this."""
    task = small_task("task=classification")
    corpus = corpus_for(task, [4] * len(said))
    losses = torch.stack([(said != true).double(), torch.ones(len(said), dtype=torch.float64)], 1)
    texts = Texts(np.arange(len(said)), {"classes": losses}, {"said": said.double(), "classes": true.double()})
    return Evaluation(task, task.packing(corpus), texts)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    draw = torch.Generator().manual_seed(0)
    held, widths = [], []
    for _ in range(30):
        true = torch.randint(2, (120,), generator=draw)
        right = torch.rand(120, generator=draw) < 0.8
        low, high = of_classes(torch.where(right, true, 1 - true), true).intervals["accuracy"]
        held.append(low <= 0.8 <= high)
        share = float(right.double().mean())
        widths.append((high - low) / (2 * 1.96 * (share * (1 - share) / 120) ** 0.5))  # of a normal distribution
    assert 0.85 <= np.mean(held) <= 1 and np.mean(widths) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("cell", CELLS)
def test_every_score_of_every_task_has_an_interval_around_it(cell):
    task = small_task(*CELLS[cell])
    found = evaluate(task, evaluation_set(task, corpus_for(task, [9, 14, 25, 31, 40, 12, 8, 22] * 2)), CPU)
    fixed = {"truncated_texts", "possible_exact_match"}
    varies = {name for name, value in found.metrics.items() if name not in fixed and value != round(value)}
    assert varies and varies <= found.intervals.keys() <= found.metrics.keys() - fixed
    for name, (low, high) in found.intervals.items():
        assert low < high and low - 0.3 * abs(low) <= found.metrics[name] <= high + 0.3 * abs(high), name
    mistakes = [one["loss"] for one in found.mistakes]
    assert mistakes == sorted(mistakes, reverse=True) and all(one["text"] for one in found.mistakes)


def test_a_split_of_one_text_is_resampled_by_its_blocks():
    task = small_task("task.context=16")
    found = evaluate(task, evaluation_set(task, corpus_for(task, [400])), CPU)
    assert len(found.texts) == 25 and found.unit.startswith("blocks of 16 tokens")
    low, high = found.intervals["loss"]
    assert low < found.metrics["loss"] < high


def test_a_single_text_that_cannot_be_drawn_otherwise_has_no_interval():
    task = small_task("task=classification")
    assert evaluate(task, evaluation_set(task, corpus_for(task, [9])), CPU).intervals == {}


@pytest.fixture(scope="module")
def runs(place, tmp_path_factory):
    """Two runs on the same real lines, the second of which has learned next to nothing."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [line.split("\t")[0] for line in (place / "lines.tsv").read_text().splitlines()[1:]]
    rows = (f"{line}\t{'call' if '(' in line else 'other'}\n" for line in lines)
    (folder / "lines.tsv").write_text("text\tlabel\n" + "".join(rows))
    words = ["task=classification", *TINY[1:], "data=labeled", f"data.path={folder}/lines.tsv", "data.test=0.3"]
    for name, steps in (("long", 60), ("short", 1)):
        train(**settings(*words, f"max_steps={steps}", f"cache_dir={place}/cache", f"run_dir={folder}/{name}"))
    return folder


def test_a_run_leaves_what_was_found_of_each_split(runs):
    metrics = json.loads((runs / "long" / "metrics.json").read_text())
    for split in ("validation", "test"):
        found = json.loads((runs / "long" / "evaluation" / f"{split}.json").read_text())
        assert found["metrics"] == pytest.approx(metrics[split])
        assert found["intervals"] == metrics["intervals"][split]
        assert len(found["resamples"]["accuracy"]) == 1000
        by_class, confusion = found["classes"], [list(row.values())[1:] for row in found["confusion"]]
        assert [row["texts"] for row in by_class] == [sum(row) for row in confusion]
        right = sum(row[number] for number, row in enumerate(confusion))
        assert right / found["of"]["count"] == pytest.approx(metrics[split]["accuracy"])
        assert all(one["label"] != one["prediction"] for one in found["mistakes"])
        text = (runs / "long" / "evaluation" / f"{split}.md").read_text()
        assert f"{split}-confusion.png" in text and "| accuracy |" in text and "## The hardest texts" in text
        assert (runs / "long" / "evaluation" / f"{split}-confusion.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_writes_what_it_finds_of_a_split_and_of_a_file(runs, place, tmp_path, capsys):
    asked = {"run": str(runs / "long"), "cache_dir": f"{place}/cache"}
    evaluate_command(**asked, output=str(tmp_path / "reports" / "again"))
    printed = json.loads(capsys.readouterr().out)
    before = json.loads((runs / "long" / "evaluation" / "test.json").read_text())
    assert (
        printed["test"] == pytest.approx(before["metrics"])
        and printed["intervals"].keys() == before["intervals"].keys()
    )
    again = json.loads((tmp_path / "reports" / "again.json").read_text())
    assert again["of"] == before["of"] and again["classes"] == before["classes"]
    evaluate_command(**asked, file=f"{runs}/lines.tsv", output=str(tmp_path / "mine"))
    assert json.loads((tmp_path / "mine.json").read_text())["of"]["count"] > 1000
    assert (tmp_path / "mine-confusion.png").is_file() and (tmp_path / "mine.md").is_file()


def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_done(runs, tmp_path):
    (tmp_path / "file").touch()
    for ask in (
        lambda output: evaluate_command(run=str(runs / "long"), output=output),
        lambda output: compare(runs=f"{runs}/short,{runs}/long", output=output),
    ):
        with pytest.raises(ValueError, match=r"^output: .*/file cannot be a folder: "):
            ask(f"{tmp_path}/file/report")


def test_two_runs_are_compared_text_by_text(runs, tmp_path, capsys):
    compare(runs=f"{runs}/short,{runs}/long", output=str(tmp_path / "compared"))
    lines = capsys.readouterr().out.splitlines()
    (row,) = [
        line.split("|")
        for line in lines[lines.index(next(x for x in lines if "test split" in x)) :]
        if "| accuracy |" in line
    ]
    gap, p = float(row[3]), float(row[5])
    low, high = map(float, row[4].split(" to "))
    assert 0 < low < gap < high
    reached = [json.loads((runs / name / "metrics.json").read_text())["test"]["accuracy"] for name in ("long", "short")]
    assert gap == pytest.approx(reached[0] - reached[1], rel=1e-3) and gap > 0.05 and p < 0.05
    compare(runs=f"{runs}/long,{runs}/long", output=str(tmp_path / "same"))
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("| +0 | +0 to +0 | 1.000 |")]


def test_scores_in_a_notebook_have_intervals_tables_and_pictures(runs):
    found = tl.load(runs / "long").evaluate("test")
    assert found == pytest.approx(json.loads((runs / "long" / "metrics.json").read_text())["test"])
    assert found.intervals["accuracy"][0] <= found["accuracy"] <= found.intervals["accuracy"][1]
    assert found.tables["classes"] and found.mistakes and found.pictures["confusion"]
    assert "95% interval" in found._repr_markdown_()

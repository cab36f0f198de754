"""Numbers for texts: scores as the libraries compute them, units, pairs, and what is said of a text."""

import csv
import json
import random

import numpy as np
import pytest
import torch
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef

import transformer_lab as tl
from tests.conftest import corpus_for, evaluation_set, small_task
from transformer_lab.data.examples import LabeledText
from transformer_lab.tasks.base import Texts
from transformer_lab.tasks.regression import Regression
from transformer_lab.training.evaluation import evaluate
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)
CELL = ["task=regression"]
SMALL = ["model.dim=32", "model.num_layers=1", "task.context=32", "tokenizer=bytes", "tokens_per_step=512"]


def test_correlations_are_the_librarys_also_of_equal_values():
    task = small_task(*CELL)
    draw = torch.Generator().manual_seed(0)
    true = torch.randint(6, (300,), generator=draw).double()
    said = (true + 2 * torch.randn(300, generator=draw).double()).round(decimals=1)
    sums = task.sums(Texts(np.arange(300), {}, {"said": said, "true": true}))
    found = task.metrics({"values": 0.5}, sums(torch.ones(300, dtype=torch.float64)), None)
    assert found["pearson"] == pytest.approx(pearson_corrcoef(said, true).item(), abs=1e-6)
    assert found["spearman"] == pytest.approx(spearman_corrcoef(said, true).item(), abs=1e-6)
    drawn = torch.randint(300, (300,), generator=draw)  # where some texts count often, and others not at all
    found = task.metrics({"values": 0.5}, sums(torch.bincount(drawn, minlength=300).double()), None)
    assert found["spearman"] == pytest.approx(spearman_corrcoef(said[drawn], true[drawn]).item(), abs=1e-6)
    assert found["pearson"] == pytest.approx(pearson_corrcoef(said[drawn], true[drawn]).item(), abs=1e-6)


def test_errors_are_in_the_units_of_the_data():
    task = small_task(*CELL)
    task.mean, task.deviation = 50.0, 20.0
    corpus = corpus_for(task, [9, 12, 30])
    found = evaluate(task, evaluation_set(task, corpus), CPU)
    said, true = found.texts.counts["said"], found.texts.counts["true"]
    assert found.metrics["mse"] == pytest.approx(float((20 * (said - true)).square().mean()), rel=1e-6)
    assert found.metrics["loss"] == pytest.approx(found.metrics["mse"] / 400, rel=1e-6)
    hardest = found.mistakes[0]
    gaps = (said - true).abs()
    assert abs(hardest["label"] - hardest["prediction"]) == pytest.approx(20 * float(gaps.max()), rel=1e-3)


def test_mean_and_deviation_are_learned_from_the_training_texts():
    texts = [LabeledText("x", (str(value),)) for value in (1, 2.5, -4)]
    learnt = Regression.learn(iter(texts), None)["scale"]
    assert learnt == pytest.approx({"mean": np.mean([1, 2.5, -4]), "deviation": np.std([1, 2.5, -4])})
    with pytest.raises(ValueError, match=r"data.label_column: all texts of the training split have the number 3"):
        Regression.learn(iter([LabeledText("x", ("3",))] * 2), None)
    for label in ("good", "nan", "inf"):
        with pytest.raises(ValueError, match=rf"data.label_column: '{label}' of the text 'x' is no number; task=class"):
            Regression.learn(iter([LabeledText("x", (label,))]), None)


def test_a_number_of_a_pair_is_learned_evaluated_and_predicted_into_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    rows = []
    for _ in range(300):
        stars = draw.randint(0, 8)
        text = " ".join(["*"] * stars + [draw.choice("abcdefg") for _ in range(3)])
        rows.append({"text": text, "second": "of eight", "label": 10.0 + stars / 2})
    with open("stars.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    columns = ["data.pair_columns=[text,second]"]
    run = tl.train(
        "task=regression", "data=labeled", "data.path=stars.jsonl", *columns, *SMALL, max_steps=50, cache_dir="cache"
    )
    assert run.metrics["test"]["pearson"] > 0.9 and run.metrics["test"]["mse"] < 0.5
    low, high = run.metrics["intervals"]["test"]["pearson"]
    assert low < run.metrics["test"]["pearson"] < high
    assert run.predict(json.dumps(["* * * * * * * *", "of eight"]))["value"] == pytest.approx(14, abs=1)
    assert {path.name for path in (run.folder / "evaluation").iterdir()} == {
        f"{split}{end}" for split in ("validation", "test") for end in (".md", ".json", "-scatter.png")
    }
    assert run.evaluate(file="stars.jsonl")["spearman"] > 0.9
    from transformer_lab.commands.predict import main as predict

    predict(run=str(run.folder), file="stars.jsonl", output="said.csv")
    with open("said.csv", newline="") as file:
        said = list(csv.DictReader(file))
    assert (
        len(said) == 300 and np.corrcoef([[float(row[x]) for row in said] for x in ("label", "prediction")])[0, 1] > 0.9
    )

"""Classes: scores as the libraries compute them, weights, several labels, and what is said of a text."""

import csv
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchmetrics.functional import classification as library

import transformer_lab as tl
from tests.conftest import WORDS, batch_for, corpus_for, evaluation_set, settings, small_task
from transformer_lab.commands.predict import main as predict
from transformer_lab.composition.build import rehearse
from transformer_lab.composition.script import arguments
from transformer_lab.data.examples import LabeledText
from transformer_lab.data.packing import EXAMPLE
from transformer_lab.tasks import classification_report as report
from transformer_lab.tasks.base import Texts
from transformer_lab.tasks.classification import ClassEncoding, Classification, _weights
from transformer_lab.training.evaluation import evaluate
from transformer_lab.training.evaluation_report import read
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)
CELL = ["task=classification"]


def test_scores_of_single_labels_are_the_librarys():
    draw = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(500, 7, generator=draw, dtype=torch.float64), torch.randint(6, (500,), generator=draw)
    logits[:, 6] -= 2  # a class that no text is of
    said, once = logits.argmax(1), torch.ones(500, dtype=torch.float64)
    found = report.single_label(report.confusion(said, classes, 7)(once))
    assert found["accuracy"] == pytest.approx((said == classes).double().mean().item(), abs=1e-9)
    expected = library.multiclass_matthews_corrcoef(said, classes, num_classes=7)
    assert found["matthews"] == pytest.approx(expected.item(), abs=1e-6)  # theirs is in single precision
    expected = library.multiclass_f1_score(said, classes, num_classes=7, average=None).double()
    there = torch.tensor([(said == c).any() or (classes == c).any() for c in range(7)])
    assert found["macro_f1"] == pytest.approx(expected[there].mean().item(), abs=1e-6)


def test_scores_of_several_labels_are_the_librarys():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 5, generator=draw)
    classes = (torch.rand(500, 5, generator=draw) < 0.3).float()
    once = torch.ones(500, dtype=torch.float64)
    found = report.multi_label(report.of_each_class((logits > 0).double(), classes.double())(once))
    rules = {"num_labels": 5, "threshold": 0.5}
    shares, wanted = logits.sigmoid(), classes.long()
    assert found["macro_f1"] == pytest.approx(library.multilabel_f1_score(shares, wanted, **rules).item(), abs=1e-6)
    expected = library.multilabel_f1_score(shares, wanted, average="micro", **rules).item()
    assert found["micro_f1"] == pytest.approx(expected, abs=1e-6)
    assert found["exact_match"] == pytest.approx(
        ((logits > 0) == (classes > 0)).all(1).double().mean().item(), abs=1e-9
    )
    assert found["accuracy"] == pytest.approx(((logits > 0) == (classes > 0)).double().mean().item(), abs=1e-9)


def test_precision_and_recall_of_each_class_are_the_librarys():
    draw = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(200, 3, generator=draw), torch.randint(3, (200,), generator=draw)
    logits[:, 0] += 1  # named too often: its precision and its recall differ
    counts = report.confusion(logits.argmax(1), classes, 3)(torch.ones(200, dtype=torch.float64))
    precision = library.multiclass_precision(logits, classes, 3, average=None)
    recall = library.multiclass_recall(logits, classes, 3, average=None)
    for number, row in enumerate(report.table(counts, "abc", several=False)):
        assert row["class"] == "abc"[number] and row["texts"] == int((classes == number).sum())
        assert row["precision"] == pytest.approx(float(precision[number]))
        assert row["recall"] == pytest.approx(float(recall[number]))


def test_a_class_nobody_names_and_nobody_is_does_not_count():
    counts = torch.tensor([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert report.single_label(counts)["macro_f1"] == pytest.approx((6 / 7 + 8 / 9) / 2)
    everyone_one = torch.tensor([[0.0, 5.0], [0.0, 5.0]])
    assert report.single_label(everyone_one)["matthews"] == 0


@pytest.mark.parametrize("weights", [None, {"b": 3.0}, "balanced"])
def test_class_weights_weigh_the_mean_as_pytorch_does(weights):
    torch.manual_seed(0)
    task = small_task(*CELL, "task.dropout=0")
    labels = {"a": 30, "b": 10}
    task = Classification(
        model=task.model,
        tokenizer=WORDS,
        labels=labels,
        name="x",
        context=64,
        class_weights=weights,
        label_smoothing=0.1,
    )
    torch.nn.init.normal_(task.head.out.weight)
    batch = batch_for(task, [5, 9, 20, 3, 3, 8])
    expected = {None: None, "balanced": [40 / 60, 2.0]}.get(
        weights if isinstance(weights, str | None) else "", [1, 3.0]
    )
    logits = task.logits(batch)
    wanted = F.cross_entropy(
        logits, batch.labels, None if expected is None else torch.tensor(expected), label_smoothing=0.1
    )
    assert (task(batch).losses["classes"] / batch.num_targets["classes"]).item() == pytest.approx(
        wanted.item(), rel=1e-5
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (["task.class_weights={c: 2.0}"], "task.class_weights=c"),
        (["task.label_smoothing=1.5"], "task.label_smoothing"),
        (["task.context=2"], "task.context"),
        (["model=decoder", "task.pooling=first"], "task.pooling"),
    ],
)
def test_impossible_options_are_refused_in_one_line(words, said):
    with pytest.raises(ValueError, match=said) as error:
        small_task(*CELL, *words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pooling", ["first", "pooler", "mean", "last"])
def test_each_pooling_makes_one_vector_of_its_own_text_alone(pooling):
    task = small_task(*CELL, f"task.pooling={pooling}")
    packing = task.packing(corpus_for(task, [5, 9, 20, 3]))
    pieces = packing.pieces(np.arange(packing.num_units))
    together = task.logits(task.collate(packing.corpus, pieces, 0))
    for row, piece in enumerate(pieces):
        alone = task.logits(task.collate(packing.corpus, piece[None], 0))
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("truncate, kept", [("end", slice(0, 6)), ("beginning", slice(-6, None))])
def test_a_long_text_loses_what_the_policy_says_and_is_counted(truncate, kept):
    task = small_task(*CELL, "task.context=8", f"task.truncate={truncate}")
    corpus = corpus_for(task, [20, 3])
    packing = task.packing(corpus)
    batch = task.collate(corpus, np.arange(2).view(EXAMPLE), 0)
    first, second = batch.tokens.split(batch.layout.lengths.tolist())
    assert first[1:-1].tolist() == corpus["tokens"][0][kept].tolist()
    assert second[1:-1].tolist() == corpus["tokens"][1].tolist()
    assert packing.num_truncated == 1


def test_classes_are_learned_from_the_training_texts():
    texts = [LabeledText("", (label,)) for label in ("10", "9", "b", "a", "9")]
    assert Classification.learn(iter(texts), None) == {"labels": {"9": 2, "10": 1, "a": 1, "b": 1}}
    with pytest.raises(ValueError, match="all of the training split are of the class a"):
        Classification.learn(iter([LabeledText("x", ("a",))] * 3), None)


def test_what_is_said_of_a_line_is_a_class_and_the_probability_of_each():
    task = small_task(*CELL)
    found = task.predict(["one text", "", "another one " * 30])
    assert [one["input"] for one in found] == ["one text", "", "another one " * 30]
    for one in found:
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
    several = small_task(*CELL, "task.multi_label=true").predict(["one text"])[0]
    assert several["label"] in ("a", "b", "a, b", "none")


def test_what_was_found_is_told_by_class_with_the_greatest_mistakes():
    task = small_task(*CELL)
    corpus = corpus_for(task, [12] * 40)
    found = evaluate(task, evaluation_set(task, corpus), CPU)
    text = read(found)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| a") or line.startswith("| b")]
    assert len(rows) == 4 and sum(int(row[1]) for row in rows[:2]) == 40
    losses = [float(line.split()[1].rstrip(",")) for line in text.splitlines() if line.startswith("loss ")]
    assert losses == sorted(losses, reverse=True) and losses and min(losses) > 0.69  # wrong is worse than a coin
    drawn = task.pictures(found.texts)["confusion"].axes[0].texts
    shown = [[int(cell) for cell in row[1:]] for row in rows[2:]]
    assert [int(text.get_text()) for text in drawn] == [cell for row in shown for cell in row]
    assert sum(map(sum, shown)) == 40
    assert sum(shown[number][number] for number in (0, 1)) / 40 == found.metrics["accuracy"]


def test_thresholds_are_those_of_the_greatest_f1_on_the_validation_split():
    task = small_task(*CELL, "task.multi_label=true", "task.threshold=validation")
    draw = torch.Generator().manual_seed(0)
    gains = []
    for count in [5, 12, 40] * 7:
        member = (torch.rand(count, 2, generator=draw) < torch.tensor([0.2, 0.5])).double()
        member[0] = 1
        logits = torch.randn(count, 2, generator=draw) + 2 * member - torch.tensor([3.0, -1.0])
        logits = logits.round(decimals=count % 2).double()  # some are equal
        task.fit_to(Texts(np.arange(count), {}, {"logits": logits, "classes": member}))
        for at, said, true in zip(task.thresholds.tolist(), logits.T, member.T, strict=True):
            best = max(f1(said > other - 1e-9, true) for other in said.tolist())
            assert f1(said > at, true) == pytest.approx(best)
            gains.append(best - f1(said > 0, true))
    assert min(gains) >= 0 and max(gains) > 0.3
    assert "thresholds" in task.state_dict() and "thresholds" not in small_task(*CELL).state_dict()


def f1(said, true):
    return float(2 * (said * true).sum() / (said.sum() + true.sum()))


@pytest.mark.parametrize("threshold, names", [(0.01, "a, b"), (0.99, "none")])
def test_a_class_is_said_from_its_threshold_on(threshold, names):
    task = small_task(*CELL, "task.multi_label=true", f"task.threshold={threshold}")
    assert task.predict(["one text"])[0]["label"] == names


def test_thresholds_that_nothing_can_be_made_of_are_refused():
    with pytest.raises(ValueError, match=r"task.threshold: 1.5 is no probability"):
        small_task(*CELL, "task.multi_label=true", "task.threshold=1.5")
    with pytest.raises(
        ValueError, match=r"task.threshold: of several classes the likeliest is said; task.multi_label="
    ):
        small_task(*CELL, "task.threshold=0.3")


def test_many_numbers_are_no_classes():
    texts = [LabeledText("", (str(number / 7),)) for number in range(30)]
    with pytest.raises(ValueError, match=r"30 labels, all of them numbers such as 0.0, .* task=regression"):
        Classification.learn(iter(texts), None)
    assert len(Classification.learn(iter(texts[:9]), None)["labels"]) == 9


def test_class_names_that_differ_by_composition_only_are_one_class():
    composed, apart = "caf\u00e9", "cafe\u0301"
    texts = [LabeledText("", (label,)) for label in (composed, apart, "tea")]
    assert Classification.learn(iter(texts), None) == {"labels": {composed: 2, "tea": 1}}
    encoding = ClassEncoding(False, (composed, "tea"))
    assert encoding.row(LabeledText("", (apart, composed)), [[]])["classes"] == [0]


@pytest.mark.parametrize(
    "words",
    [
        ["task.class_weights={yes: 2.0, no: 1.0}"],
        ["task.class_weights={0: 1.0, 1: 5.0}"],
        ["task.class_weights={true: 3.0}"],
    ],
)
def test_weights_of_any_class_are_taken_before_the_data_are_read(words):
    rehearse(settings(*CELL, *words))  # on docstrings, of libraries that are installed


def test_classes_are_weighed_as_the_data_spell_them():
    labels = {"0": 3, "1": 1, "true": 2, "cafe\u0301": 1}
    assert _weights({"0": 3, "1": 1}, {0: 1.0, 1: 5.0}) == [1.0, 5.0]
    assert _weights({"false": 3, "true": 1}, {True: 5.0}) == [1.0, 5.0]
    assert _weights({"caf\u00e9": 3, "x": 1}, {"cafe\u0301": 5.0}) == [5.0, 1.0]
    with pytest.raises(ValueError, match=r"task\.class_weights=2: no such class"):
        _weights(labels, {2: 1.0})


def test_labels_that_nobody_has_parted_are_told(caplog):
    task = small_task(*CELL, "task.multi_label=true")
    more = {"model": task.model, "tokenizer": WORDS, "name": "x", "context": 64}
    Classification(labels={"a": 1, "b": 2, "a, b": 1}, multi_label=True, **more)
    assert "'a, b' is taken for one class; data.separator=',' makes several of it" in caplog.text
    caplog.clear()
    Classification(labels={"a": 1, "b": 2, "a, b": 1}, **more)
    Classification(labels={"salt": 1, "rock, paper": 2}, multi_label=True, **more)
    assert not caplog.text


@pytest.mark.parametrize("labels", [("a $x^ b$", "$_$"), ("שלום", "日本")])
def test_classes_of_any_name_can_be_drawn(labels, recwarn):
    counts = torch.tensor([[3, 1], [0, 4]])
    figure = report.confusion_picture(counts, labels)
    figure.savefig(io.BytesIO())
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == list(labels)
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]


# --- pairs ------------------------------------------------------------------------------------------------------


def pairs_task(*words):
    return small_task("task=classification", "task.pairs=true", "model.token_types=2", *words)


def pair(first, second, label="a"):
    return LabeledText(first, (label,), second=second)


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text("ab ", max_size=30), st.text("ab ", max_size=30)), min_size=1, max_size=5))
@pytest.mark.parametrize("truncate", ["end", "beginning"])
def test_a_pair_is_put_together_as_bert_does_and_the_longer_text_is_cut(truncate, texts):
    task = pairs_task("task.context=16", f"task.truncate={truncate}")
    batch = task.batch([pair(*both) for both in texts])
    begin, end = (task.tokenizer.special(name) for name in task.special_tokens)
    found = []
    for first, second in texts:
        a, b = task.tokenizer.encode_batch([first, second])
        while len(a) + len(b) > 13:  # one token after the other; of two alike, of the first
            longer = a if len(a) > len(b) else b
            longer.pop(-1 if truncate == "end" else 0)
        found.append(([begin, *a, end, *b, end], [0] * (len(a) + 2) + [1] * (len(b) + 1)))
    tokens, types = (each.split(batch.layout.lengths.tolist()) for each in (batch.tokens, batch.types))
    made = sorted((one.tolist(), kind.tolist()) for one, kind in zip(tokens, types, strict=True))
    assert made == sorted(found)


def test_a_pair_is_judged_by_both_texts_and_their_order():
    task = pairs_task()
    asked = [("a dog", "a cat"), ("a cat", "a dog"), ("a dog", "a dog"), ("a dog a", " cat")]
    said = task.predict([json.dumps(both) for both in asked])
    assert len({tuple(one["probabilities"].values()) for one in said}) == len(asked)
    alone = [task.predict([json.dumps(both)])[0]["probabilities"] for both in asked]
    assert all(one["probabilities"] == pytest.approx(two, abs=1e-5) for one, two in zip(said, alone, strict=True))
    for wrong in ("a dog", '["a dog"]', '["a", 3]', "[", "null"):
        assert task.predict([wrong])[0]["error"].startswith("no pair of texts")
    assert task.predict(["a dog", json.dumps(asked[0])])[1]["probabilities"] == pytest.approx(alone[0], abs=1e-5)


def test_what_is_no_pair_among_pairs_is_refused():
    for task, example in (
        (pairs_task(), LabeledText("x", ("a",))),
        (small_task("task=classification"), pair("x", "y")),
    ):
        with pytest.raises(ValueError, match=r"^task.pairs=(true|false): .* is [12] texts"):
            task.batch([example])
    with pytest.raises(ValueError, match="at least 5, a token of each text"):
        pairs_task("task.context=4")


def test_pairs_of_a_table_are_trained_on_predicted_and_evaluated(tmp_path, monkeypatch):
    """In the shape of MRPC: two sentences, and whether they say the same; it is learned, as the base rate is not."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    rows = ["first,second,same"]
    for number in range(1200):
        subject, verb = f"{draw.choice(['dog', 'boat', 'child'])} {number}", draw.choice(["sleeps", "sings"])
        other = draw.choice([verb, "sings" if verb == "sleeps" else "sleeps"])
        rows.append(f"the {subject} {verb},it {other},{'yes' if other == verb else 'no'}")
    Path("pairs.csv").write_text("\n".join(rows))
    words = ["task=classification", "data=labeled", "data.path=pairs.csv", "data.pair_columns=[first,second]"]
    words += [
        "data.label_column=same",
        "model.token_types=2",
        "model.dim=32",
        "model.num_layers=2",
        "pictures.layers=[]",
    ]
    words += ["tokenizer=bytes", "task.context=64", "tokens_per_step=1024", "schedule=constant", "allow_overlap=true"]
    run = tl.train(*words, max_steps=150, validate_every_steps=150)
    assert run.metrics["test"]["accuracy"] > 0.9
    assert tl.load(run.folder).evaluate(file="pairs.csv")["accuracy"] > 0.9
    script = arguments(predict, [f"run={run.folder}", "file=pairs.csv", "output=said.csv"])
    predict(**script)
    with open("said.csv", newline="") as file:
        said = list(csv.DictReader(file))
    assert len(said) == 1200 and sum(row["prediction"] == row["same"] for row in said) > 1000
    same = run.predict('["the boat 7 sings", "it sings"]')
    assert same["label"] == "yes" and run.show(("the boat 7 sings", "it sings")).startswith("yes | ")


def test_thresholds_are_learned_kept_and_used_and_help_where_a_class_is_rare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    texts = []
    for number in range(300):
        rare = draw.random() < 0.15
        words = [draw.choice(["please", "hello", "today"]) for _ in range(3)] + ["quota"] * rare + [str(number)]
        texts.append((" ".join(words), ["rare"] * rare + ["odd"] * (number % 2)))
    small = ["model.dim=32", "model.num_layers=1", "tokenizer=bytes", "tokens_per_step=1024", "schedule=constant"]
    words = ["task=classification", "task.multi_label=true", "data.validation=0.3", "data.test=0.3", *small]
    runs = {
        threshold: tl.train(*words, f"task.threshold={threshold}", data=texts, max_steps=6, cache_dir="cache")
        for threshold in (0.5, "validation")
    }
    plain, chosen = (run.metrics["validation"]["macro_f1"] for run in runs.values())
    assert chosen > plain
    again = tl.load(runs["validation"].folder)
    assert again.evaluate("test")["macro_f1"] == pytest.approx(runs["validation"].metrics["test"]["macro_f1"])
    assert again.task.thresholds.tolist() != [0.0, 0.0]

"""Which weights are the best: by a metric of the user's or the task's choice, and of equals by the loss."""

import json

import pytest

from tests.conftest import settings, small_task
from transformer_lab.run.train import train
from transformer_lab.scores import rank
from transformer_lab.tasks.classification import Classification
from transformer_lab.training.module import Training

WORDS = [
    "task=classification",
    "data=labeled",
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=1",
    "task.context=64",
    "tokens_per_step=256",
    "max_steps=6",
    "pictures.layers=[]",
    "validate_every_steps=2",
    "schedule=constant",
]
REPORTED = [(0.5, 0.4, 1.0), (0.5, 0.3, 0.9), (0.4, 0.2, 0.8)]  # accuracy, F1 and loss of three validations


@pytest.fixture
def best(place, tmp_path, monkeypatch):
    """The step whose weights are kept as the best of a run with these words; and what the run says of it."""

    def metrics(self, losses, sums, corpus):
        return dict(zip(("accuracy", "macro_f1", "loss"), REPORTED[ended["validations"] - 1], strict=True))

    def on_validation_epoch_end(self):
        ended["validations"] += 1
        ends(self)

    ended, ends = {}, Training.on_validation_epoch_end
    monkeypatch.setattr(Classification, "metrics", metrics)
    monkeypatch.setattr(Training, "on_validation_epoch_end", on_validation_epoch_end)

    def best_of(*words):
        ended["validations"] = 0
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        train(**settings(*WORDS, f"data.path={place}/lines.tsv", f"cache_dir={place}/cache", f"run_dir={run}", *words))
        return int((run / "checkpoints" / "best").readlink().name[-1]), json.loads((run / "metrics.json").read_text())

    return best_of


def test_equal_scores_are_ranked_by_the_loss(best):
    step, told = best()
    assert step == 4 and told["best_by"] == "accuracy"
    assert told["validation"] == {"accuracy": 0.5, "macro_f1": 0.3, "loss": 0.9}


def test_who_weighs_classes_is_judged_by_each_class(best):
    assert best("task.class_weights=balanced")[0] == 2


def test_the_config_may_name_any_metric_that_the_task_reports(best):
    assert best("best_by=loss")[0] == 6 and best("best_by=macro_f1")[0] == 2
    with pytest.raises(ValueError, match=r"^best_by=acuracy: no such metric; did you mean accuracy\?$"):
        best("best_by=acuracy")


@pytest.mark.parametrize("lower", ["loss", "mlm_loss", "perplexity", "bits_per_byte"])
def test_of_losses_the_least_is_best_and_what_is_no_number_never_is(lower):
    good, poor, none = ({lower: x, "loss": x} for x in (1.0, 2.0, float("nan")))
    assert rank(good, lower) > rank(poor, lower) > rank(none, lower)
    assert rank({"bleu": 2.0, "loss": 9.0}, "bleu") > rank({"bleu": 1.0, "loss": 1.0}, "bleu")


def test_every_task_reports_what_it_chooses_by():
    assert small_task("task=translation").best_by == "bleu" and small_task("task=mlm_nsp").best_by == "loss"

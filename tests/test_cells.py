"""Each task from the command line to a finished run, and what is done with it: from its default model on real lines."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.programs import call
from transformer_lab.finished.loaded_run import evaluate_file, evaluate_run, load_run

SMALL = [
    "tokenizer.vocab_size=400",
    "model.dim=32",
    "model.num_layers=2",
    "tokens_per_step=1024",
    "max_steps=20",
    "validate_every_steps=10",
    "task.context=64",
    "cache_dir=cache",
]
TASKS = {
    "classification": ["data=labeled", "data.path=lines.tsv"],
    "translation": [
        "data=parallel",
        "data.path=lines.tsv",
        "data.source=text",
        "data.target=back",
        "data.validation=0.02",
        "data.test=0.02",
    ],
    "mlm_nsp": ["data=text", "data.path=corpus"],
}
METRICS = {
    "classification": {"loss", "accuracy", "macro_f1", "matthews"},
    "translation": {"loss", "perplexity", "bleu", "chrf", "exact_match"},
    "mlm_nsp": {"loss", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"},
}


def train(place, *words):
    return call("train.py", *SMALL, *words, cwd=place)


@pytest.fixture(scope="module", params=TASKS)
def run(request, place):
    done = train(place, f"task={request.param}", *TASKS[request.param], f"run_dir={request.param}")
    assert done.returncode == 0, done.stderr
    return request.param, place / request.param, done.stdout


def test_it_reports_what_its_field_reports_and_evaluate_repeats_it(run, monkeypatch):
    task, folder, shown = run
    monkeypatch.chdir(folder.parent)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["test"]) == set(metrics["validation"]) == METRICS[task]
    assert ("scored_by" in metrics) == (task == "translation")
    loaded = load_run(str(folder), [])
    assert evaluate_run(loaded, "test", "cpu").metrics == pytest.approx(metrics["test"], rel=1e-6)
    if task == "translation":
        assert load_run(str(folder), [], {"beam_size": 3}).task.beam.size == 3
        with pytest.raises(ValueError, match=r"^task\.beam_sise: no such option of Translation; did you mean"):
            load_run(str(folder), [], {"beam_sise": 3})
        with pytest.raises(ValueError, match=r"^beam_size: 0 is too small"):
            load_run(str(folder), [], {"beam_size": 0})
    file = "corpus/json_decoder.txt" if task == "mlm_nsp" else "some.tsv"
    (folder.parent / "some.tsv").write_text("\n".join((folder.parent / "lines.tsv").read_text().splitlines()[:100]))
    assert set(evaluate_file(loaded, file, "cpu").metrics) == METRICS[task]
    with pytest.raises(ValueError, match=f"^file={file}x: "):
        evaluate_file(loaded, f"{file}x", "cpu")
    (predict,) = (line for line in shown.splitlines() if "predict.py" in line)  # as it stands, from here
    _, program, *words = shlex.split(predict)
    answered = call(Path(program).resolve(), *words)
    assert answered.returncode == 0 and answered.stdout, answered.stderr
    prompt = shlex.split(predict)[-1].removeprefix("prompt=").replace(" <mask>", "")
    source = (folder.parent / TASKS[task][1].removeprefix("data.path=")).resolve()
    texts = source.read_text() if source.is_file() else " ".join(file.read_text() for file in source.iterdir())
    assert task == "mlm_nsp" or prompt[:8].lower() in " ".join(texts.split()).lower()
    told = [line.split()[1] for line in shown.splitlines() if " examples, " in line]
    assert told == ["train", "validation", "test"]


def test_predictions_are_json_with_a_text_for_people(run):
    task, folder, _ = run
    lines = ["Return the <mask> value", "a <mask> of <mask>."] if task == "mlm_nsp" else ["Return the value", "a b c."]
    found = load_run(str(folder), []).task.predict(lines)
    assert [one["input"] for one in found] == lines and all(isinstance(one["text"], str) for one in found)
    assert json.loads(json.dumps(found)) == found
    if task == "mlm_nsp":
        assert [len(one["masks"]) for one in found] == [1, 2] and "<mask>" not in found[0]["filled"]


def test_tensorboard_shows_a_batch_at_the_start_and_samples_after_each_validation(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task, folder, _ = run
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"batch/text_summary", "samples/text_summary"} <= set(events.Tags()["tensors"])
    assert [event.step for event in events.Tensors("samples/text_summary")] == [10, 20]
    assert ("confusion" in events.Tags()["images"]) == (task == "classification")
    if task == "mlm_nsp":
        assert {"train/mlm_loss", "train/nsp_loss", "val/nsp_accuracy"} <= set(events.Tags()["scalars"])


def test_a_preview_shows_a_batch_and_leaves_no_run(place):
    done = train(place, "task=mlm_nsp", *TASKS["mlm_nsp"], "preview=true", "run_dir=nowhere")
    assert done.returncode == 0 and not (place / "nowhere").exists()
    assert done.stdout.count("<cls>") > 3 and "<mask>" in done.stdout and "hidden, in this order: " in done.stdout
    assert "is next | " in done.stdout or "is not next | " in done.stdout
    assert done.stdout.count("‖") == 10


def test_a_preview_counts_classes_and_what_is_cut(place):
    done = train(place, "task=classification", *TASKS["classification"], "preview=true", "task.context=12")
    labels = [line.split("\t")[2] for line in (place / "lines.tsv").read_text().splitlines()[1:]]
    assert done.returncode == 0 and done.stdout.count("<cls>") == 10
    (counted,) = (line for line in done.stdout.splitlines() if line.startswith("│ labels"))
    found = re.findall(r"(\w+) ([\d,]+)", counted)
    assert {name for name, _ in found} == set(labels)
    assert sum(int(count.replace(",", "")) for _, count in found) < len(labels)  # of the training split
    assert "longer than task.context 12" in done.stdout


def test_training_texts_in_the_test_split_are_an_error_unless_allowed(place):
    lines = (place / "lines.tsv").read_text().splitlines()
    (place / "leak.tsv").write_text("\n".join([lines[0], *lines[100:160]]) + "\n")
    words = ["task=classification", *TASKS["classification"], "data.test_path=leak.tsv", "max_steps=2"]
    refused = train(place, *words, "run_dir=leaky")
    assert refused.returncode == 2 and not (place / "leaky").exists()
    assert "allow_overlap=true" in refused.stderr and "60 examples of the test split" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    allowed = train(place, *words, "run_dir=leaky", "allow_overlap=true", "schedule=constant")
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["task=mlm_nsp", "model=decoder", "~model.token_types"],
            "model: mlm_nsp trains no Decoder; take model=encoder",
        ),
        (["task=translation", "model=encoder"], "translation trains no Encoder; take model=seq2seq or model=decoder"),
        (["model=encoder"], "model: language_modeling trains no Encoder; take model=decoder"),
        (["task=classification", "data=docstrings"], "data: classification reads examples of the kind LabeledText"),
        (["task=translation", "model.cross_position=true", "position=alibi"], "model.cross_position: ALiBi"),
        (["task=mlm_nsp", "position=learned", "position.max_length=64", "task.context=128"], "task.context: 128"),
    ],
)
def test_cells_that_make_no_sense_are_refused_in_one_line(place, words, said):
    done = call("train.py", *words, cwd=place)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1

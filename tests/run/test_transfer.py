"""A model starts from what another run has learnt: what fits is taken, and what was taken is said."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import SMALL, settings, small_task
from tests.programs import call
from transformer_lab.run.transfer import freeze, start_from
from transformer_lab.training.saved import point, write

ROOT = Path(__file__).parent.parent.parent
FILES = {"config.yaml": "", "tokenizer.json": "{}", "facts.json": "{}"}


def saved(task, tmp_path, *words):
    """The folder of a run of these words that has saved these weights."""
    files = FILES | {"config.yaml": yaml.safe_dump(settings(*SMALL, *words))}
    write(tmp_path / "checkpoints" / "step-00000001", task.state_dict(), {}, files)
    point(tmp_path / "checkpoints" / "best", "step-00000001")
    return str(tmp_path)


def started(source, *words, seed=2):
    """A small model that has started from a source."""
    task = small_task(*words, seed=seed)
    start_from(source, task, settings(*SMALL, *words))
    return task


def same(one, other, *prefixes):
    """Whether all weights under the prefixes, of the first and of the second, are equal."""
    theirs = {
        name.removeprefix(prefixes[1]): x for name, x in other.state_dict().items() if name.startswith(prefixes[1])
    }
    ours = {name.removeprefix(prefixes[0]): x for name, x in one.state_dict().items() if name.startswith(prefixes[0])}
    shared = ours.keys() & theirs.keys()
    assert shared
    return all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_a_classifier_starts_from_the_encoder_of_a_masked_model(tmp_path, caplog):
    caplog.set_level("INFO")
    masked, classifier = small_task("task=mlm_nsp", seed=1), small_task("task=classification", seed=2)
    head = classifier.head.out.weight.clone()
    assert not same(classifier, masked, "model.", "model.")
    start_from(saved(masked, tmp_path, "task=mlm_nsp"), classifier, settings(*SMALL, "task=classification"))
    assert same(classifier, masked, "model.", "model.")
    assert torch.equal(classifier.head.out.weight, head)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "model.blocks" in said and "New: head (2)" in said
    assert all(f"{part} (" in said.split("Left there:")[1] for part in ("head", "nsp_head", "transform", "model.types"))


@pytest.mark.parametrize(
    "task, part, side",
    [
        ("mlm_nsp", "model.blocks.", "model.encoder.blocks."),
        ("language_modeling", "model.blocks.", "model.encoder.blocks."),
    ],
)
def test_a_seq2seq_takes_the_blocks_of_a_stack_and_gives_them_back(tmp_path, task, part, side):
    stack = small_task(f"task={task}", seed=1)
    seq2seq = started(saved(stack, tmp_path, f"task={task}"), "task=translation")
    assert same(seq2seq, stack, side, part)
    again = started(saved(seq2seq, tmp_path / "back", "task=translation"), f"task={task}", seed=3)
    assert same(again, stack, part, part)


def test_a_model_of_another_size_is_refused_and_deeper_or_shallower_ones_are_not(tmp_path):
    source = saved(small_task("task=mlm_nsp"), tmp_path, "task=mlm_nsp")
    with pytest.raises(ValueError, match=r"init_from: model.dim=64, but these weights were trained with 32"):
        started(source, "task=classification", "model.dim=64")
    deeper = small_task("task=classification", "model.num_layers=3")
    third = deeper.model.blocks[2].attention.layer.query.weight.clone()
    start_from(source, deeper, settings(*SMALL, "task=classification", "model.num_layers=3"))
    assert torch.equal(deeper.model.blocks[2].attention.layer.query.weight, third)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("norm.eps=1e-12", "norm.eps=1e-12, but these weights were trained with 1e-06"),
        ("position=alibi", "position._target_=Alibi, but these weights were trained with Rotary"),
        ("model.window=7", "model.window=7, but these weights were trained with None"),
    ],
)
def test_an_option_that_contradicts_the_weights_is_told(word, said, tmp_path, caplog):
    source = saved(small_task("task=mlm_nsp"), tmp_path, "task=mlm_nsp")
    started(source, "task=classification")
    assert "but these weights" not in caplog.text
    started(source, "task=classification", word)
    assert f"init_from: {said}" in caplog.text


@pytest.mark.parametrize("cell", [["task=classification"], ["task=translation"], ["task=language_modeling"]], ids=str)
def test_frozen_layers_stay_as_they_are(cell):
    task = small_task(*cell)
    freeze(task, 1)
    stack = getattr(task.model, "encoder", task.model)
    still = {name for name, p in task.named_parameters() if not p.requires_grad}
    first = "model.encoder.blocks.0." if hasattr(task.model, "encoder") else "model.blocks.0."
    assert {name for name, _ in task.named_parameters() if name.startswith(first)} <= still
    assert "model.embedding.weight" in still
    assert all(p.requires_grad for p in stack.blocks[1].parameters())
    with pytest.raises(ValueError, match=r"freeze_layers: 3 .* 0 to 2"):
        freeze(task, 3)


def test_pre_train_then_fine_tune_from_the_command_line(corpus_folder, tmp_path):
    """With the tokenizer of the first run, and the frozen part unchanged at the end of the second."""
    common = [
        "tokenizer.vocab_size=400",
        "model.dim=32",
        "model.num_layers=2",
        "tokens_per_step=512",
        "task.context=64",
        "validate_every_steps=5",
        "cache_dir=cache",
    ]
    rows = "".join(f"{word} {n} {word}\t{word}\n" for n in range(80) for word in ("alpha", "beta"))
    (tmp_path / "table.tsv").write_text("text\tlabel\n" + rows)

    def train(*words):
        return call("train.py", *common, *words, cwd=tmp_path)

    first = train("task=mlm_nsp", "data=text", f"data.path={corpus_folder}", "max_steps=5", "run_dir=first")
    assert first.returncode == 0, first.stderr
    labels = [
        "task=classification",
        "data=labeled",
        "data.path=table.tsv",
        "data.test=0.2",
        "data.validation=0.2",
        "max_steps=40",
        "init_from=first",
        "optimizer.layer_decay=0.8",
        "freeze_layers=1",
    ]
    second = train(*labels, "run_dir=second")
    assert second.returncode == 0, second.stderr
    assert "New: head" in (tmp_path / "second" / "log.txt").read_text()
    assert (tmp_path / "first" / "tokenizer.json").read_text() == (tmp_path / "second" / "tokenizer.json").read_text()
    assert json.loads((tmp_path / "second" / "metrics.json").read_text())["test"]["accuracy"] == 1
    from safetensors.torch import load_file

    one, other = (
        load_file(tmp_path / run / "checkpoints" / "last" / "model.safetensors") for run in ("first", "second")
    )
    assert torch.equal(
        one["model.blocks.0.attention.layer.query.weight"], other["model.blocks.0.attention.layer.query.weight"]
    )
    assert not torch.equal(
        one["model.blocks.1.attention.layer.query.weight"], other["model.blocks.1.attention.layer.query.weight"]
    )
    (tmp_path / "first").rename(tmp_path / "elsewhere")  # a run that goes on does not read it again
    further = train(*labels, "run_dir=second", "resume=auto", "max_steps=42")
    assert further.returncode == 0, further.stderr
    assert "after step 40" in (tmp_path / "second" / "log.txt").read_text()
    (tmp_path / "elsewhere").rename(tmp_path / "first")
    foreign = train(*labels, "run_dir=third", "tokenizer=file", "tokenizer.path=other.json", "~tokenizer.vocab_size")
    assert foreign.returncode == 2 and "tokenizer" in foreign.stderr

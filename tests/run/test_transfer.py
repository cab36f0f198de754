"""A model starts from what another run has learnt: what fits is taken, and what was taken is said."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import small_task
from tests.programs import call
from transformer_lab.run.transfer import freeze, start_from
from transformer_lab.training.saved import point, write

ROOT = Path(__file__).parent.parent.parent
FILES = {"config.yaml": "", "tokenizer.json": "{}", "facts.json": "{}"}


def saved(task, tmp_path):
    """The folder of a run that has saved these weights."""
    write(tmp_path / "checkpoints" / "step-00000001", task.state_dict(), {}, FILES)
    point(tmp_path / "checkpoints" / "best", "step-00000001")
    return str(tmp_path)


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
    start_from(saved(masked, tmp_path), classifier)
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
    stack, seq2seq = small_task(f"task={task}", seed=1), small_task("task=translation", seed=2)
    start_from(saved(stack, tmp_path), seq2seq)
    assert same(seq2seq, stack, side, part)
    again = small_task(f"task={task}", seed=3)
    start_from(saved(seq2seq, tmp_path / "back"), again)
    assert same(again, stack, part, part)


def test_a_model_of_another_size_is_refused_and_deeper_or_shallower_ones_are_not(tmp_path):
    checkpoint = saved(small_task("task=mlm_nsp"), tmp_path)
    with pytest.raises(ValueError, match=r"init_from: .* is 32 there and 64 here"):
        start_from(checkpoint, small_task("task=classification", "model.dim=64"))
    deeper = small_task("task=classification", "model.num_layers=3")
    third = deeper.model.blocks[2].attention.layer.query.weight.clone()
    start_from(checkpoint, deeper)
    assert torch.equal(deeper.model.blocks[2].attention.layer.query.weight, third)


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
    foreign = train(*labels, "run_dir=third", "tokenizer=file", "tokenizer.path=other.json", "~tokenizer.vocab_size")
    assert foreign.returncode == 2 and "tokenizer" in foreign.stderr

"""A user adds parts of a model, a task and their configs in a folder of his own, and edits nothing of ours."""

import importlib
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import FIRST, TINY, batch_for, settings, small_task
from tests.programs import call
from tests.run.test_estimate import check_without_weights
from tests.training.test_training import learns_by_heart
from transformer_lab.composition.build import rehearse
from transformer_lab.layout import Layout
from transformer_lab.models.generation import Sampling, generate
from transformer_lab.run.train import train
from transformer_lab.training.flops import forward_flops
from transformer_lab.training.module import auxiliary_losses
from transformer_lab.training.optimizers import Muon, orthogonal

POSITION = '''
"""A trained penalty on the logarithm of the distance."""
import torch
from torch import nn
from transformer_lab.models.layers.positions.base import Position

class Logarithmic(Position):
    def __init__(self, *, dim: int, num_heads: int, causal: bool, strength: float) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal)
        self.strength = nn.Parameter(torch.full((num_heads,), strength))

    def bias(self, query_positions, key_positions):
        distance = (query_positions[:, None] - key_positions[None, :]).abs()
        return -self.strength[:, None, None] * torch.log1p(distance.float())
'''
TASK = '''
"""Predict the token after the next one."""
from dataclasses import replace
from transformer_lab.tasks.language_modeling import Collate, LanguageModeling

class Ahead(Collate):
    def __call__(self, corpus, pieces, key):
        batch = super().__call__(corpus, pieces, key)
        indices = (batch.layout.positions[1:] > 0).nonzero().squeeze(1)  # where the next but one is of the same text
        return replace(batch, indices=indices, labels=batch.labels[indices + 1], num_targets={"tokens": len(indices)})

class TwoAhead(LanguageModeling):
    def __init__(self, **options):
        super().__init__(**options)
        self.collate = Ahead(self.end)
'''


def test_a_position_and_a_task_from_a_users_folder(tmp_path, corpus_folder):
    files = {
        "mine/__init__.py": "",
        "mine/logarithmic.py": POSITION,
        "mine/two_ahead.py": TASK,
        "settings/position/logarithmic.yaml": "_target_: mine.logarithmic.Logarithmic\nstrength: 0.5\n",
        "settings/task/two_ahead.yaml": "_target_: mine.two_ahead.TwoAhead\n"
        "name: two_ahead\ncontext: 32\npacking: documents\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    common = ["extensions=[mine]"]
    train = [
        "train.py",
        "hydra.searchpath=[file://" + str(tmp_path / "settings") + "]",
        "position=logarithmic",
        "task=two_ahead",
        "data=text",
        f"data.path={corpus_folder}",
        "tokenizer=bytes",
        "model.dim=32",
        "model.num_layers=1",
        "tokens_per_step=512",
        "max_steps=4",
        "validate_every_steps=2",
        "run_dir=run",
        *common,
    ]
    trained = call(*train, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 4 and metrics["test"]["loss"] > 0
    script = ["scripts/evaluate.py", "run=run", *common]
    evaluated = call(*script, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["test"] == metrics["test"]
    stranger = call(*script[:-1], cwd=tmp_path)
    assert stranger.returncode == 2 and "mine" in stranger.stderr and "Traceback" not in stranger.stderr


# The folder that docs/adding.md makes.
PAGE = (Path(__file__).parent.parent / "docs" / "adding.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
EXPERTS = ["feed_forward._target_=mine.experts.Experts", "feed_forward.num_experts=4", "feed_forward.balance=0.01"]
RECURRENCE = ["mixer._target_=mine.recurrence.Recurrence"]
STORED_SENTENCES = Path(__file__).parent / "stored_runs" / "data" / "sentences.tsv"
PARTS = {
    "two": ["feed_forward._target_=mine.parts.Two"],
    **{
        f"no weight, {name}": ["norm._target_=mine.parts.Unweighed", f"residual={name}"]
        for name in ("pre_norm", "post_norm", "sandwich_norm")
    },
    "experts": EXPERTS,
    "recurrence": RECURRENCE,
}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    for name, text in {"mine/__init__.py": "", **BLOCKS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "words", [["feed_forward=two", "norm=unweighed"], ["feed_forward=experts", "mixer=recurrence"]]
)
def test_parts_of_the_page_are_planned_and_trained_from_the_command_line(mine, corpus_folder, words):
    common = [
        "data=text",
        f"data.path={corpus_folder}",
        "tokenizer=bytes",
        "task.context=32",
        "tokens_per_step=512",
        "max_steps=4",
        "validate_every_steps=4",
        "cache_dir=cache",
        "pictures.layers=[]",
        "extensions=[mine]",
        f"hydra.searchpath=[file://{mine}/settings]",
        *words,
    ]
    run = words[0].replace("=", "_")
    planned, trained = (call("train.py", *common, more, cwd=mine) for more in ("plan=true", f"run_dir={run}"))
    assert planned.returncode == trained.returncode == 0, planned.stderr + trained.stderr
    counted = [re.search(r"FLOPs +│ ([\d.]+ million)", done.stdout)[1] for done in (planned, trained)]
    assert counted[0] == counted[1]
    predicted = call("scripts/predict.py", f"run={run}", "prompt=class", "extensions=[mine]", cwd=mine)
    assert predicted.returncode == 0 and predicted.stdout.startswith("class"), predicted.stderr


@pytest.mark.parametrize("part", PARTS)
def test_a_model_with_a_part_of_the_page_learns_by_heart(mine, part):
    learns_by_heart("language_modeling", *PARTS[part])


@pytest.mark.parametrize("part", ["two", "experts", "recurrence"])
def test_what_a_part_costs_is_known_without_its_weights(mine, part):
    check_without_weights("task=language_modeling", "model.dim=64", "model.num_layers=2", *PARTS[part])


def test_experts_are_counted_and_learn_as_matrices_do_and_their_router_does_not(mine):
    plain, task = (small_task("task=language_modeling", *words) for words in (["feed_forward=relu"], EXPERTS))
    batch = batch_for(plain, [30, 20])
    router = 2 * batch.num_tokens * 32 * 4  # two FLOPs for each weight and token
    assert forward_flops(task, batch) - forward_flops(plain, batch) == 2 * router
    optimizer = Muon(model=task, lr=0.01, adamw_lr=0.001)
    moved_so = [p for group in optimizer.param_groups if optimizer.orthogonalises(group) for p in group["params"]]
    layer = task.model.blocks[0].feed_forward.layer
    among = [any(p is weight for p in moved_so) for weight in (layer.up, layer.down, layer.router.weight)]
    assert among == [True, True, False]
    nn.init.normal_(layer.down)
    task.train()(batch).losses["tokens"].backward()
    before, gradients = layer.down.detach().clone(), layer.down.grad.clone()
    optimizer.step()
    expected = torch.cat([orthogonal(gradient[None]) for gradient in gradients])  # of each expert alone
    assert (before - layer.down.detach() - 0.01 * expected).norm() < 0.02 * 0.01 * expected.norm()  # in half precision


def test_experts_have_a_loss_of_their_own_that_is_learned_and_shown(mine):
    task = small_task("task=language_modeling", *EXPERTS).train()
    batch = batch_for(task, [30, 20])
    task(batch)
    (loss,) = auxiliary_losses(task).values()
    assert loss.item() >= 2 * 0.01 * 0.99  # of two layers; least where each expert has its share
    loss.backward()
    assert all(block.feed_forward.layer.router.weight.grad.norm() > 0 for block in task.model.blocks)
    task.eval()(batch)
    assert not any(block.feed_forward.layer.losses for block in task.model.blocks)


def test_no_state_of_a_recurrence_crosses_a_border_and_its_cache_equals_the_full_pass(mine):
    task = small_task("task=language_modeling", *RECURRENCE)
    texts = [torch.randint(FIRST, 200, (length,)).tolist() for length in (9, 1, 14)]
    tokens, layout = torch.tensor(list(itertools.chain(*texts))), Layout.of([len(text) for text in texts])
    with torch.no_grad():
        together = task.model(tokens, layout).split([len(text) for text in texts])
        for text, states in zip(texts, together, strict=True):
            alone = task.model(torch.tensor(text), Layout.of([len(text)]))
            torch.testing.assert_close(states, alone, atol=1e-5, rtol=0)
    greedy = {"limits": [12, 5, 9], "stop": -1, "sampling": Sampling(temperature=0)}
    written = generate(task.model.forward, task.head, texts, task.model.new_cache(3), **greedy)
    for text, more in zip(texts, [one.tokens for one in written], strict=True):
        whole = torch.tensor([*text, *more])
        with torch.no_grad():
            expected = task.head(task.model(whole, Layout.of([len(whole)]))).argmax(1)
        assert more == expected[len(text) - 1 : -1].tolist()


BROKEN = {
    "feed_forward": (
        "class Broken(SubLayer):\n    def __init__(self, *, dim):\n        super().__init__()\n        {}['no']\n",
        "feed_forward: mine.broken.Broken: KeyError: 'no'",
    ),
    "mixer": (
        "class Broken(Mixer):\n    def __init__(self, *, dim):\n        super().__init__()\n",
        "mixer: mine.broken.Broken: TypeError: Broken.__init__() got an unexpected keyword argument",
    ),
    "norm": (
        "class Broken:\n    def __init__(self, *, dim):\n        1 / 0\n",
        "norm: mine.broken.Broken: ZeroDivisionError: division by zero",
    ),
    "optimizer": (
        "class Broken(torch.optim.SGD):\n    def __init__(self, *, model, lr):\n        model.nothing\n",
        "optimizer: mine.broken.Broken: AttributeError: ",
    ),
}


@pytest.mark.parametrize("section", BROKEN)
def test_what_a_class_from_elsewhere_raises_is_one_line_that_names_its_section(mine, monkeypatch, section):
    text, said = BROKEN[section]
    (mine / "mine" / "broken.py").write_text(
        f"import torch\nfrom transformer_lab.models.layers.sublayer import *\n{text}"
    )
    monkeypatch.delitem(sys.modules, "mine.broken", raising=False)
    importlib.invalidate_caches()
    config = settings("task=language_modeling")
    config[section] = {"_target_": "mine.broken.Broken"} | ({"lr": 0.1} if section == "optimizer" else {})
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        rehearse(config)
    assert "\n" not in str(error.value)


def test_a_layer_that_is_no_sub_layer_is_refused(mine):
    (mine / "mine" / "plain.py").write_text(
        "from torch import nn\nclass Plain(nn.Module):\n    def __init__(self, dim): super().__init__()\n"
    )
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=r"^feed_forward\._target_: Plain is not a SubLayer"):
        rehearse(settings("task=language_modeling") | {"feed_forward": {"_target_": "mine.plain.Plain"}})


def test_a_layer_without_a_linear_says_how_it_is_drawn(mine):
    (mine / "mine" / "bare.py").write_text(
        "import torch\nfrom transformer_lab.models.layers.sublayer import SubLayer\n"
        "class Bare(SubLayer):\n    def __init__(self, *, dim):\n        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.ones(dim))\n"
    )
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=r"Bare has no nn\.Linear; it draws its weights in `initialise`"):
        rehearse(settings("task=language_modeling") | {"feed_forward": {"_target_": "mine.bare.Bare"}})


def stored_text(folder):
    return [f"data.path={STORED_SENTENCES.parent}", f"cache_dir={folder}", f"run_dir={folder}/run", "optimizer=adamw"]


OURS = "transformer_lab.tasks.language_modeling.LanguageModeling"


@pytest.mark.parametrize(
    ("task", "slip", "said"),
    [
        (OURS, ("", ""), "model: language_modeling trains no Flat; take model=decoder"),
        ("mine.flat.Guess", ("Flat(Model)", "Flat(nn.Module)"), "model._target_: mine.flat.Flat is not a Model"),
        ("mine.flat.Guess", ("self.position =", "position ="), "model._target_: Flat has no position, as a Model has"),
        (
            "mine.flat.Guess",
            ("new_cache", "cache"),
            "model: mine.flat.Flat: TypeError: Can't instantiate abstract class",
        ),
        ("mine.flat.Guess", ("", ""), ""),
    ],
)
def test_a_model_that_is_no_stack_trains_or_is_refused_in_one_line(mine, monkeypatch, tmp_path, task, slip, said):
    file = mine / "mine" / "flat.py"
    whole = file.read_text()
    file.write_text(whole.replace(*slip))
    monkeypatch.delitem(sys.modules, "mine.flat", raising=False)
    importlib.invalidate_caches()
    config = settings(*TINY, *stored_text(tmp_path), "max_steps=2", "validate_every_steps=2")
    config["task"]["_target_"] = task
    config["model"] = {"_target_": "mine.flat.Flat", "dim": 16}
    try:
        if said:
            with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
                rehearse(config)
        else:
            rehearse(config)
            assert train(**config)["steps"] == 2
    finally:
        file.write_text(whole)


def test_a_fact_that_nobody_has_named_is_told_before_anything_is_built(mine, monkeypatch, tmp_path):
    (mine / "mine" / "learning.py").write_text(
        "from transformer_lab.tasks.language_modeling import LanguageModeling\n"
        "class Learning(LanguageModeling):\n"
        "    @classmethod\n"
        "    def learn(cls, examples, language):\n"
        "        return {'letters': len({x for example in examples for x in example.text})}\n"
    )
    importlib.invalidate_caches()
    found = settings(*TINY, *stored_text(tmp_path))
    found["task"]["_target_"] = "mine.learning.Learning"
    with pytest.raises(ValueError, match=r"^task\._target_: Learning\.learn gives 'letters', which neither"):
        train(**found)


def test_a_task_from_nothing_learns_is_evaluated_on_a_file_and_predicts(mine):
    sentences = [row.partition("\t")[0] for row in STORED_SENTENCES.read_text().splitlines()[1:]]

    def tag(word):
        return "CAP" if word[0].isupper() else "END" if word.endswith(".") else "LOW"

    table = "".join(f"{text}\t{' '.join(map(tag, text.split()))}\n" for text in sentences)
    (mine / "tagged.tsv").write_text(f"text\ttags\n{table}")
    (mine / "mine" / "tagged.py").write_text(  # examples of a kind of their own, from files
        "from dataclasses import dataclass, fields\n"
        "from mine.tagging import Tagging\n"
        "from transformer_lab.data.examples import Pair\n"
        "from transformer_lab.data.sources.parallel import Parallel\n"
        "@dataclass(frozen=True)\nclass Tagged(Pair):\n    pass\n"
        "class TaggedFiles(Parallel):\n"
        "    example_type = Tagged\n"
        "    def read(self):\n"
        "        for split, pair in super().read():\n"
        "            yield split, Tagged(**{x.name: getattr(pair, x.name) for x in fields(pair)})\n"
        "class OwnTagging(Tagging):\n    example_type = Tagged\n"
    )
    words = [
        "task=tagging",
        "task._target_=mine.tagged.OwnTagging",
        "model=encoder",
        "data=parallel",
        "data._target_=mine.tagged.TaggedFiles",
        "data.path=tagged.tsv",
        "data.source=text",
        "data.target=tags",
        "data.validation=0.1",
        "data.test=0.1",
        "tokenizer=characters",
        "model.dim=32",
        "model.num_layers=1",
        "tokens_per_step=512",
        "max_steps=80",
        "cache_dir=cache",
        "pictures.layers=[]",
        f"hydra.searchpath=[file://{mine}/settings]",
        "run_dir=tagged",
    ]
    trained = call("train.py", *words, "extensions=[mine]", cwd=mine)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((mine / "tagged" / "metrics.json").read_text())
    assert metrics["best_by"] == "accuracy" and metrics["test"]["accuracy"] > 0.95  # most words are LOW: 0.7
    evaluated = call("scripts/evaluate.py", "run=tagged", "extensions=[mine]", "file=tagged.tsv", cwd=mine)
    assert evaluated.returncode == 0 and json.loads(evaluated.stdout)["tagged.tsv"]["accuracy"] > 0.95, evaluated.stderr
    predicted = call("scripts/predict.py", "run=tagged", "extensions=[mine]", "prompt=The baker waits here.", cwd=mine)
    assert predicted.stdout == "The/CAP baker/LOW waits/LOW here./END\n", predicted.stderr

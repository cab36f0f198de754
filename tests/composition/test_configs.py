"""The shipped configs: each of them can be built, and each of their keys is explained."""

import importlib
import inspect
import re

import pytest
import torch
import yaml

from tests.conftest import CONFIGS, settings
from transformer_lab.composition.build import build, rehearse

YAMLS = sorted(CONFIGS.rglob("*.yaml"))
OPTIONS = [path.relative_to(CONFIGS) for path in YAMLS if path.parent.parent == CONFIGS]  # not Hydra's own
# What a user must add to an option that cannot stand alone.
NEEDED = {
    "data/text": ["data.path=README.md"],
    "data/hub": ["data.dataset=nobody/nothing"],
    "data/labeled": ["task=classification", "data.path=table.tsv"],
    "data/parallel": ["task=translation", "data.path=table.tsv", "data.source=en", "data.target=de"],
    "data/hub_labeled": ["task=classification", "data.dataset=nobody/nothing"],
    "data/hub_parallel": ["task=translation", "data.dataset=nobody/nothing", "data.source=en", "data.target=de"],
    **{f"data/{name}": ["task=classification"] for name in ("sst2", "ag_news", "imdb", "trec", "docstring_libraries")},
    "data/docstring_lengths": ["task=regression"],
    **{f"data/{name}": ["task=translation"] for name in ("multi30k", "wmt14", "opus_books", "tatoeba", "phrases")},
    "model/encoder": ["task=mlm_nsp"],
    "model/seq2seq": ["task=translation"],
    "tokenizer/file": ["tokenizer.path=README.md"],
    "experiment/tinyshakespeare": ["data.path=README.md"],
    "experiment/speedrun_tinyshakespeare": ["data.path=README.md"],
}


NEEDS_CUDA = {"hardware/gpu", "attention/varlen", "attention/flex"}


@pytest.mark.parametrize("option", [str(path.with_suffix("")) for path in OPTIONS])
def test_every_option_builds(option, monkeypatch, tmp_path):
    for name in ("README.md", "table.tsv"):
        (tmp_path / name).write_text("text\tlabel\ten\tde\n")
    monkeypatch.chdir(tmp_path)
    group, _, name = option.partition("/")
    config = settings(f"{group}={name}", *NEEDED.get(option, []))
    if option in NEEDS_CUDA and not torch.cuda.is_available():
        with pytest.raises(ValueError, match=group):
            rehearse(config)
        return
    rehearse(config)
    build(config["tokenizer"])


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_key_has_a_comment_and_every_option_a_first_line(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.match(r"# [A-Z]", next(line for line in lines if not line.startswith("# @package")))
    for number, line in enumerate(lines, 1):
        key = re.match(r"\s*([a-z]\w*):", line)
        if key and key[1] != "defaults":
            assert "#" in line, f"{path.name}:{number} has no comment"


# Keys that a newcomer looks for, and that stand in a YAML although its constructor has the same default.
LOOKED_FOR = {
    "average/ema": {"decay"},
    "data/phrases": {"source", "target", "seed"},
    "hardware/ddp": {"timeout_minutes"},
    "position/relative": {"num_buckets", "max_distance"},
    "tokenizer/wordpiece": {"lowercase", "strip_accents"},
}


def defaults(target):
    """Of all that a class, and those above it, take."""
    module, _, name = target.rpartition(".")
    found, kind = {}, getattr(importlib.import_module(module), name)
    for one in reversed(kind.__mro__ if inspect.isclass(kind) else [kind]):
        taker = one.__dict__.get("__init__") if inspect.isclass(one) else one
        if inspect.isfunction(taker):
            found |= {x.name: x.default for x in inspect.signature(taker).parameters.values()}
    return found


@pytest.mark.parametrize("option", [str(path.with_suffix("")) for path in OPTIONS])
def test_a_default_stands_in_the_constructor_alone_but_where_it_is_looked_for(option):
    values = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text(encoding="utf-8")) or {}
    repeated = set()
    for section in [values, *values.values()]:
        if isinstance(section, dict) and "_target_" in section:
            known = defaults(section["_target_"])
            alike = (list(x) if isinstance(x := known.get(key, ...), tuple) else x for key in section)
            repeated |= {key for (key, value), default in zip(section.items(), alike, strict=True) if value == default}
    assert repeated == LOOKED_FOR.get(option, set())

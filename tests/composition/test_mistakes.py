"""Sixty mistakes, each beside what was meant: the one is told in a line that names it, the other is taken.

A case is (words of the mistake, what is said, words that are right). A `*` of data files stands for their folder.
"""

import gzip
import os
import time
from pathlib import Path

import pytest
import torch

from transformer_lab.composition.build import rehearse
from transformer_lab.composition.command_line import preflight
from transformer_lab.run.train import train
from transformer_lab.training import hardware

SMALL = ["model.dim=32", "model.num_layers=1", "tokenizer=bytes", "task.context=64", "cache_dir=*/cache"]


def attempt(words: list[str], *, data: bool) -> str | None:
    """What `python train.py` with these words would say before the first step; None where it would begin."""
    try:
        values = preflight(words).run
        rehearse(values)
        if data:
            train(**{**values, "preview": True})
    except SystemExit as stop:
        assert stop.code == 2
        return ""
    except ValueError as error:
        return str(error)
    return None


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """The lines that a mistake is answered with; [] if there is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(hardware, "product_dtype", lambda device: torch.float32)  # of a CPU without bf16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def told(words, *, data=False):
        before = sorted(tmp_path.rglob("*"))
        found = attempt([word.replace("*", str(tmp_path)) for word in words], data=data)
        err = capsys.readouterr().err
        if found is not None:
            left = [path for path in tmp_path.rglob("*") if path not in before and "cache" not in str(path)]
            assert not left, f"a refused run wrote {left}"
        return [] if found is None else [*err.splitlines(), *found.splitlines()]

    return told


CONFIG = {
    "typo": (["modle=decoder"], "did you mean model?", ["model=decoder"]),
    "typo of an option": (["position=rotray"], "did you mean rotary?", ["position=rotary"]),
    "typo with a plus": (["+max_stpes=3"], "did you mean max_steps?", ["+max_steps=3"]),
    "typo in a section": (["model.num_layer=3"], "did you mean model.num_layers?", ["model.num_layers=3"]),
    "typo in a nested section": (["task.contxt=32"], "did you mean task.context?", ["task.context=32"]),
    "key of another section": (["num_layers=3"], "did you mean model.num_layers?", ["model.num_layers=3"]),
    "typo of a flag": (["--multirnu"], "did you mean --multirun?", []),
    "no value": (["max_steps"], "expected key=value", ["max_steps=10"]),
    "word for a number": (["max_steps=many"], "max_steps: expected int", ["max_steps=10"]),
    "number for a word": (["name=5"], "name: expected str", ["name=five"]),
    "fraction for a count": (["model.dim=64.5"], "model.dim: expected int", ["model.dim=64"]),
    "word for a switch": (["hardware.compile=perhaps"], "hardware.compile: expected bool", ["hardware.compile=false"]),
    "list for a number": (["seed=[1,2]"], "seed: expected int", ["seed=1"]),
    "null for a number": (["model.dim=null"], "model.dim: expected int", ["model.dim=64"]),
    "required key": (["data=text"], "data.path: required, not set", ["data=text", "data.path=*/corpus.txt"]),
    "three question marks": (["model.dim=???"], "model.dim: required, not set", ["model.dim=64"]),
    "negative": (["max_steps=-5"], "max_steps: expected more than 0", ["max_steps=5"]),
    "zero": (["tokens_per_step=0"], "tokens_per_step: expected more than 0", ["tokens_per_step=4096"]),
    "not a number": (["gradient_clip=nan"], "gradient_clip: expected a finite number", ["gradient_clip=1.0"]),
    "infinite": (["optimizer.lr=inf"], "optimizer.lr: expected a finite number", ["optimizer.lr=0.01"]),
    "broken interpolation": (["name=${task.nmae}"], "name: Interpolation key", ["name=${task.name}"]),
    "unreadable YAML": (
        ["--config-dir=*", "experiment=broken"],
        "broken.yaml:4",
        ["--config-dir=*", "experiment=sound"],
    ),
    "typo in a file": (
        ["--config-dir=*", "experiment=typo"],
        "did you mean model.dim?",
        ["--config-dir=*", "experiment=sound"],
    ),
    "no end": (["max_steps=null"], "the run would never end", ["max_steps=null", "max_epochs=1"]),
}

COMBINATIONS = {
    "MLM with a decoder": (
        ["task=mlm_nsp", "model=decoder"],
        "mlm_nsp trains no Decoder; take model=encoder",
        ["task=mlm_nsp", "model=encoder"],
    ),
    "causal LM with an encoder": (["model=encoder"], "trains no Encoder; take model=decoder", ["model=decoder"]),
    "translation with an encoder": (
        ["task=translation", "model=encoder"],
        "trains no Encoder; take model=seq2seq",
        ["task=translation", "model=decoder"],
    ),
    "NSP on pairs": (
        ["task=mlm_nsp", "data=phrases"],
        "reads examples of the kind Document",
        ["task=mlm_nsp", "data=docstrings"],
    ),
    "width by heads": (
        ["model.dim=100", "model.num_heads=3"],
        "not divisible by model.num_heads",
        ["model.dim=102", "model.num_heads=3"],
    ),
    "no head width": (["model.head_dim=0"], "model.head_dim: 0 is too small", ["model.head_dim=6"]),
    "first global layer": (
        ["model.window=4", "model.global_every=2", "model.global_first=2"],
        "model.global_first: layer 2 is not among the first",
        ["model.window=4", "model.global_every=2", "model.global_first=1"],
    ),
    "heads by key heads": (["model.num_kv_heads=3"], "does not divide model.num_heads", ["model.num_kv_heads=2"]),
    "odd head width with rotary": (
        ["model.dim=60", "model.num_heads=4"],
        "rotary",
        ["model.dim=64", "model.num_heads=4"],
    ),
    "odd width with sinusoids": (
        ["position=sinusoidal", "model.dim=63", "model.num_heads=3"],
        "even width",
        ["position=sinusoidal", "model.dim=66", "model.num_heads=3"],
    ),
    "context beyond the table": (
        ["position=learned", "position.max_length=64"],
        "position.max_length=256",
        ["position=learned", "position.max_length=256"],
    ),
    "context beyond a step": (
        ["tokens_per_step=100"],
        "tokens_per_step: 100 is less than one sequence",
        ["tokens_per_step=256"],
    ),
    "bf16 without bf16": (["hardware=cpu", "hardware.precision=bf16"], "hardware.precision: bf16", ["hardware=cpu"]),
    "no GPU": (["hardware=gpu"], "hardware.accelerator: gpu asked for", ["hardware=cpu"]),
    "warm-up beyond the run": (
        ["schedule=cosine", "schedule.warmup_steps=500"],
        "longer than the run of 400",
        ["schedule=cosine", "schedule.warmup_steps=50"],
    ),
    "a schedule without an end": (
        ["max_steps=null", "max_minutes=1"],
        "schedule=constant",
        ["max_steps=null", "max_minutes=1", "schedule=constant"],
    ),
    "the first token of a decoder": (
        ["task=classification", "model=decoder", "task.pooling=first"],
        "task.pooling",
        ["task=classification", "model=decoder", "task.pooling=mean"],
    ),
    "both languages the same": (
        ["task=translation", "data.target=en"],
        "nothing to translate",
        ["task=translation", "data.target=fr"],
    ),
}

ROWS = [f"{word} of the {number}\tl{number % 2}" for number in range(60) for word in ("one", "two")]
TABLE = "text\tlabel\n" + "".join(f"{row}\n" for row in ROWS)
LABELED = ["task=classification", "data=labeled", "data.validation=0.2", "data.test=0"]
TEXT = ["data=text", "data.validation=0.2", "data.test=0"]
PAIRS = ["task=translation", "data=parallel", "data.source=en", "data.target=de", "data.validation=0.2", "data.test=0"]


def table(text):
    return [*LABELED, "data.path=*/rows.tsv"], {"rows.tsv": text}


def prose(content):
    return [*TEXT, "data.path=*/text.txt"], {"text.txt": content}


def sides(source, target):
    return [*PAIRS, "data.path=*"], {"train.en": source, "train.de": target}


LINES = "".join(f"line {number} of it\n" for number in range(300))
GOOD_TABLE, GOOD_TEXT, GOOD_PAIRS = table(TABLE), prose(LINES), sides(LINES, LINES.replace("line", "Zeile"))
JSON = "".join(f'{{"text": "row {number}", "label": {number % 2}}}\n' for number in range(50))
CSV = "text,label\n" + "".join(f"row {number},{number % 2}\n" for number in range(50))
AS_JSON, AS_CSV = [*LABELED, "data.path=*/rows.jsonl"], [*LABELED, "data.path=*/rows.csv"]

# What is wrong with the data: (words, files), what is said, and (words, files) that are right.
DATA = {
    "no such path": (([*TEXT, "data.path=*/nowhere.txt"], {}), "nowhere.txt", GOOD_TEXT),
    "no such folder": (([*TEXT, "data.path=*/nowhere/"], {}), "nowhere", GOOD_TEXT),
    "empty file": (prose(""), "no text in it", GOOD_TEXT),
    "only space": (table("text\tlabel\n" + " \t1\n" * 50), "no text in it", GOOD_TABLE),
    "no such column": (
        ([*LABELED, "data.path=*/rows.tsv", "data.text_column=review"], {"rows.tsv": TABLE}),
        "data.text_column=review",
        GOOD_TABLE,
    ),
    "misspelt column": (
        ([*LABELED, "data.path=*/rows.tsv", "data.label_column=lable"], {"rows.tsv": TABLE}),
        "did you mean label?",
        GOOD_TABLE,
    ),
    "no label in a row": (table(TABLE + "a text\t\n"), "rows.tsv:122", GOOD_TABLE),
    "a single class": (table(TABLE.replace("l1", "l0")), "all of the training split are of the class l0", GOOD_TABLE),
    "another type of label": (
        (AS_JSON, {"rows.jsonl": JSON + '{"text": "a", "label": {"b": 1}}\n'}),
        "rows.jsonl:51",
        (AS_JSON, {"rows.jsonl": JSON}),
    ),
    "not UTF-8": (prose(LINES.encode() + "café\n".encode("latin-1")), "text.txt:301: not UTF-8", GOOD_TEXT),
    "a NUL": (prose(LINES + "a\0b\n"), "text.txt:301: a NUL", GOOD_TEXT),
    "a broken line of JSON": (
        (AS_JSON, {"rows.jsonl": JSON + '{"text": "a", \n'}),
        "rows.jsonl:51",
        (AS_JSON, {"rows.jsonl": JSON}),
    ),
    "a ragged table": ((AS_CSV, {"rows.csv": CSV + "a,1,2\n"}), "rows.csv:52", (AS_CSV, {"rows.csv": CSV})),
    "a truncated archive": (
        ([*TEXT, "data.path=*/text.txt.gz"], {"text.txt.gz": gzip.compress(LINES.encode())[:-20]}),
        "text.txt.gz: cannot be read",
        ([*TEXT, "data.path=*/text.txt.gz"], {"text.txt.gz": gzip.compress(LINES.encode())}),
    ),
    "no parquet": (
        ([*LABELED, "data.path=*/rows.parquet"], {"rows.parquet": TABLE}),
        "not readable as parquet",
        GOOD_TABLE,
    ),
    "sides of different lengths": (sides(LINES, LINES + "more\n"), "300 lines and", GOOD_PAIRS),
    "one side only": (([*PAIRS, "data.path=*"], {"train.en": LINES}), "train.de", GOOD_PAIRS),
    "training rows in the test split": (
        ([*LABELED[:-1], "data.path=*"], {"train.tsv": TABLE, "test.tsv": TABLE}),
        "allow_overlap=true",
        ([*LABELED[:-1], "data.path=*"], {"train.tsv": TABLE, "test.tsv": TABLE.replace(" of ", " by ")}),
    ),
    # Harmless: taken as they are meant.
    "BOM, CRLF and U+2028": (
        table("\ufeff" + TABLE.replace("\n", "\r\n").replace("one", "o\u2028ne")),
        None,
        GOOD_TABLE,
    ),
    "a line of 10 MB, and all rows twice": (prose(LINES * 2 + "x" * 10_000_000 + "\n"), None, GOOD_TEXT),
}


def write(folder: Path, files: dict) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def in_one_line(lines, said):
    assert len(lines) == 1 and said in lines[0], lines


@pytest.fixture
def files(tmp_path):
    write(tmp_path, {"corpus.txt": LINES})
    (tmp_path / "experiment").mkdir()
    head = "# @package _global_\nmodel:\n  "
    write(
        tmp_path / "experiment",
        {"broken.yaml": f"{head}dim: [64\n", "typo.yaml": f"{head}dmi: 64\n", "sound.yaml": f"{head}dim: 64\n"},
    )


@pytest.mark.parametrize("case", [*CONFIG, *COMBINATIONS])
def test_a_mistake_in_the_config(told, files, case):
    wrong, said, right = {**CONFIG, **COMBINATIONS}[case]
    began = time.process_time()
    in_one_line(told(wrong), said)
    assert time.process_time() - began < 3
    assert told(right) == []


@pytest.mark.parametrize("case", DATA)
def test_a_mistake_in_the_data(told, tmp_path, case):
    (words, content), said, (right, sound) = DATA[case]
    write(tmp_path, content)
    if said is None:
        assert told([*words, *SMALL], data=True) == []
    else:
        in_one_line(told([*words, *SMALL], data=True), said)
    for name in content:
        os.remove(tmp_path / name)
    write(tmp_path, sound)
    assert told([*right, *SMALL], data=True) == []


def test_a_metric_that_nobody_logs_is_no_metric_to_watch(told, tmp_path):
    write(tmp_path, {"text.txt": LINES})
    stop = ["callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"]
    words, _ = GOOD_TEXT
    wrong = told([*words, *SMALL, *stop, "callbacks.stop.monitor=val/los"], data=True)
    in_one_line(wrong, "callbacks.stop.monitor=val/los: no such metric; did you mean val/loss?")
    assert told([*words, *SMALL, *stop, "callbacks.stop.monitor=val/loss"], data=True) == []


def test_there_are_sixty_two():
    assert (len(CONFIG), len(COMBINATIONS), len(DATA)) == (24, 18, 20)

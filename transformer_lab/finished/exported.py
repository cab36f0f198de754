"""A finished run as a folder for others, which is there only once what reads it has been seen to compute the same."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from transformer_lab.data.sources.base import no_such_name
from transformer_lab.data.store import prepared
from transformer_lab.finished import to_ctranslate2, to_onnx
from transformer_lab.finished.loaded_run import LoadedRun
from transformer_lab.folders import remove
from transformer_lab.interop import writing
from transformer_lab.interop.published import CONFIG
from transformer_lab.interop.writing import WRITES, around, held
from transformer_lab.layout import Layout
from transformer_lab.models.generation import Beam
from transformer_lab.scores import METRICS
from transformer_lab.tasks.classification import Classification
from transformer_lab.tasks.language_modeling import LanguageModeling
from transformer_lab.tasks.mlm_nsp import MLMNSP
from transformer_lab.tasks.translation import Translation

# What reads each format, and what writing one takes.
READERS = {"huggingface": "transformers", "ctranslate2": "ctranslate2", "onnx": "onnxruntime"}
WRITERS = {"huggingface": (), "ctranslate2": ("ctranslate2",), "onnx": ("onnx", "onnxscript")}
NO_GGUF = (
    "format: gguf is not written: it keeps by its name how a text is parted into words, and knows none for how it is "
    "here; huggingface, ctranslate2 and onnx are"
)
MOST = 1e-4  # by how much logits may differ, as a share of the largest: four times what single precision does
TEXTS = 8  # of the validation split that are compared
LENGTH = 128  # tokens of each
NEW = 20  # tokens that are written after each of three prompts
AWKWARD = ("a", "  two  spaces ", "tab\tand\nline", "déjà vu 東京 ½", "don't stop", "1234567", "…", "a" * 40)  # texts


@dataclass(frozen=True)
class Compared:
    """How an exported folder compares: the largest difference of logits, and of what size these are."""

    reader: str  # with its version
    difference: float
    size: float
    ids: list[tuple[str, list[int], list[int]]]  # of texts: ours, theirs
    written: list[tuple[str, str, str]]  # after prompts: ours, theirs

    @property
    def wrong(self) -> str | None:
        if not self.difference <= MOST * self.size:
            return f"logits differ by up to {self.difference:.2g} of {self.size:.3g}"
        other = next((text for text, ours, theirs in self.ids if ours != theirs), None)
        return None if other is None else f"{other!r} has other tokens there"

    def lines(self) -> Iterator[str]:
        yield f"{self.reader}: logits differ by at most {self.difference:.2g} of {self.size:.3g}"
        for text, here, there in self.ids:
            yield f"  {text!r:.30}: {_short(here)} here, {'the same' if here == there else _short(there)} there"
        for prompt, ours, theirs in self.written:
            yield f"  {prompt!r:.40} ▸ {ours!r:.60} here, {'the same' if ours == theirs else repr(theirs)} there"


def export(run: LoadedRun, folder: str, to: str, format: str = "huggingface") -> Iterator[str]:
    """Write the folder `to` and say, line by line, what was found. Raises ValueError where a format does not hold the
    model, the folder is not empty, or what reads it computes something else: then nothing of it stays."""
    if format == "gguf":
        raise ValueError(NO_GGUF)
    if format not in READERS:
        raise no_such_name("format", format, READERS, "no such format")
    place = Path(to)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ValueError(f"to: {to} is not empty; name a new folder")
    if missing := [name for name in WRITERS[format] if importlib.util.find_spec(name) is None]:
        raise ValueError(f"format: {format} needs more than is installed: pip install {' '.join(missing)}")
    beside, reader = place.with_name(f".{place.name}.partial"), READERS[format]
    remove(beside)
    try:
        name = _write(beside, run, format)
        (beside / "README.md").write_text(_card(run, folder, name, format), encoding="utf-8")
        if importlib.util.find_spec(reader) is None:
            yield f"not compared: {reader} is not installed (pip install {reader})"
        else:
            compared = _compared(run, beside, reader, name)
            yield from compared.lines()
            if compared.wrong:
                raise ValueError(f"to: nothing is written, as {reader} makes another model of it: {compared.wrong}")
        if place.exists():
            place.rmdir()
        beside.rename(place)
    except OSError as error:
        raise ValueError(f"to: {to} cannot be written: {error.strerror or error}") from error
    finally:
        remove(beside)
    yield f"written: {place} ({name})"


def _write(folder: Path, run: LoadedRun, format: str) -> str:
    """All but the card; what it is then, in a word."""
    task, kind = run.task, run.config["task"]["_target_"]
    if format == "huggingface":
        found = held(run.config, task)
        writing.write(folder, found, task)
        return found.name
    (to_ctranslate2 if format == "ctranslate2" else to_onnx).write(folder, task)
    writing.write_tokenizer(folder, task, kind)
    if labels := writing.labels_of(task, kind):
        (folder / CONFIG).write_text(json.dumps(labels, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return format


@torch.inference_mode()
def _compared(run: LoadedRun, folder: Path, reader: str, name: str) -> Compared:
    task, kind = run.task, run.config["task"]["_target_"]
    sequences = _sequences(run, kind)
    before, after = around(task, kind)
    texts = [ids[len(before) : len(ids) - len(after)] for ids, _ in sequences[:3]]
    prompts = [task.tokenizer.decode(ids[:8]) for ids in texts] if kind in WRITES else []
    new = max(1, min(NEW, task.context // 2))
    asked = {
        "class": name,
        "ids": [ids for ids, _ in sequences],
        "targets": [target or None for _, target in sequences],
        "texts": AWKWARD,
        "prompts": prompts,
        "max_new_tokens": new,
    }
    with TemporaryDirectory() as scratch:
        question, answer = Path(scratch, "asked.json"), Path(scratch, "answer.safetensors")
        question.write_text(json.dumps(asked), encoding="utf-8")
        script = Path(__file__).with_name(f"read_back_{reader}.py")
        words = [sys.executable, str(script), str(folder.absolute()), str(question), str(answer)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=scratch)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ValueError(f"to: {reader} cannot read what would be written: {said}")
        with safe_open(answer, framework="pt") as opened:
            theirs = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            said = json.loads(opened.metadata()["said"])
    every = {f"{name}.{i}": x for i, one in enumerate(sequences) for name, x in _logits(task, *one).items()}
    ours = {name: every[name.removesuffix(".side_by_side")] for name in theirs}
    assert len(theirs) >= len(sequences)
    tokens = [[*before, *ids, *after] for ids in task.tokenizer.reading.encode_batch(list(AWKWARD))]
    written: list[str] = []
    if not said["written"]:
        prompts = []
    elif isinstance(task, LanguageModeling):
        written = task.complete(prompts, max_new_tokens=new, temperature=0.0)
    elif isinstance(task, Translation):
        task.beam = Beam()
        sources = [[*ids, task.end] for ids in task.tokenizer.reading.encode_batch(prompts)]
        written = [task.tokenizer.decode(one.tokens) for one in task.search(sources, [new] * len(sources))]
    return Compared(
        reader=f"{reader} {said['version']}",
        difference=float(torch.stack([(ours[name] - x).abs().max() for name, x in theirs.items()]).max()),  # keeps NaN
        size=float(torch.stack([x.abs().max() for x in ours.values()]).max()),
        ids=list(zip(AWKWARD, tokens, said["ids"], strict=True)),
        written=list(zip(prompts, written, said["written"], strict=True)),
    )


def _sequences(run: LoadedRun, kind: str) -> list[tuple[list[int], list[int]]]:
    """Tokens as the model reads them, and of a translation those that it writes: of texts of the validation split, if
    its data are still prepared."""
    task = run.task
    store = prepared(run.text, task.tokenizer, task.encoding, cache_dir=Path(run.config["cache_dir"]))
    texts: list[list[list[int]]]
    if store and "validation" in store.splits:
        corpus = store.splits["validation"]
        columns = [corpus[name] for name in corpus.tokens_in]
        texts = [[column[row][:LENGTH].tolist() for row in range(min(TEXTS, len(column)))] for column in columns]
    else:
        texts = [task.tokenizer.encode_batch(list(AWKWARD))] * 2
    room, (before, after) = task.context - 2, around(task, kind)
    begin = [task.begin] if isinstance(task, Translation) else []
    pairs = ((one, other) for one, other in zip(texts[0], texts[-1], strict=True) if one)
    return [([*before, *one[:room], *after], [*begin, *other[:room]] if begin else []) for one, other in pairs]


def _logits(task: Any, ids: list[int], target: list[int]) -> dict[str, Tensor]:
    """By the names that transformers has for them."""
    tokens, layout = torch.tensor(ids), Layout.of([len(ids)])
    if isinstance(task, Translation):
        logits = task.head(task.model(tokens, layout, torch.tensor(target), Layout.of([len(target)])))
        next_ones = torch.tensor([*target[1:], task.end])
        return {"logits": logits, "log_probs": logits.log_softmax(-1).gather(1, next_ones[:, None])[:, 0]}
    if isinstance(task, LanguageModeling):
        return {"logits": task.head(task.model(tokens, layout))}
    hidden = task.model(tokens, layout)
    if isinstance(task, Classification):
        rows = task.head.indices(layout)
        return {"logits": task.head(hidden if rows is None else hidden[rows], layout)[0]}
    assert isinstance(task, MLMNSP)
    words = task.head(task.transform(hidden))
    if task.nsp_head is None:
        return {"logits": words}
    verdict = task.nsp_head(hidden[task.nsp_head.indices(layout)], layout)
    return {"prediction_logits": words, "seq_relationship_logits": verdict[0]}


def _short(ids: list[int]) -> str:
    return f"{str(ids[:8])[:-1]}, …]" if len(ids) > 8 else str(ids)


def _card(run: LoadedRun, folder: str, name: str, format: str) -> str:
    """What a person reads first: how the model scores, what it is made of, how it is loaded."""
    metrics = Path(folder) / METRICS
    scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    rows = [
        f"| {split} {name} | {value:.4g} |"
        for split in ("validation", "test")
        for name, value in scores.get(split, {}).items()
    ]
    table = ["| score | |", "| --- | --- |", *rows, ""] if rows else []
    made = {key: run.config[key] for key in ("task", "model", "position", "norm", "feed_forward", "residual")}
    of = f"`{name}` of transformers" if format == "huggingface" else f"A model for {READERS[format]}"
    return "\n".join(
        [
            *(["---", "library_name: transformers", "---", ""] if format == "huggingface" else []),
            f"# {run.config['name']}",
            "",
            f"{of}, trained with transformer_lab.",
            "",
            *table,
            "```python",
            *_loading(run, name, format),
            "```",
            "",
            "What it is made of:",
            "",
            "```yaml",
            yaml.safe_dump(made, sort_keys=False).rstrip(),
            "```",
            "",
        ]
    )


def _loading(run: LoadedRun, name: str, format: str) -> list[str]:
    """The lines that load a folder."""
    read = 'tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")'
    if format == "onnx":
        given = '"input_ids": ids, "attention_mask": np.ones_like(ids)'
        begun = f"np.array([[{getattr(run.task, 'begin', 0)}]])"
        more = {"token_type_ids": "np.zeros_like(ids)", "decoder_input_ids": begun}
        given += "".join(f', "{name}": {more[name]}' for name in to_onnx.Reader(run.task).further)
        return [
            "import numpy as np",
            "from onnxruntime import InferenceSession",
            "from tokenizers import Tokenizer",
            "",
            'session = InferenceSession("FOLDER/model.onnx")',
            read,
            "ids = np.array([tokenizer.encode(TEXT).ids])  # shorter texts of a batch are filled up behind",
            f"session.run(None, {{{given}}})",
        ]
    if format == "ctranslate2":
        kind, call = "Generator", "generate_batch([tokens], max_length=50, sampling_topk=1)"
        if isinstance(run.task, Translation):
            kind, call = "Translator", "translate_batch([tokens])"
        return [
            "import ctranslate2",
            "from tokenizers import Tokenizer",
            "",
            f'model = ctranslate2.{kind}("FOLDER")',
            read,
            "tokens = tokenizer.encode(TEXT).tokens",
            f"model.{call}",
        ]
    return [
        f"from transformers import AutoTokenizer, {name}",
        "",
        f'model = {name}.from_pretrained("FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    ]

"""A folder with a published model: what its config.json says, in our terms. Nothing heavy is imported for it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lab.interop import llama
from transformer_lab.interop.bert import BERT
from transformer_lab.interop.families import Family, Head
from transformer_lab.interop.gemma3 import GEMMA3
from transformer_lab.interop.gpt2 import GPT2
from transformer_lab.interop.marian import MARIAN
from transformer_lab.interop.modernbert import MODERNBERT
from transformer_lab.interop.mpt import MPT
from transformer_lab.interop.options import Theirs
from transformer_lab.interop.roberta import ROBERTA, XLM_ROBERTA
from transformer_lab.interop.t5 import T5

CONFIG = "config.json"
MODULES = "modules.json"  # in a folder of sentence-transformers
POOLING = {"pooling_mode_cls_token": "first", "pooling_mode_mean_tokens": "mean"}
LARGEST = 10_000_000  # bytes of a JSON file that is no weights and no tokenizer
FAMILIES = (BERT, ROBERTA, XLM_ROBERTA, MODERNBERT, GPT2, *llama.FAMILIES, GEMMA3, MPT, T5, MARIAN)


@dataclass(frozen=True)
class Published:
    """What a folder's config.json says: `keys` are ours, dotted, with their values."""

    folder: Path
    values: dict[str, Any]
    architecture: str  # the class that it was saved as; where there is none, the body
    family: Family
    head: Head
    keys: dict[str, Any]

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The keys as a run's config has them."""
        found: dict[str, dict[str, Any]] = {}
        for key, value in self.keys.items():
            section, _, name = key.partition(".")
            found.setdefault(section, {})[name] = value
        return found

    @property
    def labels(self) -> list[str]:
        """The names of a classifier's classes, in their order."""
        named = self.values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(self.values.get("num_labels", 2))}
        try:
            return [str(named[str(number)]) for number in range(len(named))]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.folder / CONFIG}: id2label does not count from 0") from error


def is_published(folder: str | Path) -> bool:
    """Whether a folder holds a published model, and not a run."""
    return (
        any((Path(folder) / name).is_file() for name in (CONFIG, MODULES))
        and not (Path(folder) / "checkpoints").is_dir()
    )


def published(folder: str | Path) -> Published:
    """Raises ValueError, in one line, for a model or an option of one that nothing here is like."""
    root, pooling = _modules(Path(folder))
    place = root / CONFIG
    values = read_json(place)
    named = values.get("architectures") or [None]
    architecture = named[0] if isinstance(named, list) else named
    if architecture is not None and not str(architecture).isidentifier():
        raise ValueError(f"{place}: architectures: {architecture!r:.60} is no name of a class")
    family = next((x for x in FAMILIES if x.model_type == values.get("model_type")), None)
    if family is None and "model_type" not in values:  # old files have none
        family = next((x for x in FAMILIES if architecture in [head.architecture for head in x.heads]), None)
    if family is None:
        known = ", ".join(x.model_type for x in FAMILIES)
        raise ValueError(f"{place}: model_type: {values.get('model_type')} is not known here; these are: {known}")
    head = family.head(architecture)
    try:
        keys = family.inward(Theirs(values, str(place)), head)
    except (TypeError, AttributeError, KeyError, OverflowError) as error:  # a value of another type
        raise ValueError(f"{place}: not as such a file is: {' '.join(str(error).split())}") from error
    keys |= {} if head.task else pooling
    return Published(root, values, architecture or head.architecture, family, head, keys)


def _modules(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where the transformer lies in a folder of sentence-transformers, and how one vector is made of a text there."""
    if not (folder / MODULES).is_file():
        return folder, {}
    places: dict[str, Path] = {}
    for module in read_json(folder / MODULES, list):
        kind, path = (str(module.get(key, "")) if isinstance(module, dict) else "" for key in ("type", "path"))
        if path and Path(path).name != path:
            raise ValueError(f"{folder / MODULES}: {path!r} leads out of the folder")
        places.setdefault(kind.rpartition(".")[2], folder / path)
    how: dict[str, Any] = {}
    if "Pooling" in places and (places["Pooling"] / CONFIG).is_file():
        how = read_json(places["Pooling"] / CONFIG)
    named = [ours for theirs, ours in POOLING.items() if how.get(theirs)]
    return places.get("Transformer", folder), {"task.pooling": named[0]} if len(named) == 1 else {}


def read_json(file: Path, kind: type = dict) -> Any:
    """An object of a JSON file that a stranger may have made, or a list. Raises ValueError, which names the file."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file}: more than {LARGEST:,} bytes are no {file.name}")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file}: not JSON: {' '.join(str(error).split()) or 'nested too deeply'}") from error
    if not isinstance(found, kind):
        raise ValueError(f"{file}: not a JSON {'object' if kind is dict else 'list'}")
    return found

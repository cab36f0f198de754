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
    return (Path(folder) / CONFIG).is_file() and not (Path(folder) / "checkpoints").is_dir()


def published(folder: str | Path) -> Published:
    """Raises ValueError, in one line, for a model or an option of one that nothing here is like."""
    place = Path(folder) / CONFIG
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
    keys = family.inward(Theirs(values, str(place)), head)
    return Published(Path(folder), values, architecture or head.architecture, family, head, keys)


def read_json(file: Path) -> dict[str, Any]:
    """An object of a JSON file that a stranger may have made. Raises ValueError, which names the file."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file}: more than {LARGEST:,} bytes are no {file.name}")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file}: not JSON: {' '.join(str(error).split()) or 'nested too deeply'}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: not a JSON object")
    return found

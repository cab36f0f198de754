"""A model of the Hugging Face hub, by its name: pinned to a commit, and nothing but data is fetched of it."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformer_lab.data.sources.hub_access import reachable
from transformer_lab.interop.published import CONFIG

NAME = re.compile(r"([\w-][\w.-]*)/[\w-][\w.-]*(@[0-9a-f]{40})?", re.ASCII)  # owner/model, and a commit
# What may be fetched: never a program, and nothing that is pickled.
DATA = (
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.spm",
    "model.safetensors.index.json",
    "*.safetensors",
)


def is_name(source: str) -> bool:
    """Whether this is a name on the hub, and not the way to a folder, be it there or not: as in outputs/, of runs."""
    found = NAME.fullmatch(source)
    return found is not None and found[1] != "outputs" and not Path(source).exists() and not Path(found[1]).exists()


@cache
def pinned(name: str, key: str) -> str:
    """The name with the commit that it means today, `owner/model@0123…`; out of reach, the one that was fetched last.

    Raises ValueError, which begins with the `key`, where there is none.
    """
    return name if "@" in name else f"{name}@{_fetch(name, key, None, whole=False).name}"


@cache
def folder_of(source: str, key: str, *, whole: bool = True) -> str:
    """The folder that a run or a published model lies in; of a name on the hub, where it has been fetched to: all that
    it is made of, or its config.json alone."""
    if not is_name(source):
        return source
    name, _, commit = pinned(source, key).partition("@")
    return str(_fetch(name, key, commit, whole=whole))


@cache
def _reachable() -> bool:
    return reachable()  # which may wait for seconds


def _fetch(name: str, key: str, commit: str | None, *, whole: bool) -> Path:
    if find_spec("huggingface_hub") is None:
        raise ValueError(f"{key}: there is no folder {name}; a model of the hub needs pip install huggingface_hub")
    from huggingface_hub import hf_hub_download, snapshot_download

    how: Any = {"revision": commit, "local_files_only": not _reachable()}
    try:
        if whole:
            return Path(snapshot_download(name, allow_patterns=list(DATA), ignore_patterns=["*/*"], **how))
        return Path(hf_hub_download(name, CONFIG, **how)).parent
    except Exception as error:
        raise _told(name, key, error) from error


def _told(name: str, key: str, error: Exception) -> ValueError:
    """In one line; the library says in several what there may be wrong."""
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        why = "no such folder here, and the hub is out of reach (offline?), from which it has not been fetched before"
    elif isinstance(error, RepositoryNotFoundError):
        why = "neither a folder here nor a model of the hub that may be read (HF_TOKEN has the right to a private one)"
    else:
        why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return ValueError(f"{key}: {name}: {why}")

"""Data sets of the Hugging Face hub, through the `datasets` library: kept in its cache, memory-mapped."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from typing import Any

from transformer_lab.data.examples import Document, Split
from transformer_lab.data.sources.base import Cut, Source
from transformer_lab.data.sources.text import Text, filled, texts

PATIENCE = 3.0  # seconds for the hub to answer; `datasets` alone would try for 24 and look hung
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


class Hub(Source):
    """The set's own splits; those it lacks are cut from its training split. `path` reads a local copy instead."""

    example_type = Document

    def __init__(
        self,
        *,
        dataset: str,
        config: str | None = None,
        column: str = "text",
        path: str | None = None,
        validation: float = 0.05,
        test: float = 0.05,
    ) -> None:
        self.dataset, self.config, self.column = dataset, config, column
        self.cut = Cut(validation=validation, test=test)
        self.local = Text(path=path, column=column, validation=validation, test=test) if path else None
        self._loaded: dict[Split, Any] = {}

    def signature(self) -> dict[str, Any]:
        if self.local:
            return self.local.signature()
        return {
            "source": "hub",
            "dataset": self.dataset,
            "config": self.config,
            "column": self.column,
            "validation": self.cut.validation,
            "test": self.cut.test,
            "datasets": metadata.version("datasets"),
        }

    def read(self) -> Iterator[tuple[Split, Document]]:
        if self.local:
            yield from self.local.read()
            return
        splits = self._loaded = self._loaded or self._load()
        cut = Cut(
            validation=0 if "validation" in splits else self.cut.validation,
            test=0 if "test" in splits else self.cut.test,
        )
        yield from cut(partial(self._documents, "train"))
        for split in splits:
            if split != "train":
                yield from ((split, document) for document in self._documents(split))

    def _documents(self, split: Split) -> Iterator[Document]:
        rows = self._loaded[split]
        if self.column in rows.column_names:
            rows = rows.select_columns([self.column])  # the others, pictures perhaps, are not decoded
        return filled(texts(rows, self.column, f"split {split}"), f"data.dataset={self.dataset}, split {split}")

    def _load(self) -> dict[Split, Any]:
        import datasets  # here, for it costs seconds

        offline = datasets.config.HF_HUB_OFFLINE
        if not _reachable():
            if not _cached(self.dataset):
                raise ValueError(
                    f"data.dataset={self.dataset}: the hub is out of reach (offline?) and the set is not in the cache; "
                    "give a local copy with data.path=FILE_OR_FOLDER"
                )
            datasets.config.HF_HUB_OFFLINE = True  # read the cache at once instead of trying the hub for 24 s
        try:
            there = datasets.load_dataset(self.dataset, self.config)
        except Exception as error:  # a wrong name, a missing config, a gated set: the library's words, in one line
            raise ValueError(f"data.dataset={self.dataset}: {' '.join(str(error).split())}") from error
        finally:
            datasets.config.HF_HUB_OFFLINE = offline
        found = {split: next((name for name in names if name in there), None) for split, names in NAMES.items()}
        if not found["train"]:
            raise ValueError(f"data.dataset={self.dataset}: no split named train; there are: {', '.join(there)}")
        return {split: there[name] for split, name in found.items() if name}


def _reachable() -> bool:
    from huggingface_hub import constants

    answers: list[bool] = []
    # A thread of its own, for looking up a host's name knows no time limit.
    thread = threading.Thread(target=lambda: answers.append(_answers()), daemon=True)
    if not constants.HF_HUB_OFFLINE:
        thread.start()
        thread.join(PATIENCE)
    return any(answers)


def _answers() -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # whatever went wrong, nobody answered
        return False
    return True


def _cached(dataset: str) -> bool:
    """Whether `datasets` holds a prepared copy, where it will look for one itself."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = dataset.rpartition("/")
    folder = "___".join(filter(None, (owner, camelcase_to_snakecase(name))))
    return os.path.isdir(os.path.join(os.path.expanduser(datasets.config.HF_DATASETS_CACHE), folder))

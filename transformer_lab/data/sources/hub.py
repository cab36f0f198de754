"""Data sets of the Hugging Face hub, through the `datasets` library: kept in its cache, or read as they come."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from functools import partial
from importlib import metadata
from typing import Any, Literal, Required, Unpack

from transformer_lab.data.examples import Document, Example, LabeledText, Pair, Split
from transformer_lab.data.sources.base import Source, no_such_name
from transformer_lab.data.sources.hub_access import cached, reachable
from transformer_lab.data.sources.labeled import LabelColumns, Labeled, MissingLabel, apart, cut_so, told
from transformer_lab.data.sources.parallel import PairColumns, Parallel, language_code
from transformer_lab.data.sources.separated import Quoting
from transformer_lab.data.sources.splits import SplitOptions, SplitSource
from transformer_lab.data.sources.tables import ROWS_AT_ONCE, Columns, Rows, named
from transformer_lab.data.sources.text import Text, TextColumn

NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
CONVERTED = "refs/convert/parquet"  # where the hub keeps a set that needs a program as plain data, a folder a config


class HubOptions(SplitOptions, total=False):
    """What any source takes that reads a data set of the hub."""

    dataset: Required[str]
    config: str | None
    path: str | None
    validation_split: str | None
    test_split: str | None
    streaming: bool
    delimiter: str | None
    quoting: Quoting | None
    unreadable: Literal["error", "skip"]


class HubSource(SplitSource):
    """The set's own splits, found by their usual names unless given.

    `path` reads a local copy instead, as `local`; `delimiter`, `quoting` and `unreadable` are for its files.
    """

    def __init__(
        self,
        *,
        columns: Columns,
        local: Callable[..., Source],
        dataset: str,
        config: str | None = None,
        path: str | None = None,
        validation_split: str | None = None,
        test_split: str | None = None,
        streaming: bool = False,
        delimiter: str | None = None,
        quoting: Quoting | None = None,
        unreadable: Literal["error", "skip"] = "error",
        **options: Unpack[SplitOptions],
    ) -> None:
        super().__init__(**options)
        self.columns, self.dataset, self.config, self.streaming = columns, dataset, config, streaming
        self.names: dict[Split, str | None] = {"train": None, "validation": validation_split, "test": test_split}
        given = ["train", *filter(None, self.names.values())]
        if twice := next((name for name in given if given.count(name) > 1), None):
            raise ValueError(f"data.validation_split, data.test_split: {twice} cannot be two splits at once")
        of_files = {"delimiter": delimiter, "quoting": quoting, "unreadable": unreadable}
        if not path and (key := next((key for key, value in of_files.items() if value not in (None, "error")), None)):
            raise ValueError(f"data.{key}={of_files[key]}: the hub's own data are no files of yours; with data.path=…")
        self.local = local(path=path, **of_files, **options) if path else None
        self._loaded: dict[Split, Any] = {}

    def cache_key(self) -> dict[str, Any]:
        if self.local:
            return self.local.cache_key()
        made_of = {"source": "hub", "dataset": self.dataset, "config": self.config, "splits": self.names}
        return {**made_of, "datasets": metadata.version("datasets"), **asdict(self.columns), **super().cache_key()}

    def read(self) -> Iterator[tuple[Split, Any]]:
        return self.local.read() if self.local else super().read()

    def splits(self) -> Collection[Split]:
        self._loaded = self._loaded or self._load()
        return self._loaded

    def origin(self, split: Split) -> str:
        return f"data.dataset={self.dataset}, its {split} split"

    def examples(self, split: Split) -> Iterator[Example]:
        return self.columns(self._rows(split), self.origin(split))

    def _rows(self, split: Split) -> Rows:
        rows = self._loaded[split]
        wanted = list(self.columns.names().values())
        if set(wanted) <= set(rows.column_names or ()):  # a stream may not know its columns yet
            rows = rows.select_columns(wanted)  # the others, pictures perhaps, are not decoded
        kinds = {name: getattr(kind, "feature", kind) for name, kind in (rows.features or {}).items()}
        classes = {name: kind.names for name, kind in kinds.items() if hasattr(kind, "names")}
        return named(self._numbered(rows, split), classes)

    def _numbered(self, rows: Any, split: Split) -> Rows:
        number = 0
        try:
            for batch in rows.iter(batch_size=ROWS_AT_ONCE):
                for values in zip(*batch.values(), strict=True):
                    number += 1
                    yield f"row {number} of {self.origin(split)}", dict(zip(batch, values, strict=True))
        except Exception as error:  # a stream that broke, a cache that was emptied meanwhile
            raise self._told(error) from error

    def _load(self) -> dict[Split, Any]:
        import datasets  # here, for it costs seconds

        offline = datasets.config.HF_HUB_OFFLINE
        if not reachable():
            if self.streaming or not cached(self.dataset):
                raise ValueError(
                    f"data.dataset={self.dataset}: the hub is out of reach (offline?) and the set is not in the cache; "
                    "give a local copy with data.path=FILE_OR_FOLDER"
                )
            datasets.config.HF_HUB_OFFLINE = True  # read the cache at once instead of trying the hub for 24 s
        try:
            there = self._ask(datasets.load_dataset)
        except Exception as error:
            raise self._told(error) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = offline
        return {split: there[name] for split, name in self._named(there).items()}

    def _ask(self, load: Callable[..., Any]) -> Any:
        try:
            return load(self.dataset, self.config, streaming=self.streaming)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            return load(self.dataset, data_dir=self.config, revision=CONVERTED, streaming=self.streaming)

    def _named(self, there: Collection[str]) -> dict[Split, str]:
        """What the set calls each of its splits."""
        found = {}
        for split, name in self.names.items():
            free = (usual for usual in NAMES[split] if usual in there and usual not in self.names.values())
            if name and name not in there:
                raise no_such_name(f"data.{split}_split", name, there, f"no such split in {self.dataset}")
            if name := name or next(free, None):
                found[split] = name
        if "train" not in found:
            raise ValueError(f"data.dataset={self.dataset}: no split named train; there are: {', '.join(there)}")
        return found

    def _told(self, error: Exception) -> ValueError:
        """A wrong name, a missing config, a gated set, a broken line: the library's words, in one line."""
        return ValueError(f"data.dataset={self.dataset}: {' '.join(str(error).split())}")


class Hub(HubSource):
    """One document a row; with `document_start` a row is a line, and a document begins where one matches."""

    example_type = Document

    def __init__(
        self, *, column: str = "text", document_start: str | None = None, **options: Unpack[HubOptions]
    ) -> None:
        asked: dict[str, Any] = {"column": column, "document_start": document_start}
        super().__init__(columns=TextColumn(**asked), local=partial(Text, **asked), **options)


class HubLabeled(HubSource):
    """One text per row, with its labels; the numbers of classes become their names. The rest is as of `Labeled`."""

    example_type = LabeledText

    def __init__(
        self,
        *,
        text_column: str | list[str] = "text",
        label_column: str = "label",
        separator: str | None = None,
        missing_label: MissingLabel = "error",
        group_column: str | None = None,
        pair_columns: list[str] | None = None,
        stratify: bool = False,
        **options: Unpack[HubOptions],
    ) -> None:
        asked: dict[str, Any] = {
            "text_column": text_column,
            "label_column": label_column,
            "separator": separator,
            "missing_label": missing_label,
            "group_column": group_column,
            "pair_columns": pair_columns,
        }
        self.labels = LabelColumns(**asked)
        super().__init__(columns=self.labels, local=partial(Labeled, **asked, stratify=stratify), **options)
        self.hash_split = apart(self.hash_split, stratify, group_column)

    def cache_key(self) -> dict[str, Any]:
        return super().cache_key() if self.local else cut_so(super().cache_key(), self.hash_split)

    def read(self) -> Iterator[tuple[Split, Any]]:
        read = super().read()
        return read if self.local else told(read, self.hash_split, self.labels.group_column)

    def examples(self, split: Split) -> Iterator[Any]:
        return self.labels.labelled(super().examples(split), self.origin(split))


class HubParallel(HubSource):
    """One pair per row, in two columns or within the column `translation`."""

    example_type = Pair

    def __init__(self, *, source: str, target: str, **options: Unpack[HubOptions]) -> None:
        asked: dict[str, Any] = {"source": source, "target": target}
        super().__init__(columns=PairColumns(**asked), local=partial(Parallel, **asked), **options)
        self.language = language_code(target)

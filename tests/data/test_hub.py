"""Sets of the hub keep their own splits and the names of their classes, whole, as a stream or from a local copy."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONFIGS, settings
from tests.data.conftest import examples, mistake, sides
from transformer_lab.composition.build import build
from transformer_lab.data.examples import LabeledText, Pair
from transformer_lab.data.sources import hub, hub_access
from transformer_lab.data.sources.hub import Hub, HubLabeled, HubParallel
from transformer_lab.data.sources.labeled import Labeled
from transformer_lab.data.sources.parallel import Parallel
from transformer_lab.data.sources.text import Text


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Makes the hub serve these splits; returns what it was asked for, call by call."""
    import datasets

    def serve(splits: dict[str, Any]) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def load(dataset: str, name: str | None = None, *, streaming: bool, **options: Any) -> Any:
            asked.append({"dataset": dataset, "config": name, "streaming": streaming, **options})
            if not streaming:
                return datasets.DatasetDict(splits)
            return datasets.IterableDatasetDict({key: rows.to_iterable_dataset() for key, rows in splits.items()})

        monkeypatch.setattr(hub, "reachable", lambda: True)
        monkeypatch.setattr(datasets, "load_dataset", load)
        return asked

    return serve


def table(features: dict[str, Any] | None = None, **columns: list[Any]) -> Any:
    import datasets

    return datasets.Dataset.from_dict(columns, features and datasets.Features(features))


def reviews(*labels: int, first: int = 0) -> Any:
    import datasets

    features = {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    return table(features, sentence=[f"text {first + n}" for n in range(len(labels))], label=list(labels))


def test_an_unreachable_hub_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub_access, "_answers", lambda: False)
    for offline in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        told = mistake(lambda: list(Hub(dataset="owner/name").read()))
        assert "out of reach" in told and "data.path" in told
    (tmp_path / "owner___name").mkdir()  # what is in the cache can be read, but not as a stream
    assert "out of reach" in mistake(lambda: list(Hub(dataset="owner/name", streaming=True).read()))


def test_a_local_copy_stands_in_for_the_hub(tmp_path: Path) -> None:
    options: dict[str, Any] = {"path": str(tmp_path), "validation": 0.4, "test": 0.2, "max_examples": 15}
    (tmp_path / "a.csv").write_text("text,label,more\n" + "".join(f"a {n},b,c;d\n" for n in range(99)))
    for there, here, columns in (
        (Hub, Text, {"column": "text", "document_start": "[05]$"}),
        (HubLabeled, Labeled, {"label_column": "more", "separator": ";"}),
        (HubParallel, Parallel, {"source": "text", "target": "label"}),
    ):
        copy, files = there(dataset="owner/name", **columns, **options), here(**columns, **options)
        assert there.example_type is here.example_type
        assert list(copy.read()) == list(files.read())
        assert copy.cache_key() == files.cache_key()


def test_a_set_keeps_its_own_splits_and_lends_the_missing_ones(serve: Any) -> None:
    def rows(name: str) -> Any:
        return table(text=[f"{name} {number}" for number in range(99)] + [" "])

    there = {"train": rows("train"), "dev": rows("dev"), "unsupervised": rows("unsupervised")}
    serve(there)
    read = sides(Hub(dataset="owner/name", validation=0.8, test=0.1))
    assert read["validation"] == [f"dev {number}" for number in range(99)]
    assert 80 < len(read["train"]) < 99 == len(read["train"] + read["test"])
    serve({"dev": rows("dev")})
    assert "no split named train; there are: dev" in mistake(lambda: list(Hub(dataset="a").read()))
    serve(there)
    told = mistake(lambda: list(Hub(dataset="a", validation_split="devel").read()))
    assert told == "data.validation_split=devel: no such split in a; did you mean dev?"


def test_a_split_can_serve_as_another_and_then_serves_once(serve: Any) -> None:
    serve({"train": reviews(*[0, 1] * 100), "validation": reviews(1, 0, first=200), "test": reviews(-1, -1, first=300)})
    source = HubLabeled(dataset="sst2", text_column="sentence", test_split="validation", validation=0.2)
    read = examples(source)
    assert read["test"] == [LabeledText("text 200", ("positive",)), LabeledText("text 201", ("negative",))]
    assert len(read["train"] + read["validation"]) == 200 and len(read["validation"]) > 20
    told = mistake(lambda: examples(HubLabeled(dataset="sst2", text_column="sentence")))
    assert told.startswith("data.label_column=label: 2 rows have no label (row 1 of data.dataset=sst2, its test split;")
    for names in ({"test_split": "train"}, {"test_split": "a", "validation_split": "a"}):
        assert "data.test_split" in mistake(lambda names=names: Hub(dataset="a", **names))


def test_numbers_of_classes_become_names_also_several_at_once(serve: Any) -> None:
    import datasets

    names = datasets.ClassLabel(names=["joy", "fear"])
    serve(
        {
            "train": table(
                {"text": datasets.Value("string"), "label": datasets.List(names)}, text=["a", "b"], label=[[0, 1], []]
            )
        }
    )
    read = examples(HubLabeled(dataset="a", validation=0, test=0))["train"]
    assert [example.labels for example in read] == [("joy", "fear"), ()]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_stream_says_the_same_as_the_whole_each_time(streaming: bool, serve: Any) -> None:
    serve({"train": reviews(*[0, 1] * 200)})
    options: dict[str, Any] = {"dataset": "a", "text_column": "sentence", "validation": 0.2, "test": 0.2}
    source = HubLabeled(streaming=streaming, **options)
    read = examples(source)
    assert examples(source) == read == examples(HubLabeled(**options))
    assert sum(map(len, read.values())) == 400
    few = examples(HubLabeled(streaming=streaming, max_examples=150, **options))
    assert sum(map(len, few.values())) == 150
    assert all(example in read[split] for split, found in few.items() for example in found)


def test_a_stream_is_not_read_further_than_asked_for(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def endless() -> Any:
        for number in range(10**9):
            if number > 1_000:
                pytest.fail("read on")
            yield {"text": f"text {number}"}

    serve({})
    stream = datasets.IterableDatasetDict({"train": datasets.IterableDataset.from_generator(endless)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    read = sides(Hub(dataset="a", streaming=True, max_examples=300))
    assert sum(map(len, read.values())) == 300


def test_a_column_that_is_not_there_is_told_also_by_a_stream(serve: Any) -> None:
    serve({"train": table(txt=["a", "b"])})
    for streaming in (False, True):
        told = mistake(lambda streaming=streaming: examples(Hub(dataset="a", streaming=streaming)))
        assert told == "data.column=text: no such column in data.dataset=a, its train split; did you mean txt?"


def test_a_set_that_needs_a_program_is_read_from_the_hubs_own_copy(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = serve({"train": table(text=["a", "b"])})
    there = datasets.load_dataset

    def load(*words: Any, **options: Any) -> Any:
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found name.py")
        return there(*words, **options)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert sides(Hub(dataset="owner/name", config="en-mr", validation=0, test=0)) == {"train": ["a", "b"]}
    copy = {"data_dir": "en-mr", "revision": "refs/convert/parquet"}
    assert asked == [{"dataset": "owner/name", "config": None, "streaming": False, **copy}]


def test_the_librarys_errors_are_told_in_one_line(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    serve({})

    def load(*_: Any, **__: Any) -> Any:
        raise ValueError("BuilderConfig 'a' not found.\nAvailable: ['b']")

    monkeypatch.setattr(datasets, "load_dataset", load)
    told = mistake(lambda: examples(Hub(dataset="owner/name", config="a")))
    assert told == "data.dataset=owner/name: BuilderConfig 'a' not found. Available: ['b']"


def test_the_signature_tells_what_is_read_and_not_how() -> None:
    changed: list[dict[str, Any]] = [
        {},
        {"column": "a"},
        {"document_start": "a"},
        {"config": "a"},
        {"test_split": "a"},
        {"max_examples": 3},
        {"validation": 0.2},
    ]
    signatures = {json.dumps(Hub(dataset="a", **options).cache_key()) for options in [*changed, *changed]}
    assert len(signatures) == len(changed)
    assert Hub(dataset="a", streaming=True).cache_key() == Hub(dataset="a").cache_key()


# The sets that come with a config: their rows as the hub has them


def rows_of(name: str) -> dict[str, Any]:
    import datasets

    text = datasets.Value("string")
    classes = datasets.ClassLabel(names=["no", "yes"])
    captions = table(en=["a dog", "a cat"], de=["ein Hund", "eine Katze"])
    lines = ["", " = One = \n", "", " Words . \n", " = = Part = = \n", " More . \n", "", " = Two = \n", " End . \n"]
    reviewed = table({"text": text, "label": classes}, text=["good", "bad"], label=[1, 0])
    questions = {"text": text, "coarse_label": classes, "fine_label": classes}
    asked = table(questions, text=["Who ?", "What ?"], coarse_label=[1, 0], fine_label=[0, 1])
    phrases = {"idx": datasets.Value("int32"), "sentence": text, "label": classes}
    phrased = table(phrases, idx=[0, 1], sentence=["good", "bad"], label=[1, 0])

    def nested(source: str, target: str) -> Any:
        return table(translation=[{source: "a dog", target: "b"}, {source: "a cat", target: "c"}])

    rows = {
        "ag_news": reviewed,
        "imdb": reviewed,
        "sst2": phrased,
        "trec": asked,
        "multi30k": captions,
        "wmt14": nested("en", "de"),
        "opus_books": nested("en", "de"),
        "tatoeba": nested("en", "mr"),
        "tinyshakespeare": table(text=["First Citizen:\nBefore we proceed"]),
        "wikitext2": table(text=lines),
        "wikitext103": table(text=lines),
        "wikipedia": table(id=["1", "2"], title=["A", "B"], text=["One", "Two"]),
    }[name]
    return {split: rows for split in ("train", "validation", "test")}


YAMLS = {file.stem: file.read_text() for file in sorted((CONFIGS / "data").glob("*.yaml"))}
SHIPPED = [name for name, words in YAMLS.items() if re.search(r"^dataset: [^?]|^  - wikitext2", words, re.MULTILINE)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_is_read_as_the_hub_has_it(name: str, serve: Any, tmp_path: Path) -> None:
    asked = serve(rows_of(name))
    section = settings(f"data={name}", "data.validation=0")["data"]
    source = build(section)
    read = examples(source)
    assert asked == [{"dataset": section["dataset"], "config": section.get("config"), "streaming": name == "wikipedia"}]
    assert set(read) == ({"train", "test"} if name == "sst2" else {"train", "validation", "test"})
    first = read["train"][0]
    if name.startswith("wikitext"):
        assert [text.split("= ")[1] for text in sides(source)["train"]] == ["One ", "Two "]
    elif isinstance(first, Pair):
        assert first.source == "a dog" and len(read["test"]) == 2
    elif isinstance(first, LabeledText):
        assert [example.labels for example in read["test"]] == [("yes",), ("no",)]
    path = tmp_path / "train.parquet"  # and from a local copy
    rows_of(name)["train"].to_parquet(str(path))
    local = build({**section, "path": str(path), "validation": 0, "test": 0})
    assert examples(local)["train"] == read["train"]


def test_how_files_are_read_is_for_a_copy_only(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text:label\n"a:x\n')
    options: dict[str, Any] = {"dataset": "nobody/none", "delimiter": ":", "quoting": "none", "unreadable": "skip"}
    source = HubLabeled(path=str(tmp_path), validation=0, test=0, **options)
    assert examples(source) == {"train": [LabeledText('"a', ("x",))]}
    for key in ("delimiter", "quoting", "unreadable"):
        told = mistake(lambda key=key: HubLabeled(dataset="nobody/none", **{key: options[key]}))
        assert told.startswith(f"data.{key}={options[key]}: ") and "data.path=" in told


def test_rows_of_the_hub_without_a_label_may_be_skipped(serve: Any) -> None:
    serve({"train": reviews(1, -1, 0)})
    source = HubLabeled(dataset="some", text_column="sentence", missing_label="skip", validation=0, test=0)
    assert [example.labels for example in examples(source)["train"]] == [("positive",), ("negative",)]

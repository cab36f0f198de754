"""Sources lose no text, repeat themselves exactly, keep equal texts together and tell mistakes in one line."""

import ast
import gzip
import inspect
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab.data.examples import Document
from transformer_lab.data.sources import docstrings, hub, text
from transformer_lab.data.sources.base import Cut, Source
from transformer_lab.data.sources.docstrings import Docstrings
from transformer_lab.data.sources.hub import Hub
from transformer_lab.data.sources.text import Text

FRACTION = st.floats(0, 0.49, allow_subnormal=False)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a source asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def sides(source: Source) -> dict[str, list[str]]:
    """The documents of each split, whole again."""
    found: dict[str, list[str]] = {}
    goes_on: dict[str, bool] = {}
    for split, document in source.read():
        documents = found.setdefault(split, [])
        if goes_on.get(split):
            documents[-1] += document.text
        else:
            documents.append(document.text)
        goes_on[split] = document.more
    assert not any(goes_on.values())
    return found


def mistake(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# How a corpus is cut


@given(st.text(), FRACTION, FRACTION)
def test_texts_that_differ_in_case_and_space_are_on_one_side(words: str, validation: float, test: float) -> None:
    cut = Cut(validation=validation, test=test)
    assert cut.side(words) == cut.side(f"  {words.casefold()}\n") == cut.side("\t".join(f"{words} ".split(" ")))


@given(st.lists(st.text(min_size=1), min_size=2), FRACTION)
def test_every_document_is_on_one_side(words: list[str], test: float) -> None:
    cut = Cut(validation=0, test=test)
    read = cut(lambda: [Document(word) for word in words])
    try:
        assert [document.text for _, document in read] == words
    except ValueError as error:  # a few documents need not reach both sides
        assert f"none of the {len(words)} examples" in str(error)


def test_sides_have_about_the_size_asked_for() -> None:
    cut = Cut(validation=0.1, test=0.2)
    counted = [cut.side(str(number)) for number in range(10_000)]
    assert 900 < counted.count("validation") < 1_100
    assert 1_900 < counted.count("test") < 2_100


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(0, 49), st.integers(0, 49))
def test_one_document_is_cut_in_order_wherever_its_pieces_end(pieces: list[str], validation: int, test: int) -> None:
    whole = "".join(pieces)
    train_end, validation_end = len(whole) * (100 - validation - test) // 100, len(whole) * (100 - test) // 100
    expected = {
        "train": whole[:train_end],
        "validation": whole[train_end:validation_end],
        "test": whole[validation_end:],
    }
    read = [Document(piece, more=True) for piece in pieces[:-1]] + [Document(pieces[-1])]
    found: dict[str, list[Document]] = {}
    try:
        for split, document in Cut(validation=validation / 100, test=test / 100)(lambda: read):
            found.setdefault(split, []).append(document)
    except ValueError as error:
        assert "an empty split" in str(error)
        assert not all(
            expected[name] for name, asked in (("train", 1), ("validation", validation), ("test", test)) if asked
        )
        return
    assert {split: "".join(piece.text for piece in parts) for split, parts in found.items()} == {
        split: part for split, part in expected.items() if part
    }
    assert all([piece.more for piece in parts] == [True] * (len(parts) - 1) + [False] for parts in found.values())


def test_tinyshakespeare_is_cut_where_everybody_cuts_it() -> None:
    read = Cut(validation=0.1, test=0)(lambda: [Document("x" * 1_115_394)])
    assert {split: len(document.text) for split, document in read} == {"train": 1_003_854, "validation": 111_540}


@pytest.mark.parametrize("validation, test", [(-0.1, 0), (0, 1), (0.5, 0.5), (float("nan"), 0)])
def test_impossible_fractions_are_refused(validation: float, test: float) -> None:
    assert "data." in mistake(lambda: Cut(validation=validation, test=test))


# Files


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_a_file_read_in_pieces_is_the_same_text(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "LONGEST_LINE", piece)
    monkeypatch.setattr(text, "PIECE", 2 * piece)
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthrée\n\u2028\n\n \n\nend".encode())
    source = Text(path=str(tmp_path), validation=0, test=0)
    assert sides(source) == {"train": ["one\ntwo\nthrée\n\u2028\n\n \n\nend"]}
    assert max(len(document.text) for _, document in source.read()) <= 2 * piece


@pytest.mark.parametrize(
    "content, told",
    [
        (b"fine\ncaf\xe9\n", "a.txt:2: not UTF-8"),
        ("\ufefftext".encode("utf-16-le"), "a.txt:1: not UTF-8"),
        (b"fine\n\nnot\0fine\n", "a.txt:3: a NUL"),
        (b"", "data.path"),
        (b" \n \n", "data.path"),
    ],
)
def test_damaged_text_is_told_with_its_line(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert told in mistake(lambda: list(Text(path=str(tmp_path / "a.txt")).read()))


def test_a_folder_is_read_in_the_order_of_its_names_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/empty.py", ".git/c.txt", "a/.d.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "empty" in name else name)
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"e.txt.gz"))
    assert sides(Text(path=str(tmp_path), validation=0, test=0)) == {"train": ["a/z.txt", "b.md", "e.txt.gz"]}
    assert sides(Text(path=f"{tmp_path}/**/*.txt", validation=0, test=0)) == {"train": ["a/z.txt"]}


def test_a_path_that_is_not_there_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "novels").mkdir()
    assert f"did you mean {tmp_path}/novels?" in mistake(lambda: Text(path=f"{tmp_path}/novel/deep/a.txt"))
    assert "data.test_path" in mistake(lambda: Text(path=__file__, test_path=f"{tmp_path}/test.txt"))
    assert "no file in it ends with" in mistake(lambda: Text(path=str(tmp_path)))
    assert "no file matches" in mistake(lambda: Text(path=f"{tmp_path}/*.txt"))


def tables(folder: Path, rows: list[dict[str, str]]) -> Iterator[Path]:
    import datasets

    table = datasets.Dataset.from_list(rows)
    for suffix, write in {
        ".jsonl": table.to_json,
        ".csv": table.to_csv,
        ".tsv": lambda file: table.to_csv(file, sep="\t"),
        ".parquet": table.to_parquet,
    }.items():
        write(str(folder / f"rows{suffix}"))
        yield folder / f"rows{suffix}"
    (folder / "rows.json").write_text(json.dumps(rows))
    yield folder / "rows.json"
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress((folder / "rows.jsonl").read_bytes()))
    yield folder / "rows.jsonl.gz"


def test_a_column_is_the_same_from_every_kind_of_table(tmp_path: Path) -> None:
    words = ["NA", "12", 'two\n"lines"', "tab\tand, comma", "  ", "", "häß\u2028lich"]
    rows = [{"label": str(number), "review": word} for number, word in enumerate(words)]
    for file in tables(tmp_path, rows):
        read = sides(Text(path=str(file), column="review", validation=0, test=0))
        assert read == {"train": [word for word in words if word.strip()]}, file.name
        told = mistake(lambda file=file: list(Text(path=str(file), column="reviews").read()))
        assert "data.column=reviews" in told and told.endswith("did you mean review?")


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "a.jsonl:3"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "row 2 of"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "a.jsonl:1"),
        ("a.csv", b"text,label\na,1\nb,2,3\n", "line 3"),
        ("a.csv", b"text\ncaf\xe9\n", "a.csv:2: not UTF-8"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: not readable"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "a.jsonl.gz"),
        ("a.txt.gz", gzip.compress(b"a" * 99)[:-9], "a.txt.gz: cannot be read"),
        ("a.csv", b"", "data.path"),
    ],
)
def test_a_damaged_table_is_told_with_its_line(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert told in mistake(lambda: list(Text(path=str(tmp_path / name)).read()))


def test_files_of_other_splits_leave_the_rest_of_the_path_to_train(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.txt" for name in ("train", "validation", "test")}
    for name, file in files.items():
        file.write_text(name * 100)
    given = {"validation_path": str(files["validation"]), "test_path": str(files["test"])}
    assert sides(Text(path=str(files["train"]), **given)) == {name: [name * 100] for name in files}
    cut = sides(Text(path=str(files["train"]), validation=0.1, test_path=given["test_path"]))
    assert cut == {"train": [("train" * 100)[:450]], "validation": [("train" * 100)[450:]], "test": ["test" * 100]}


def test_the_signature_tells_changed_files_and_options(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")

    def signature(**options: object) -> str:
        return json.dumps(Text(path=str(tmp_path), **options).signature())

    before = signature()
    assert signature() == before != signature(test=0.1) != signature(column="other")
    file.write_text("after")
    assert signature() != before


# Docstrings


DOCUMENTED = '''
"""Module,
    long enough to be worth reading, and a second line."""
raise SystemExit("imported")
if 1:
    class A:
        """Class, long enough to be worth reading, within if."""
        async def method(self):
            "Method, long enough to be worth reading, in one quote."
            lambda: 0
            """No docstring, since it does not come first in its block."""
try:
    pass
except OSError:
    def short():
        """Short."""
    def again():
        """Class, long enough to be worth reading, within if."""
'''


def test_docstrings_are_read_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "untrusted_package"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(DOCUMENTED)
    (package / "broken.py").write_text(DOCUMENTED.replace("again", "broken") + "print 2")
    (package / "binary.py").write_bytes(b'"""\xff\xfe\0"""')
    (package / "odd.py").write_text(DOCUMENTED.replace("long", "\\ud800").replace("Method", "\\0"))
    (package / "tests" / "a.py").write_text(DOCUMENTED.replace("long", "test"))
    monkeypatch.syspath_prepend(tmp_path)
    assert sides(Docstrings(packages=["untrusted_package"], validation=0, test=0))["train"] == [
        "Module,\nlong enough to be worth reading, and a second line.",
        "Class, long enough to be worth reading, within if.",
        "Method, long enough to be worth reading, in one quote.",
    ]
    assert "untrusted_package" not in sys.modules


def test_docstrings_come_in_one_order_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docstrings, "FILES_AT_ONCE", 5)
    reads = []
    for cores in (1, 3):
        monkeypatch.setattr(docstrings, "_cores", lambda cores=cores: cores)
        source = Docstrings(packages=["json", "email"])
        reads += [list(source.read()), list(source.read())]
    assert all(read == reads[0] for read in reads)
    texts = [document.text for _, document in reads[0]]
    assert inspect.getdoc(json.loads) in texts and ast.parse.__doc__ not in texts
    assert len(set(texts)) == len(texts)


def test_a_package_that_is_not_there_is_told_with_the_nearest_one() -> None:
    assert mistake(lambda: Docstrings(packages=["emial"])).endswith("did you mean email?")
    assert "no Python source" in mistake(lambda: Docstrings(packages=["sys"]))
    assert "data.packages" in mistake(lambda: Docstrings(packages=[]))
    json.dumps(Docstrings(packages=["json"]).signature())


# The hub


def test_an_unreachable_hub_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    for option, value in (("HF_HUB_OFFLINE", True), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(constants, option, value)
        monkeypatch.setattr(hub, "_answers", lambda: False)
        told = mistake(lambda: list(Hub(dataset="owner/name").read()))
        assert "out of reach" in told and "data.path" in told


def test_a_local_copy_stands_in_for_the_hub(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc" * 100)
    options = {"path": str(tmp_path), "validation": 0.1, "test": 0.1}
    there, here = Hub(dataset="owner/name", **options), Text(**options)
    assert list(there.read()) == list(here.read())
    assert there.signature() == here.signature()


def test_a_set_keeps_its_own_splits_and_lends_the_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows(name: str) -> datasets.Dataset:
        return datasets.Dataset.from_list([{"text": f"{name} {number}"} for number in range(99)] + [{"text": " "}])

    monkeypatch.setattr(hub, "_reachable", lambda: True)
    there = datasets.DatasetDict({"train": rows("train"), "dev": rows("dev")})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: there)
    read = sides(Hub(dataset="owner/name", validation=0.8, test=0.1))
    assert read["validation"] == [f"dev {number}" for number in range(99)]
    assert 80 < len(read["train"]) < 99 == len(read["train"] + read["test"])
    assert "no split named train" in mistake(lambda: list(Hub(dataset="a").read()) if there.pop("train") else None)

"""A corpus is cut the same way each time, keeps equal texts together; docstrings are read without an import."""

import ast
import inspect
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import mistake, sides
from transformer_lab.data.examples import Document
from transformer_lab.data.sources import docstrings
from transformer_lab.data.sources.base import HashSplit
from transformer_lab.data.sources.docstrings import Docstrings

FRACTION = st.floats(0, 0.49, allow_subnormal=False)


# How a corpus is cut


@given(st.text(), FRACTION, FRACTION)
def test_texts_that_differ_in_case_and_space_are_on_one_side(words: str, validation: float, test: float) -> None:
    split_by_hash = HashSplit(validation=validation, test=test)
    assert (
        split_by_hash.side(words)
        == split_by_hash.side(f"  {words.casefold()}\n")
        == split_by_hash.side("\t".join(f"{words} ".split(" ")))
    )


@given(st.lists(st.text(min_size=1), min_size=2), FRACTION)
def test_every_document_is_on_one_side(words: list[str], test: float) -> None:
    split_by_hash = HashSplit(validation=0, test=test)
    read = split_by_hash(lambda: [Document(word) for word in words])
    try:
        assert [document.text for _, document in read] == words
    except ValueError as error:  # a few documents need not reach both sides
        assert f"none of the {len(words)} examples" in str(error)


def test_sides_have_about_the_size_asked_for() -> None:
    split_by_hash = HashSplit(validation=0.1, test=0.2)
    counted = [split_by_hash.side(str(number)) for number in range(10_000)]
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
        for split, document in HashSplit(validation=validation / 100, test=test / 100)(lambda: read):
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
    read = HashSplit(validation=0.1, test=0)(lambda: [Document("x" * 1_115_394)])
    assert {split: len(document.text) for split, document in read} == {"train": 1_003_854, "validation": 111_540}


@pytest.mark.parametrize("validation, test", [(-0.1, 0), (0, 1), (0.5, 0.5), (float("nan"), 0)])
def test_impossible_fractions_are_refused(validation: float, test: float) -> None:
    assert "data." in mistake(lambda: HashSplit(validation=validation, test=test))


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
    json.dumps(Docstrings(packages=["json"]).cache_key())

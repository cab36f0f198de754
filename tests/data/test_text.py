"""Text files lose no text, in pieces or cut into documents, and are told with their line where they are damaged."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import mistake, sides
from transformer_lab.data.sources import text
from transformer_lab.data.sources.text import Text, joined

HEADING = r"^ = [^=].* =\s*$"


@pytest.mark.parametrize("document_start", [None, "^three"])
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_a_file_read_in_pieces_is_the_same_text(
    piece: int, document_start: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "LONGEST_LINE", piece)
    monkeypatch.setattr(text, "PIECE", 2 * piece)
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthrée\n\u2028\n\n \n\nend".encode())
    source = Text(path=str(tmp_path), validation=0, test=0, document_start=document_start)
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
@pytest.mark.parametrize("document_start", [None, "^fine"])
def test_damaged_text_is_told_with_its_line(
    content: bytes, told: str, document_start: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert told in mistake(lambda: list(Text(path=str(tmp_path / "a.txt"), document_start=document_start).read()))


def test_a_truncated_gzip_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(b"a line\n" * 99)
    (tmp_path / "a.txt.gz").write_bytes(whole)
    assert sides(Text(path=str(tmp_path), validation=0, test=0)) == {"train": ["a line\n" * 99]}
    (tmp_path / "a.txt.gz").write_bytes(whole[:-9])
    assert "a.txt.gz: cannot be read" in mistake(lambda: list(Text(path=str(tmp_path)).read()))


def test_a_folder_is_read_in_the_order_of_its_names_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/empty.py", ".git/c.txt", "a/.d.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "empty" in name else name)
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"e.txt.gz"))
    assert sides(Text(path=str(tmp_path), validation=0, test=0)) == {"train": ["a/z.txt", "b.md", "e.txt.gz"]}
    assert sides(Text(path=f"{tmp_path}/**/*.txt", validation=0, test=0)) == {"train": ["a/z.txt"]}


def test_programs_called_train_and_test_are_documents_like_any(tmp_path: Path) -> None:
    for name in ("train.py", "test_a.py", "model.py"):
        (tmp_path / name).write_text(name)
    assert sides(Text(path=str(tmp_path), validation=0, test=0)) == {"train": ["model.py", "test_a.py", "train.py"]}


def test_the_signature_tells_changed_files_and_options(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")

    def signature(**options: object) -> str:
        return json.dumps(Text(path=str(tmp_path), **options).cache_key())

    changed: list[dict[str, object]] = [{"test": 0.1}, {"column": "b"}, {"document_start": "a"}, {"max_examples": 3}]
    assert len({signature(), signature(), *(signature(**options) for options in changed)}) == 5
    before = signature()
    file.write_text("after")
    assert signature() != before


# Documents within a file


ARTICLES = " \n = One = \n \n Words . \n = = Part = = \n More . \n \n = Two = \n = not a title \n Words = words \n"


def test_an_article_begins_with_its_title_and_holds_its_sections(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ARTICLES)
    (tmp_path / "b.txt").write_text("No title .\n")
    documents = sides(Text(path=str(tmp_path), document_start=HEADING, validation=0, test=0))["train"]
    assert [re.findall("= (One|Two) =", document) for document in documents] == [["One"], ["Two"], []]
    assert "".join(documents) == ARTICLES + "No title .\n"


def test_the_rows_of_a_table_are_lines_of_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(ARTICLES)
    # As the hub has them: nothing for a blank line, and else with the end of the line.
    rows = [{"text": f"{line}\n" if line.strip() else ""} for line in ARTICLES.splitlines()]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"document_start": HEADING, "validation": 0, "test": 0}
    whole, lines = (sides(Text(path=str(tmp_path / n), **options))["train"] for n in ("lines.txt", "rows.jsonl"))
    assert [re.sub("^ $", "", document, flags=re.MULTILINE) for document in whole] == lines


@given(st.lists(st.sampled_from(["= a", "b", " ", "", "a long line of words"])), st.integers(1, 30))
def test_documents_lose_nothing_and_do_not_depend_on_the_pieces(words: list[str], piece: int) -> None:
    lines = [f"{word}\n" for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE", piece)
        pieces = list(joined(lines, "^="))
    assert "".join(part.text for part in pieces) == "".join(lines)
    documents = "".join(part.text + ("" if part.more else "|") for part in pieces).split("|")[:-1]
    assert documents == [document.text for document in joined(lines, "^=")]
    assert all("=" not in document.lstrip()[1:] for document in documents)
    assert all(len(part.text) <= max(piece, 21) for part in pieces)


def test_a_pattern_that_is_none_is_refused() -> None:
    told = mistake(lambda: Text(path=__file__, document_start="= ("))
    assert "data.document_start== (: no regular expression" in told


def test_no_more_documents_are_read_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("= a\n= b\n= c\n= d\n")
    (tmp_path / "test.txt").write_text("= e\n= f\n")
    options = {"path": str(tmp_path), "document_start": "^=", "validation": 0}
    read = sides(Text(max_examples=2, **options))
    assert read == {"train": ["= a\n", "= b\n"], "test": ["= e\n", "= f\n"]}
    assert sides(Text(max_examples=99, **options)) == sides(Text(**options))
    assert "data.max_examples=0" in mistake(lambda: Text(max_examples=0, **options))

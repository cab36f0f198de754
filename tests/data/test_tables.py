"""Tables of every kind say the same, and a damaged one is told with its line, whatever its rows are read for."""

import csv
import gzip
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import examples, mistake, sides
from transformer_lab.data.examples import Document, LabeledText, Pair
from transformer_lab.data.sources.labeled import Labeled
from transformer_lab.data.sources.parallel import Parallel
from transformer_lab.data.sources.tables import rows
from transformer_lab.data.sources.text import Text

KINDS: dict[str, Any] = {
    "text": Text,
    "labeled": Labeled,
    "parallel": partial(Parallel, source="text", target="label"),
}
WHOLE = {"validation": 0, "test": 0}
CAFE = {"text": Document("café"), "labeled": LabeledText("café", ("1",)), "parallel": Pair("café", "1")}
COLUMNS = {"text": "text", "label": "label"}


def tables(folder: Path, rows: list[dict[str, str]]) -> Iterator[Path]:
    """The same rows as other programs write them."""
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
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    yield folder / "rows.json"
    (folder / "lines.json").write_bytes((folder / "rows.jsonl").read_bytes())
    yield folder / "lines.json"
    for suffix in (".jsonl", ".csv", ".tsv", ".json"):
        (folder / f"rows{suffix}.gz").write_bytes(gzip.compress((folder / f"rows{suffix}").read_bytes()))
        yield folder / f"rows{suffix}.gz"


def test_a_column_is_the_same_from_every_kind_of_table(tmp_path: Path) -> None:
    words = ["NA", "12", 'two\n"lines"', "tab\tand, comma", "  ", "", "häß\u2028lich", '"']
    table = [{"label": str(number), "review": word} for number, word in enumerate(words)]
    for file in tables(tmp_path, table):
        read = sides(Text(path=str(file), column="review", **WHOLE))
        assert read == {"train": [word for word in words if word.strip()]}, file.name
        told = mistake(lambda file=file: list(Text(path=str(file), column="reviews").read()))
        assert "data.column=reviews" in told and told.endswith("did you mean review?")


DAMAGED = [
    ("a.csv", b"text,label\ncaf\xe9,1\n", "a.csv:2: not UTF-8"),
    ("a.tsv", b"text\tlabel\na\t1\ncaf\xe9\t1\n", "a.tsv:3: not UTF-8"),
    ("a.jsonl", b'{"text": "caf\xe9", "label": "1"}\n', "a.jsonl:1: not UTF-8"),
    ("a.json", b'[{"text": "a", "label": "1"},\n {"text": "caf\xe9", "label": "1"}]\n', "a.json:2: not UTF-8"),
    ("a.csv", b"text,label\na,1\na\0b,2\n", "a.csv:3: a NUL"),
    ("a.jsonl", b'{"text": "a\\u0000", "label": "1"}\n', "a.jsonl:1: a NUL"),
    ("a.jsonl", b'{"text": "a \\ud83d", "label": "1"}\n', "a.jsonl:1: half of a character"),
    ("a.csv", b"text,label\na,1\nb,2,3\n", "a.csv:3: 3 cells"),
    ("a.csv", b'text,label\n"a\nb",1\nb\n', "a.csv:4: 1 cells"),
    ("a.tsv", b"text\tlabel\na b\n", "a.tsv:2: 1 cells"),
    ("a.csv", b'text,label\n"a",1\n"b,2\nc,3\n', "a.csv:3: not readable as csv"),
    ("a.csv", b"text,text,label\na,b,1\n", "two columns have the name text"),
    ("a.jsonl", b'{"text": "a", "label": "1"}\n\n{"text": \n', "a.jsonl:3: not readable as JSON"),
    ("a.jsonl", b'{"text": "a", "label": "1"}\n["b", "2"]\n', "a.jsonl:2"),
    ("a.jsonl", b"[" * 99_999, "a.jsonl:1: not readable as JSON"),
    ("a.jsonl", b'{"text": "a", "label": "1"}\n{"text": 3, "label": "1"}\n', "a.jsonl:2 holds 3"),
    ("a.json", b'[{"text": "a", "label": "1"},\n\n {"text": }]', "a.json:3: not readable as JSON"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "a", "label": "1"}\n' * 99, mtime=0)[:-9], "a.jsonl.gz: cannot be read"),
    ("a.csv.gz", b"text,label\na,1\n", "a.csv.gz: cannot be read"),
    ("a.parquet", b"PAR1 and no more", "a.parquet: not readable as parquet"),
    *((f"a{end}", b"", "data.path") for end in (".csv", ".tsv", ".jsonl", ".json", ".parquet")),
    ("a.csv", b"text,label\n", "data.path"),
    ("a.csv", b"text,label\n ,1\n,\n", "data.path"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, content, told", DAMAGED)
def test_a_damaged_table_is_told_with_its_line(kind: str, name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert told in mistake(lambda: list(KINDS[kind](path=str(tmp_path / name)).read()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", "text,label\ncafé,1\n"),
        ("a.csv", "\ufefftext,label\r\ncafé,1\r\n"),
        ("a.csv", '\ntext,label\n\n"café",1\n\n , \n'),
        ("a.tsv", "\ufefftext\tlabel\r\ncafé\t1"),
        ("a.jsonl", '\ufeff{"text": "café", "label": "1"}\r\n\r\n{"text": "", "label": ""}\r\n'),
        ("a.jsonl", '{"text": "café", "label": "1", "more": {}}\n{"text": null}\n'),
        ("a.json", '\ufeff\n [{"text": "caf\\u00e9", "label": "1"}]'),
    ],
)
def test_what_is_harmless_is_read_as_if_it_were_not_there(kind: str, name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, newline="")
    (example,) = examples(KINDS[kind](path=str(tmp_path / name), **WHOLE))["train"]
    assert example == CAFE[kind]


@pytest.mark.parametrize("kind", ["labeled", "parallel"])
def test_a_line_may_hold_other_ends_of_lines(kind: str, tmp_path: Path) -> None:
    text = "a\u2028b\u0085c\x0bd"
    for name, content in {
        "a.csv": f"text,label\n{text},1\n",
        "a.tsv": f"text\tlabel\n{text}\t1\n",
        "a.jsonl": json.dumps({"text": text, "label": "1"}, ensure_ascii=False),
    }.items():
        (tmp_path / name).write_text(content)
        (example,) = examples(KINDS[kind](path=str(tmp_path / name), **WHOLE))["train"]
        assert example.texts[0] == text, name


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_cell_may_hold_any_end_of_line_that_does_not_end_the_row(end: str, tmp_path: Path) -> None:
    for suffix, sign in ((".csv", ","), (".tsv", "\t")):
        lines = [f"text{sign}label", f'"a{end}b"{sign}1', f"c{sign}2", ""]
        stray = [f"text{sign}label", f"a\rb{sign}1", f"c{sign}2", ""]  # as pandas writes it
        for content in [lines] if end == "\r" else [lines, stray]:
            file = tmp_path / f"{len(content[1])}{suffix}"
            file.write_text(end.join(content), newline="")
            assert examples_texts(Labeled(path=str(file), **WHOLE)) == ["a\nb", "c"]


def test_a_truncated_parquet_is_told(tmp_path: Path) -> None:
    import datasets

    file = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"text": ["a"] * 999, "label": ["1"] * 999}).to_parquet(str(file))
    assert len(examples(Labeled(path=str(file), **WHOLE))["train"]) == 999
    file.write_bytes(file.read_bytes()[:-20])
    assert "a.parquet: not readable as parquet" in mistake(lambda: list(Labeled(path=str(file)).read()))


@pytest.mark.parametrize("kind", ["labeled", "parallel"])
@pytest.mark.parametrize("header", ["texts,labels", "label,review", "text,lable"])
def test_a_missing_column_is_told_with_the_nearest_one(kind: str, header: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\na,b\n")
    told = mistake(lambda: list(KINDS[kind](path=str(tmp_path / "a.csv")).read()))
    assert "no such column in" in told and ("did you mean" in told) == (header != "label,review"), told
    assert ("_column=" in told) == (kind == "labeled")


def test_what_skips_rows_says_how_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "a.csv").write_text("text,label\na,1\n ,2\n\t,\n")
    assert len(examples(Labeled(path=str(tmp_path / "a.csv"), **WHOLE))["train"]) == 1
    assert f"data.path={tmp_path}/a.csv: skipped 2 examples without any text" in caplog.messages


# Quotes in a TSV


def test_a_quote_in_a_tsv_is_a_quote_unless_the_cells_are_quoted(tmp_path: Path) -> None:
    plain, quoted = tmp_path / "plain.tsv", tmp_path / "quoted.tsv"
    plain.write_text('text\tlabel\n"Hello" he said\t1\nan inch: "\t2\n"so\t3\n')
    quoted.write_text('text\tlabel\n"a ""b""\nc"\t1\n')
    assert [row["text"] for _, row in rows(plain, COLUMNS)] == ['"Hello" he said', 'an inch: "', '"so']
    assert [row["text"] for _, row in rows(quoted, COLUMNS)] == ['a "b"\nc']


TWO_QUOTES = 'text\tlabel\na\t1\n"so he said\t2\nb\t3\nit ends"\t4\nc\t5\n'


@pytest.mark.parametrize("kind", KINDS)
def test_quotes_in_two_rows_of_a_tsv_swallow_no_row_between(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.tsv").write_text(TWO_QUOTES)
    source = KINDS[kind](path=str(tmp_path), **WHOLE)
    read = [example.texts[0] for example in examples(source)["train"]]
    assert read == examples_texts(source) == ["a", '"so he said', "b", 'it ends"', "c"]
    (told,) = caplog.messages  # once, however often it is read
    assert told.startswith(f"{tmp_path}/a.tsv: read without quoted cells, for 1 of its cells")
    quoted = examples_texts(KINDS[kind](path=str(tmp_path), quoting="minimal", **WHOLE))
    assert quoted == (["a", "so he said\t2\nb\t3\nit ends", "c"])
    assert source.cache_key() != KINDS[kind](path=str(tmp_path), quoting="minimal", **WHOLE).cache_key()


def examples_texts(source: Any) -> list[str]:
    return [example.texts[0] for example in examples(source)["train"]]


def test_how_a_tsv_with_quotes_is_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name, content, said in (
        ("none.tsv", "text\tlabel\na\t1\n", None),
        ("signs.tsv", 'text\tlabel\n"a" b\t1\n', "read without quoted cells: a quote is a sign"),
        ("cells.tsv", 'text\tlabel\n"a\nb"\t1\n', "read with quoted cells"),
        ("header.tsv", '"text"\t"label"\n"a\t1\nb"\t"1"\n', "read with quoted cells"),
        ("column.tsv", 'text\n"a\nb"\n', "read with quoted cells"),
        ("none.csv", 'text,label\n"a",1\n', None),
        ("doubt.csv", 'text,label\n"a, b\nc, d",1\n', None),
        ("most.csv", 'text,label\n"a,1\nb",1\n', "read with quoted cells, though 1 of its cells"),
    ):
        (tmp_path / name).write_text(content)
        caplog.clear()
        for _ in range(2):
            list(rows(tmp_path / name, ["text"]))
        assert len(caplog.messages) == (said is not None) and (said or "") in caplog.text, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_stray_quote_in_a_csv_is_told_with_what_reads_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"Hello" he said,1\n')
    told = mistake(lambda: list(KINDS[kind](path=str(tmp_path)).read()))
    assert "a.csv:2: not readable as csv" in told and "data.quoting=none" in told
    assert examples_texts(KINDS[kind](path=str(tmp_path), quoting="none", **WHOLE)) == ['"Hello" he said']


@pytest.mark.parametrize("kind", KINDS)
def test_what_parts_the_cells_is_found_by_the_columns_or_told(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for sign, word in ((";", ";"), ("\t", "tab"), ("|", "pipe"), ("\t", r"\t")):
        (tmp_path / "a.csv").write_text(f'text{sign}label\n"a, b"{sign}1\n')
        for options in ({}, {"delimiter": word}):
            assert examples_texts(KINDS[kind](path=str(tmp_path), **options, **WHOLE)) == ["a, b"]
    assert "a.csv: cells are parted by ;, as its header says" in caplog.text
    (tmp_path / "a.csv").write_text("text:label\na:1\n")
    assert examples_texts(KINDS[kind](path=str(tmp_path), delimiter=":", **WHOLE)) == ["a"]
    assert "no such column" in mistake(lambda: list(KINDS[kind](path=str(tmp_path)).read()))
    for wrong in ("", "ab", '"', "\n"):
        assert "data.delimiter=" in mistake(lambda wrong=wrong: KINDS[kind](path=str(tmp_path), delimiter=wrong))


@pytest.mark.parametrize(
    "name, content, what",
    [
        ("a.csv", "text,label\n" + "a,1\nb\n" * 12, "1 cells in this row and 2 in the header"),
        ("a.jsonl", '{"text": "a"}\n' + '{"text": "a"}\n{"text": a}\n' * 12, "not readable as JSON: Expecting value"),
    ],
)
def test_lines_in_which_the_same_is_wrong_are_counted_and_named(
    name: str, content: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    told = mistake(lambda: list(rows(tmp_path / name, ["text"])))
    assert told.startswith(f"{tmp_path}/{name}:3: {what}; alike in 11 more: {tmp_path}/{name}:5, ")
    assert told.count(f"{name}:") == 10 and told.endswith(f"{name}:21, …")


def test_of_a_single_column_a_blank_line_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n\nb\n")
    assert [row["text"] for _, row in rows(tmp_path / "a.csv", ["text"])] == ["a", "", "b"]
    (tmp_path / "b.csv").write_text("text,label\na,1\n\nb,1\n")
    assert [row["text"] for _, row in rows(tmp_path / "b.csv", ["text"])] == ["a", "b"]


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.lists(st.tuples(CELL, CELL), min_size=1))
def test_any_cells_come_back_from_a_table_with_the_line_of_their_row(cells: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
            file = Path(folder) / f"a{suffix}"
            with file.open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream, delimiter=delimiter).writerows([("text", "label"), *cells])
            read = list(rows(file, COLUMNS))
            assert [(row["text"], row["label"]) for _, row in read] == cells
            assert [where for where, _ in read] == [f"{file}:{number}" for number in range(2, len(cells) + 2)]

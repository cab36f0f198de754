"""Translations stay beside their texts, line by line or row by row; what does not fit together is told."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import examples, mistake
from transformer_lab.data.examples import Pair
from transformer_lab.data.sources.parallel import Parallel, aligned


def parallel(path: Path | str, **options: Any) -> Parallel:
    return Parallel(path=str(path), **{"source": "en", "target": "de", "validation": 0, "test": 0, **options})


def write(folder: Path, english: bytes | str, german: bytes | str) -> None:
    for language, content in (("en", english), ("de", german)):
        data = content.encode() if isinstance(content, str) else content
        (folder / f"train.{language}").write_bytes(data)


def test_lines_are_pairs_however_their_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a\nb\n", "ä\nß")
    pairs = [Pair("a", "ä"), Pair("b", "ß")]
    for path in (tmp_path, tmp_path / "train", tmp_path / "train.en", tmp_path / "train.de", f"{tmp_path}/*"):
        assert examples(parallel(path)) == {"train": pairs}, path
    turned = [Pair(pair.target, pair.source) for pair in pairs]
    assert examples(parallel(tmp_path, source="de", target="en")) == {"train": turned}
    (tmp_path / "train.de.gz").write_bytes(gzip.compress((tmp_path / "train.de").read_bytes()))
    (tmp_path / "train.de").unlink()
    for path in (tmp_path, tmp_path / "train", tmp_path / "train.de.gz"):
        assert examples(parallel(path)) == {"train": pairs}, path


WORDS = st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_line_ends_where_it_ends_and_nowhere_else(pairs: list[tuple[str, str]], end: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder, "a.en"), Path(folder, "a.de")
        one.write_text("\ufeff" + "".join(f"{pair[0]}{end}" for pair in pairs), encoding="utf-8", newline="")
        other.write_text("\ufeff" + "".join(f"{pair[1]}\n" for pair in pairs), encoding="utf-8", newline="")
        assert list(aligned(one, other)) == [Pair(*pair) for pair in pairs]


def test_a_carriage_return_ends_a_line_only_where_no_line_feed_does(tmp_path: Path) -> None:
    write(tmp_path, "a\rb\rc\r", "A\nB\r\nC")
    assert examples(parallel(tmp_path)) == {"train": [Pair("a", "A"), Pair("b", "B"), Pair("c", "C")]}
    write(tmp_path, "a\rb\nc\n", "A\nB\rC\n")
    assert examples(parallel(tmp_path)) == {"train": [Pair("a\nb", "A"), Pair("c", "B\nC")]}
    write(tmp_path, b"a\rcaf\xe9\rc", "A\nB\nC")
    assert "train.en:2: not UTF-8" in mistake(lambda: examples(parallel(tmp_path)))


@pytest.mark.parametrize("english, german", [(3, 2), (2, 3), (0, 5), (1_000, 1)])
def test_files_of_different_lengths_are_told_with_both_counts(english: int, german: int, tmp_path: Path) -> None:
    write(tmp_path, "a\n" * english, "b\n" * german)
    told = mistake(lambda: examples(parallel(tmp_path)))
    assert f"train.en has {english:,} lines" in told and f"train.de {german:,}:" in told
    write(tmp_path, "a\n" * english, "b\n" * english or " ")
    assert len(examples(parallel(tmp_path))["train"]) == english if english else True


@pytest.mark.parametrize(
    "english, german, told",
    [
        (b"a\nb\n", b"a\ncaf\xe9\n", "train.de:2: not UTF-8"),
        (b"a\nb\0\n", b"a\nb\n", "train.en:2: a NUL"),
        (b"", b"", "no text in it"),
        (b"\n \n\n", b"a\n\nb\n", "no text in it"),
    ],
)
def test_damaged_lines_are_told(english: bytes, german: bytes, told: str, tmp_path: Path) -> None:
    write(tmp_path, english, german)
    assert told in mistake(lambda: examples(parallel(tmp_path)))


def test_a_pair_with_a_blank_side_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(tmp_path, "a\n\nc\n \ne\n", "A\nB\n\t\n \nE\n")
    assert examples(parallel(tmp_path)) == {"train": [Pair("a", "A"), Pair("e", "E")]}
    assert "skipped 3 examples" in caplog.text


def test_a_file_without_its_translation_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a\n", "b\n")
    (tmp_path / "test.de").write_text("c\n")
    assert mistake(lambda: parallel(tmp_path)).endswith("test.de has no test.en beside it")
    assert mistake(lambda: parallel(tmp_path / "test")).endswith("test.de has no test.en beside it")
    assert examples(parallel(tmp_path / "train")) == {"train": [Pair("a", "b")]}
    assert mistake(lambda: parallel(tmp_path / "train", target="fr")).endswith("train.en has no train.fr beside it")
    assert "is no table" in mistake(lambda: parallel(__file__))
    assert "data.source and data.target" in mistake(lambda: parallel(tmp_path, target="en"))


def test_rows_are_pairs_in_columns_of_their_own_or_within_the_translation(tmp_path: Path) -> None:
    import datasets

    table = [{"id": "1", "en": "a", "de": "ä"}, {"id": "2", "en": "b", "de": "ß"}]
    nested = [{"id": row["id"], "translation": {"en": row["en"], "de": row["de"]}} for row in table]
    (tmp_path / "a.tsv").write_text("id\ten\tde\n" + "".join("\t".join(row.values()) + "\n" for row in table))
    (tmp_path / "a.csv").write_text("id,en,de\n" + "".join(",".join(row.values()) + "\n" for row in table))
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, table)))
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, [*nested, {"translation": None}])))
    datasets.Dataset.from_list(table).to_parquet(str(tmp_path / "a.parquet"))
    datasets.Dataset.from_list(nested).to_parquet(str(tmp_path / "b.parquet"))
    for file in sorted(tmp_path.iterdir()):
        assert examples(parallel(file)) == {"train": [Pair("a", "ä"), Pair("b", "ß")]}, file.name
        told = mistake(lambda file=file: examples(parallel(file, target="ge")))
        assert told.startswith("data.target=ge: no such column") and "de" in told


def test_line_aligned_files_come_before_tables_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "a\n", "b\n")
    (tmp_path / "languages.csv").write_text("code,name\nen,English\n")
    assert examples(parallel(tmp_path)) == {"train": [Pair("a", "b")]}


def test_the_signature_tells_changed_files_and_options(tmp_path: Path) -> None:
    write(tmp_path, "a\n", "b\n")
    before = json.dumps(parallel(tmp_path).cache_key())
    assert json.dumps(parallel(tmp_path).cache_key()) == before
    assert json.dumps(parallel(tmp_path, source="de", target="en").cache_key()) != before
    (tmp_path / "train.de").write_text("ccc\n")
    assert json.dumps(parallel(tmp_path).cache_key()) != before

"""Files find their splits by name or by path, keep them apart, and lend what is missing from train."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import examples, mistake, sides
from transformer_lab.data.sources.base import HashSplit
from transformer_lab.data.sources.files import Files
from transformer_lab.data.sources.labeled import Labeled
from transformer_lab.data.sources.parallel import Parallel
from transformer_lab.data.sources.text import Text

KINDS: dict[str, Any] = {"text": Text, "labeled": Labeled, "parallel": partial(Parallel, source="en", target="de")}


def write(kind: str, folder: Path, *names: str, rows: int = 1) -> None:
    """Files of that name and kind, whose texts begin with their name."""
    for name in names:
        texts = [f"{name} {number}" for number in range(rows)]
        if kind == "parallel":
            for language in ("en", "de"):
                (folder / f"{name}.{language}").write_text("".join(f"{text}\n" for text in texts))
        elif kind == "labeled":
            (folder / f"{name}.tsv").write_text("text\tlabel\n" + "".join(f"{text}\ta\n" for text in texts))
        else:
            (folder / f"{name}.txt").write_text("\n".join(texts))


def origins(source: Files) -> dict[str, set[str]]:
    """The names of the files that the texts of each split came from."""
    return {split: {e.texts[0].split()[0] for e in found} for split, found in examples(source).items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("test", ["test", "test_2016", "test-b", "test.c", "test2"])
def test_a_folder_with_a_train_file_brings_its_own_splits(
    kind: str, validation: str, test: str, tmp_path: Path
) -> None:
    write(kind, tmp_path, "train", validation, test, "testament", "other")
    assert origins(KINDS[kind](path=str(tmp_path))) == {"train": {"train"}, "validation": {validation}, "test": {test}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_one_is_all_one_corpus(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path, "training", "test", "dev")
    assert origins(KINDS[kind](path=str(tmp_path), validation=0, test=0)) == {"train": {"training", "test", "dev"}}


@pytest.mark.parametrize("kind", KINDS)
def test_two_candidates_for_a_split_are_told_until_one_is_chosen(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path, "train", "test_2016", "test_2017", "dev")
    told = mistake(lambda: KINDS[kind](path=str(tmp_path)))
    assert "test_2016" in told and "test_2017" in told and told.endswith("set data.test_path")
    end = {"text": ".txt", "labeled": ".tsv", "parallel": ""}[kind]
    source = KINDS[kind](path=str(tmp_path), test_path=str(tmp_path / f"test_2017{end}"))
    assert origins(source) == {"train": {"train"}, "validation": {"dev"}, "test": {"test_2017"}}


@pytest.mark.parametrize("kind", ["labeled", "parallel"])
def test_only_missing_splits_are_cut_from_train(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path, "train", rows=200)
    write(kind, tmp_path, "test", rows=3)
    read = examples(KINDS[kind](path=str(tmp_path), validation=0.2, test=0.2))
    assert len(read["train"] + read["validation"]) == 200 and 20 < len(read["validation"]) < 60
    assert [example.texts[0] for example in read["test"]] == ["test 0", "test 1", "test 2"]
    assert len(examples(KINDS[kind](path=str(tmp_path), validation=0))["train"]) == 200


def test_the_parts_of_a_large_split_belong_together(tmp_path: Path) -> None:
    write("labeled", tmp_path, "train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")
    found = origins(Labeled(path=str(tmp_path), validation=0))
    assert found == {"train": {"train-00000-of-00002", "train-00001-of-00002"}, "test": {"test-00000-of-00001"}}
    (tmp_path / "train.csv").write_text("text,label\n")
    assert mistake(lambda: Labeled(path=str(tmp_path))).endswith(
        "train.csv and train.tsv are each a train split; set data.path"
    )


def test_files_of_other_splits_leave_the_rest_of_the_path_to_train(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.txt" for name in ("train", "validation", "test")}
    for name, file in files.items():
        file.write_text(name * 100)
    given = {"validation_path": str(files["validation"]), "test_path": str(files["test"])}
    assert sides(Text(path=str(files["train"]), **given)) == {name: [name * 100] for name in files}
    cut = sides(Text(path=str(files["train"]), validation=0.1, test_path=given["test_path"]))
    assert cut == {"train": [("train" * 100)[:450]], "validation": [("train" * 100)[450:]], "test": ["test" * 100]}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_another_split_reads_is_trained_on(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path, "one", "two")
    path = str(tmp_path / {"text": "two.txt", "labeled": "two.tsv", "parallel": "two"}[kind])
    assert origins(KINDS[kind](path=str(tmp_path), test_path=path, validation=0)) == {"train": {"one"}, "test": {"two"}}
    assert "nothing to train on" in mistake(lambda: KINDS[kind](path=path, test_path=path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_is_not_there_is_told_with_the_nearest_one(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind]
    (tmp_path / "novels").mkdir()
    assert f"did you mean {tmp_path}/novels?" in mistake(lambda: source(path=f"{tmp_path}/novel/deep/a.txt"))
    assert "no file in it ends with" in mistake(lambda: source(path=str(tmp_path)))
    assert "no file matches" in mistake(lambda: source(path=f"{tmp_path}/*.tsv"))
    write(kind, tmp_path, "one")
    assert "data.test_path" in mistake(lambda: source(path=str(tmp_path), test_path=f"{tmp_path}/two.tsv"))


# Files that cannot be read


@pytest.mark.parametrize("kind", KINDS)
def test_all_files_that_are_no_text_are_told_at_once_or_left_out(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number:02}" for number in range(30)]
    write(kind, tmp_path, *names, rows=3)
    end = {"text": ".txt", "labeled": ".tsv", "parallel": ".de"}[kind]
    for name in names[10:18]:
        file = tmp_path / f"{name}{end}"
        file.write_bytes(file.read_bytes().replace(b" 1", b"\0" if name == "17" else b"\xe9"))
    told = mistake(lambda: list(KINDS[kind](path=str(tmp_path)).read()))
    assert told.startswith(f"data.path={tmp_path}: 8 of 30 files cannot be read: {tmp_path}/10{end}:")
    assert told.count(": not UTF-8") == 5 and told.endswith("; and 3 more; data.unreadable=skip leaves them out")
    source = KINDS[kind](path=str(tmp_path), unreadable="skip", validation=0, test=0)
    assert source.cache_key() != KINDS[kind](path=str(tmp_path), validation=0, test=0).cache_key()
    for _ in range(2):
        assert origins(source) == {"train": {*names[:10], *names[18:]}}
    (said,) = caplog.messages  # once, however often it is read
    assert said.startswith(f"data.path={tmp_path}: skipped, for 8 of 30 files cannot be read: ")


def test_what_one_may_not_read_is_told_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("text", tmp_path, "a", "b")
    access = os.access  # root may read anything
    monkeypatch.setattr(os, "access", lambda path, mode: "b.txt" not in str(path) and access(path, mode))
    told = mistake(lambda: Text(path=str(tmp_path)).cache_key())
    assert f"1 of 2 files cannot be read: {tmp_path}/b.txt: no permission to read it; data.unreadable=skip" in told
    Text(path=str(tmp_path), unreadable="skip").cache_key()


def test_texts_that_differ_by_composition_only_are_on_one_side(tmp_path: Path) -> None:
    """é is one code point or two: as files of macOS and of the web have it."""
    split_by_hash = HashSplit(validation=0.3, test=0.3)
    for number in range(50):
        assert split_by_hash.side(f"caf\u00e9 {number}") == split_by_hash.side(f"CAFE\u0301  {number}")

"""Labels are read as one would write them, one a row or several; what names no class is refused with its row."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.data.conftest import examples, mistake
from transformer_lab.data.examples import LabeledText
from transformer_lab.data.sources.base import HashSplit
from transformer_lab.data.sources.labeled import Labeled


def labels(folder: Path, name: str, content: str, **options: Any) -> list[tuple[str, ...]]:
    (folder / name).write_text(content)
    source = Labeled(path=str(folder / name), validation=0, test=0, **options)
    return [example.labels for example in examples(source)["train"]]


def json_lines(*values: object) -> str:
    return "\n".join(json.dumps({"text": "a", "label": value}) for value in values)


def test_a_label_is_what_one_would_write(tmp_path: Path) -> None:
    values = ["Sci/Tech", " 1 ", 1, -3, 2.0, True, False, "true"]
    written = ["Sci/Tech", "1", "1", "-3", "2", "true", "false", "true"]
    assert labels(tmp_path, "a.jsonl", json_lines(*values)) == [(label,) for label in written]


def test_the_same_labels_from_any_kind_of_table(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [3, 0]})
    table.to_parquet(str(tmp_path / "a.parquet"))
    source = Labeled(path=str(tmp_path / "a.parquet"), validation=0, test=0)
    assert [e.labels for e in examples(source)["train"]] == [("3",), ("0",)]
    assert labels(tmp_path, "a.csv", "text,label\na,3\nb,0\n") == [("3",), ("0",)]
    assert labels(tmp_path, "a.jsonl", json_lines(3, 0)) == [("3",), ("0",)]


def test_the_numbers_of_classes_in_parquet_become_their_names(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["bad", "good"])
    for kind, values, expected in (
        (names, [1, 0], [("good",), ("bad",)]),
        (datasets.List(names), [[1, 0], []], [("good", "bad"), ()]),
    ):
        features = datasets.Features({"text": datasets.Value("string"), "label": kind, "other": names})
        table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": values, "other": [0, 1]}, features)
        table.to_parquet(str(tmp_path / "a.parquet"))
        source = Labeled(path=str(tmp_path / "a.parquet"), validation=0, test=0)
        assert [e.labels for e in examples(source)["train"]] == expected


def test_several_labels_stand_in_a_list_or_between_separators(tmp_path: Path) -> None:
    content = "text,label\na,x; y ;x\nb,\nc,z;\n"
    assert labels(tmp_path, "a.csv", content, separator=";") == [("x", "y"), (), ("z",)]
    assert labels(tmp_path, "a.csv", content.replace("b,\n", "")) == [("x; y ;x",), ("z;",)]
    for separator in (None, ";"):
        values = labels(tmp_path, "a.jsonl", json_lines(["x", 2, True], [], ["a;b"]), separator=separator)
        assert values == [("x", "2", "true"), (), ("a;b",)]


def test_a_number_is_a_label_as_it_is_written_and_a_whole_one_without_a_point(tmp_path: Path) -> None:
    content = json_lines(0.5, 3, 2.0, -1.25)
    assert labels(tmp_path, "a.jsonl", content) == [("0.5",), ("3",), ("2",), ("-1.25",)]


@pytest.mark.parametrize("value", ["", " ", None, float("nan"), float("inf"), {"a": 1}, [["a"]], ["a", ""], [None]])
def test_what_names_no_class_is_refused_with_its_row(value: object, tmp_path: Path) -> None:
    told = mistake(lambda: labels(tmp_path, "a.jsonl", json_lines("a", value)))
    assert told.startswith(f"data.label_column=label: {tmp_path}/a.jsonl:2 ")
    assert ("has no label" in told) == (value in ("", " ", None) or value != value or value in (["a", ""], [None]))


def test_a_row_without_a_label_is_refused_and_one_without_a_text_skipped(tmp_path: Path) -> None:
    content = "review,stars\na,5\n,\nb,4\n"
    options = {"text_column": "review", "label_column": "stars"}
    assert labels(tmp_path, "a.csv", content, **options) == [("5",), ("4",)]
    told = mistake(lambda: labels(tmp_path, "a.csv", content.replace("b,4", "b,"), **options))
    assert told == f"data.label_column=stars: {tmp_path}/a.csv:4 has no label; data.missing_label=skip leaves it out"
    told = mistake(lambda: labels(tmp_path, "a.jsonl", '{"text": "a", "label": "b"}\n{"text": "c"}'))
    assert "a.jsonl:2 has no label; " in told


def test_rows_without_a_label_are_counted_and_named_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "a,x\nb,\n" * 7)
    (tmp_path / "b.csv").write_text("text,label\n" + "c,\nd,x\n" * 7)
    told = mistake(lambda: examples(Labeled(path=str(tmp_path))))
    assert told.startswith(f"data.label_column=label: 14 rows have no label ({tmp_path}/a.csv:3; {tmp_path}/a.csv:5;")
    assert told.count(".csv:") == 10 and told.endswith("; and 4 more); data.missing_label=skip leaves them out")
    source = Labeled(path=str(tmp_path), missing_label="skip", validation=0, test=0)
    for _ in range(2):
        assert [example.text for example in examples(source)["train"]] == ["a"] * 7 + ["d"] * 7
    (said,) = caplog.messages  # once, however often it is read
    assert said.startswith(f"data.path={tmp_path}: skipped, for 14 rows have no label ({tmp_path}/a.csv:3;")


def test_a_text_keeps_its_spaces_and_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n" a\r\nb ",x\n', newline="")
    assert examples(Labeled(path=str(tmp_path), validation=0, test=0)) == {"train": [LabeledText(" a\nb ", ("x",))]}


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    path = str(tmp_path / "a.csv")
    assert "data.separator" in mistake(lambda: Labeled(path=path, separator=""))
    assert "data.label_column" in mistake(lambda: Labeled(path=path, text_column="label"))
    assert "data.path" in mistake(lambda: Labeled(path=__file__))


def test_the_signature_tells_changed_options(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    changed: list[dict[str, Any]] = [{}, {"text_column": "a"}, {"label_column": "b"}, {"separator": ";"}, {"test": 0.1}]
    changed += [{"missing_label": "skip"}, {"quoting": "none"}, {"delimiter": ";"}, {"unreadable": "skip"}]
    assert len({json.dumps(Labeled(path=str(tmp_path), **o).cache_key()) for o in [*changed, *changed]}) == len(changed)


# --- tables as they are ---------------------------------------------------------------------------------------


def mails(folder: Path, count: int = 2000) -> Path:
    """Mails of 150 customers, who write more or less, in five classes of which the smallest has two."""
    draw = random.Random(0)
    rows = ["subject,body,customer,kind"]
    for number in range(count):
        kind = draw.choices(["bug", "bill", "praise", "spam"], [70, 20, 9, 1])[0] if number > 1 else "rare"
        customer = int(150 * draw.random() ** 2)
        rows.append(f"about {number},{'' if number % 10 == 0 else f'text {number} of it'},c{customer},{kind}")
    (folder / "mails.csv").write_text("\n".join(rows))
    return folder / "mails.csv"


MAILS: dict[str, Any] = {"text_column": ["subject", "body"], "label_column": "kind"}


def test_several_columns_make_one_text_one_below_the_other(tmp_path: Path) -> None:
    read = examples(Labeled(path=str(mails(tmp_path, 30)), validation=0, test=0, **MAILS))["train"]
    assert [one.text for one in read[:2]] == ["about 0", "about 1\ntext 1 of it"]
    told = mistake(
        lambda: examples(Labeled(path=str(tmp_path / "mails.csv"), **MAILS | {"text_column": ["subject", "bdy"]}))
    )
    assert told.startswith("data.text_column[1]=bdy: no such column") and told.endswith("did you mean body?")
    told = mistake(lambda: Labeled(path=str(tmp_path / "mails.csv"), **MAILS | {"text_column": ["subject", "kind"]}))
    assert told == "data.text_column and data.label_column are both kind"
    assert "data.text_column is empty" in mistake(lambda: Labeled(path=str(tmp_path / "mails.csv"), text_column=[]))


def test_no_customer_is_on_two_sides(tmp_path: Path) -> None:
    read = examples(Labeled(path=str(mails(tmp_path)), validation=0.1, test=0.2, group_column="customer", **MAILS))
    groups = [{one.group for one in found} for found in read.values()]
    assert len(groups) == 3 and sum(map(len, groups)) == len(set().union(*groups)) > 100
    assert 0.02 < len(read["validation"]) / 2000 < 0.25 and 0.08 < len(read["test"]) / 2000 < 0.4
    (tmp_path / "mails.csv").open("a").write("\na,b,,bug")
    told = mistake(lambda: examples(Labeled(path=str(tmp_path / "mails.csv"), group_column="customer", **MAILS)))
    assert told == f"data.group_column=customer: {tmp_path}/mails.csv:2002 names no group"


def test_each_class_has_its_share_and_the_split_is_the_same_each_time(tmp_path: Path) -> None:
    options = {"validation": 0.1, "test": 0.2, "stratify": True, **MAILS}
    read = examples(Labeled(path=str(mails(tmp_path)), **options))
    counts = {side: Counter(one.labels[0] for one in found) for side, found in read.items()}
    whole = sum(counts.values(), Counter())
    for kind, total in whole.items():
        for side, share in (("validation", 0.1), ("test", 0.2)):
            wanted = round(total * share) if kind != "rare" else 0
            assert abs(counts[side][kind] - wanted) <= 1 + total / 1000, (kind, side)
    assert examples(Labeled(path=str(tmp_path / "mails.csv"), **options)) == read
    told = mistake(lambda: Labeled(path=str(tmp_path / "mails.csv"), group_column="customer", **options))
    assert told.startswith("data.stratify and data.group_column: one of them")


@given(st.integers(3, 60), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
@example(4, 0.375, 0.375)  # of which both would be rounded up to half of the texts
@example(8, 0.03, 0.945)
@example(48, 0.15625, 0.015625)  # two of which have nearly the same hash
def test_a_class_of_three_or_more_is_in_every_split(count: int, validation: float, test: float) -> None:
    split = HashSplit(validation=validation, test=test, stratum=lambda one: one.labels[0])
    read = [LabeledText(f"{kind} {number}", (kind,)) for kind in "ab" for number in range(count)]
    found = {(one.labels[0], side) for side, one in split(lambda: read)}
    assert found == {(kind, side) for kind in "ab" for side in ("train", "validation", "test")}

"""Predicting reads a file as training does, says as much as was asked, in order, and loses nothing of the input."""

import csv
import functools
import gzip
import io
import json
import os
import runpy
import sys

import pytest

from tests.conftest import CELLS, SMALL, settings, small_task
from tests.programs import ROOT
from transformer_lab.composition.script import arguments
from transformer_lab.finished import loaded_run as finished
from transformer_lab.finished import predictions
from transformer_lab.finished.loaded_run import LoadedRun

SOURCES = {
    "language_modeling": ["data=text", "data.path=x", "data.column=review"],
    "classification": ["data=labeled", "data.path=x", "data.text_column=review"],
    "translation": ["data=parallel", "data.path=x", "data.source=review", "data.target=de"],
    "mlm_nsp": ["data=text", "data.path=x", "data.column=review"],
}
SAID = {
    "language_modeling": "continuation",
    "classification": "label",
    "translation": "translation",
    "mlm_nsp": "filled",
}
ENDS = ["a\u2028b", "c\u0085d", "e\x0cf\x1cg", "", "h"]  # five lines, whatever Unicode calls the end of one
ROWS = [{"id": str(number), "review": text} for number, text in enumerate(["one", 'two\n"lines"', "", " , ", "five"])]


@pytest.fixture(scope="module", params=SOURCES)
def run(request):
    words = [*CELLS[request.param], *SOURCES[request.param], "task.context=24"]
    return LoadedRun(small_task(*words), settings(*SMALL, *words), "")


@pytest.fixture
def predict(run, monkeypatch, capsys):
    """`python scripts/predict.py run=r WORDS` with this run: what it prints."""
    monkeypatch.setattr(finished, "load_run", lambda folder, extensions, options: run)
    main = runpy.run_path(str(ROOT / "scripts" / "predict.py"))["main"]
    fast = ["max_new_tokens=2", "temperature=0"] if run.task.name == "language_modeling" else []

    def call(*words, piped=None):
        if piped is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        main(**arguments(main, ["run=r", *fast, *words]))
        return capsys.readouterr().out

    return call


def said(printed):
    return [json.loads(line) for line in printed.split("\n")[:-1]]


def table(file, delimiter=","):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def write_table(folder, end, rows):
    """These rows, as other programs write them."""
    import datasets

    file, made = folder / f"rows{end}", datasets.Dataset.from_list(rows)
    if end == ".parquet":
        made.to_parquet(str(file))
    elif end.startswith(".jsonl"):
        made.to_json(str(file), compression="gzip" if end.endswith("gz") else None)
    else:
        made.to_csv(str(file), sep="\t" if end == ".tsv" else ",")
    return file


def test_a_text_has_as_many_lines_out_as_in(predict, run, tmp_path):
    for end in ("\n", "\r\n", "\r"):
        content = ("\ufeff" + "".join(line + end for line in ENDS)).encode()
        (tmp_path / "a.txt").write_bytes(content)
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
        for word, piped in (
            (f"file={tmp_path}/a.txt", None),
            ("file=-", content),
            (f"input={tmp_path}/a.txt.gz", None),
        ):
            printed = predict(word, "json=true", piped=piped)
            assert [one["input"] for one in said(printed)] == ENDS
    lines = predict(f"file={tmp_path}/a.txt")
    assert len(lines.splitlines()) == len(ENDS)  # also for those who take the others for ends of lines
    predict(f"file={tmp_path}/a.txt", f"output={tmp_path}/out.txt")
    assert (tmp_path / "out.txt").read_text() == lines
    predict(f"file={tmp_path}/a.txt", f"output={tmp_path}/out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == printed
    predict(f"file={tmp_path}/a.txt", f"output={tmp_path}/out.csv")
    assert [row["input"] for row in table(tmp_path / "out.csv")] == ENDS


@pytest.mark.parametrize("end", [".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_a_table_is_read_by_its_column_and_comes_back_with_what_was_said(predict, run, end, tmp_path):
    if run.task.name != "classification" and end != ".csv":
        pytest.skip("as with the others, but slower")
    file = write_table(tmp_path, end, ROWS)
    found = said(predict(f"file={file}", "json=true"))
    assert [one["input"] for one in found] == [row["review"] for row in ROWS]
    for name, delimiter in (("out.csv", ","), ("out.tsv", "\t")):
        predict(f"file={file}", f"output={tmp_path / name}")
        rows = table(tmp_path / name, delimiter)
        assert [{"id": row["id"], "review": row["review"]} for row in rows] == ROWS
        assert [row["prediction"] for row in rows] == [one[SAID[run.task.name]] or "" for one in found]
        if run.task.name == "classification":
            shares = [{label: float(row[f"probabilities.{label}"]) for label in run.task.labels} for row in rows]
            assert shares == [one["probabilities"] for one in found]
    predict(f"file={tmp_path}/out.csv", f"output={tmp_path}/again.csv")
    (again,) = {tuple(row.items()) for row in table(tmp_path / "again.csv")[:1]}
    names = (tmp_path / "again.csv").read_text().splitlines()[0].split(",")
    assert len(set(names)) == len(names) == len(again) and {"prediction", "prediction_"} <= set(names)


def test_texts_that_were_cut_are_named(predict, run, tmp_path, caplog):
    if run.task.name == "mlm_nsp":
        pytest.skip("which says that the text is too long")
    (tmp_path / "a.csv").write_text(f'review\na\n{"long " * 40}\n"b\n"\n{"long " * 50}\n')
    predict(f"file={tmp_path}/a.csv", f"output={tmp_path}/out.csv")
    assert f"2 texts were longer than the model's context, which has read a part: {tmp_path}/a.csv:3" in caplog.text
    assert caplog.text.strip().endswith(f"{tmp_path}/a.csv:6")
    assert [row["truncated"] for row in table(tmp_path / "out.csv")] == ["", "true", "", "true"]
    caplog.clear()
    predict("file=-", piped=b"a\n" + b"long " * 40)
    predict(f"prompt={'long ' * 40}", *(["num_samples=2"] if run.task.name == "language_modeling" else []))
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["-:2", "prompt"]


def test_of_no_row_nothing_is_said(predict, run, tmp_path):
    (tmp_path / "a.csv").write_text("review,id\n")
    (tmp_path / "a.txt").write_text("")
    for name in ("a.csv", "a.txt"):
        assert predict(f"file={tmp_path / name}") == ""
        for end in ("csv", "jsonl", "txt"):
            predict(f"file={tmp_path / name}", f"output={tmp_path}/out.{end}")
            assert (tmp_path / f"out.{end}").read_text() == ""


def test_of_several_samples_each_has_its_row(predict, run, tmp_path):
    if run.task.name != "language_modeling":
        pytest.skip("an option of language modelling")
    file = write_table(tmp_path, ".csv", ROWS[:2])
    predict(f"file={file}", f"output={tmp_path}/out.csv", "num_samples=3")
    assert [row["id"] for row in table(tmp_path / "out.csv")] == ["0", "0", "0", "1", "1", "1"]


def test_how_many_are_predicted_together_does_not_show(predict, run, tmp_path, monkeypatch):
    if run.task.name not in ("language_modeling", "classification"):
        pytest.skip("as with the others, but slower")
    (tmp_path / "a.txt").write_text("".join(f"{number} <mask>\n" for number in range(130)))
    drawn = ["temperature=1", "seed=3"] if run.task.name == "language_modeling" else []
    whole = predict(f"file={tmp_path}/a.txt", *drawn)
    monkeypatch.setattr(predictions, "AT_ONCE", 64)
    assert predict(f"file={tmp_path}/a.txt", *drawn) == whole


@pytest.mark.parametrize("content, told", [(b"a\nb\ncaf\xe9\n", ":3: not UTF-8"), (b"a\n\0b\n", ":2: a NUL")])
def test_what_is_no_text_is_told_with_its_line_before_anything_is_written(
    predict, content, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictions, "AT_ONCE", 1)
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "out.csv").write_text("kept")
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    for word in (f"{tmp_path}/a.txt", "-", f"/dev/fd/{reading}"):
        with pytest.raises(ValueError) as error:
            predict(f"file={word}", f"output={tmp_path}/out.csv", piped=content)
        assert f"{word}{told}" in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "out.csv").read_text() == "kept"
    os.close(reading)


def test_what_was_predicted_before_an_interrupt_is_kept(predict, run, tmp_path, monkeypatch):
    file, batches, say = write_table(tmp_path, ".csv", ROWS), [], run.task.predict

    def interrupted(lines, **options):
        if batches:
            raise KeyboardInterrupt
        batches.append(lines)
        return say(lines, **options)

    monkeypatch.setattr(predictions, "AT_ONCE", 2)
    for name in ("out.csv", "out.jsonl"):
        batches.clear()
        monkeypatch.setattr(run.task, "predict", functools.wraps(say)(interrupted))
        with pytest.raises(KeyboardInterrupt):
            predict(f"file={file}", f"output={tmp_path / name}")
    assert [row["id"] for row in table(tmp_path / "out.csv")] == ["0", "1"]
    assert [one["input"] for one in said((tmp_path / "out.jsonl").read_text())] == [row["review"] for row in ROWS[:2]]


@pytest.mark.parametrize(
    "words, told",
    [
        (["prompt=caf\udce9"], "prompt: not UTF-8"),
        (["prompt=a\0"], "prompt: a NUL"),
        (["prompt=a", "file=b"], "prompt: give either"),
        ([], "prompt: give either"),
        (["file=a.csv", "output=a.csv"], "output: a.csv is what is read"),
        (["file=a.csv", "output=b.parquet"], "output: b.parquet would not be parquet"),
        (["file=a.csv", "output=b.csv", "json=true"], "output: b.csv would not be JSON"),
        (["file=a.csv", "output=nowhere/b.csv"], "output: there is no folder nowhere"),
        (["file=a.cs"], "file=a.cs: no such file or folder; did you mean a.csv?"),
        (["file=."], ".: cannot be read: Is a directory"),
        (["file=a.csv", "top_p=x"], "top_p: "),
        (["file=wrong.csv"], "=review: no such column in wrong.csv; did you mean reviews?"),
        (["file=a.csv", "data.quoting=all"], "data.quoting: expected 'minimal' or 'none' or null, found 'all'"),
    ],
)
def test_a_mistake_is_told_in_one_line(predict, words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("review\na\n")
    (tmp_path / "wrong.csv").write_text("reviews\na\n")
    with pytest.raises(ValueError) as error:
        predict(*words)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "a.csv").read_text() == "review\na\n"


def test_the_options_of_reading_are_those_of_the_run_but_for_what_is_named(predict, run, tmp_path):
    (tmp_path / "a.tsv").write_text('text\treview\na\t"b\n')
    (tmp_path / "b.csv").write_text('text:review\n"a":b\n')
    assert [one["input"] for one in said(predict(f"file={tmp_path}/a.tsv", "json=true"))] == ['"b']
    option = {"classification": "text_column", "translation": "source"}.get(run.task.name, "column")
    words = [f"data.{option}=text", "data.delimiter=:", "data.quoting=none"]
    assert [one["input"] for one in said(predict(f"file={tmp_path}/b.csv", "json=true", *words))] == ['"a"']


def test_a_row_in_which_nothing_can_be_filled_says_so_and_the_others_go_on(predict, run, tmp_path):
    if run.task.name != "mlm_nsp":
        pytest.skip("a mask is of masked language modelling")
    (tmp_path / "a.txt").write_text(f"a <mask>.\nnothing\n<mask> {'long ' * 50}<mask>\nb <mask>.\n")
    errors = [one["error"] for one in said(predict(f"file={tmp_path}/a.txt", "json=true"))]
    assert errors[0] is errors[3] is None
    assert (
        errors[1] == "there is no <mask> to fill in 'nothing'" and "further apart than the model's context" in errors[2]
    )
    predict(f"file={tmp_path}/a.txt", f"output={tmp_path}/out.csv")
    assert [row["error"] for row in table(tmp_path / "out.csv")] == [error or "" for error in errors]
    with pytest.raises(ValueError, match=r"^prompt: there is no <mask>"):
        predict("prompt=nothing")


def test_evaluating_reads_a_file_in_the_same_way(run, tmp_path):
    if run.task.name != "classification":
        pytest.skip("as with the others, but slower")
    run = LoadedRun(run.task, run.config | {"cache_dir": str(tmp_path / "cache")}, "")
    (tmp_path / "a.tsv").write_text('review\tlabel\n"one\ta\ntwo"\tb\nthree\ta\n')
    (tmp_path / "b.csv").write_text('text:label\n"one:a\ntwo":b\nthree:a\n')
    named = {"text_column": "text", "delimiter": ":", "quoting": "none"}
    assert finished.evaluate_file(run, f"{tmp_path}/a.tsv", "cpu").metrics == pytest.approx(
        finished.evaluate_file(run, f"{tmp_path}/b.csv", "cpu", named).metrics
    )
    with pytest.raises(ValueError, match=r"^file: read as the run's data were: data.quotin: no such option"):
        finished.evaluate_file(run, f"{tmp_path}/b.csv", "cpu", {"quotin": "none"})


def test_on_a_terminal_one_text_after_the_other_is_asked_for(predict, run, monkeypatch):
    prompt = "The boat <mask> home." if run.task.name == "mlm_nsp" else "two apples"
    asked = iter([prompt, "\x00", prompt, ""])  # what is no text is answered, and the next one asked for
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda shown: next(asked))
    first, wrong, again = predict("json=true").splitlines()
    assert json.loads(first)["input"] == prompt and first == again and next(asked, None) is None
    assert wrong.startswith("error: prompt: ")

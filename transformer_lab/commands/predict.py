"""What a trained model makes of a text: `transformer-lab predict run=RUN_DIR prompt="Return the"`."""

import builtins
import contextlib
import json as jsonlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_lab.composition.kinds import expected, shown
from transformer_lab.composition.problems import unknown
from transformer_lab.composition.signatures import live
from transformer_lab.data.sources.base import no_such_path
from transformer_lab.data.sources.streams import clean
from transformer_lab.terminal import one_line, say

TABLES, OTHERS = (".csv", ".tsv"), (".json", ".parquet", ".gz")  # what results may be written into, and what not


def main(
    *,
    run: str,
    prompt: str | None = None,
    file: str | None = None,
    input: str | None = None,
    output: str | None = None,
    json: bool = False,
    data: dict[str, Any] = {},  # noqa: B006 - never changed
    task: dict[str, Any] = {},  # noqa: B006 - never changed
    extensions: list[str] = [],  # noqa: B006 - never changed
    **options: Any,
) -> None:
    """Let the best weights of a run continue, classify, translate or fill in a text, or every row of a file.

    run: the folder of the run
    prompt: the text, asked for again and again where neither it nor a file is given on a terminal; or
    file: a text, line by line, or a table (.csv, .tsv, .jsonl, .parquet) with the run's column; - reads a pipe
    input: the same as file
    output: a file for what is else printed: .csv or .tsv (after the input's own columns), .jsonl, or one line each
    json: one JSON object a line instead of text, with all that the model has to say (probabilities, for instance)
    data: data.text_column=… and the like where a table is not like those of the run
    task: task.beam_size=…, task.length_penalty=… and the like: options that the run may have otherwise
    extensions: packages of your own that the run was trained with

    In text, line breaks within a result are written as \\n.

    Options of language modelling
        num_samples, max_new_tokens, temperature (0.8; 0 takes the likeliest token), top_k, top_p, seed
    Options of mlm_nsp, whose text has a <mask> in it
        top (how many guesses for each mask)
    """
    asks = prompt is file is input is output is None and sys.stdin is not None and sys.stdin.isatty()
    if not asks and [prompt, file, input].count(None) != 2:
        raise ValueError("prompt: give either prompt=TEXT or file=FILE")
    if prompt is not None:
        prompt = _text(prompt)
    name = file or input or ""
    if not asks and prompt is None and name != "-" and not Path(name).expanduser().exists():
        raise no_such_path("file", name)
    end = _end(output, name, json)
    from transformer_lab.finished.loaded_run import load_run
    from transformer_lab.finished.predictions import (
        Given,
        kept,
        predict_file,
        predicted,
        warned,
        write_lines,
        write_table,
    )

    loaded = load_run(run, extensions, task)
    _check(options, loaded.task)

    def answers(prompt: str) -> Iterator[Any]:
        return _asked(predicted(loaded, iter([Given("prompt", prompt)]), options))

    if asks:
        for text in _typed():
            try:
                for _, said in warned(answers(_text(text)), Path(), ""):
                    say(f"{_written(said, json)}\n")
            except ValueError as error:  # the next one may be right
                say(f"error: {error}\n")
        return
    with kept(name) as place:
        if prompt is not None:
            found = answers(prompt)
        else:
            others, silent = end in TABLES, output is None and sys.stdout.isatty()
            found = predict_file(loaded, place, data, options, others=others, silent=silent)
        found = warned(found, place, name)
        as_json = json or end == ".jsonl"
        texts = (_written(said, as_json) for _, said in found)
        if prompt is not None and output is None:
            say(("\n" if json else "\n\n").join(texts) + "\n")
            return
        texts = (text if as_json else _on_one_line(text) for text in texts)
        if output is None:
            for text in texts:
                say(f"{text}\n")
            return
        try:
            write_table(found, Path(output)) if end in TABLES else write_lines(texts, Path(output))
        except OSError as error:
            raise ValueError(f"output: {output} cannot be written: {error.strerror}") from error


def _written(said: dict[str, Any], as_json: bool) -> str:
    return jsonlib.dumps(said, ensure_ascii=False) if as_json else str(said["text"])


def _typed() -> Iterator[str]:
    """What is typed, line by line, until an empty line, Ctrl-D or Ctrl-C; a line may be edited and looked up again."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - `input` uses it
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while text := builtins.input("> "):
            yield text
        return
    print()


def _text(prompt: str) -> str:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError("prompt: not UTF-8") from error
    return clean(prompt, "prompt")


def _end(output: str | None, file: str, json: bool) -> str:
    """How the name of the output ends; raises ValueError where nothing can be written there."""
    if output is None:
        return ""
    place, end = Path(output), Path(output).suffix.lower()
    if not place.absolute().parent.is_dir():
        raise ValueError(f"output: there is no folder {place.parent}")
    if place.is_dir():
        raise ValueError(f"output: {output} is a folder")
    if end in OTHERS or (json and end in TABLES):
        raise ValueError(
            f"output: {output} would not be {'JSON' if json else end[1:]}; its name may end with .csv, "
            ".tsv or .jsonl, or anything else for text"
        )
    if file and place.exists() and Path(file).expanduser().exists() and place.samefile(Path(file).expanduser()):
        raise ValueError(f"output: {output} is what is read; write into another file")
    return end


def _asked(found: Iterator[Any]) -> Iterator[Any]:
    """What is said of a prompt, where anything can be; in a file, a line of which nothing can be is one of many."""
    for given, said in found:
        if said.get("error"):
            raise ValueError(f"prompt: {said['error']}")
        yield given, said


def _check(options: dict[str, Any], task: Any) -> None:
    """Raises ValueError for an option that the task's predictions do not have."""
    taken = {name: x for name, x in live(task.predict).parameters.items() if name != "lines"}
    for key, value in options.items():
        if key not in taken:
            raise ValueError(str(unknown(key, f"option of {task.name}'s predictions", taken)))
        if want := expected(taken[key], value):
            raise ValueError(f"{key}: expected {want}, found {shown(value)}")


def _on_one_line(text: str) -> str:
    return one_line(text.replace("\\", "\\\\"))

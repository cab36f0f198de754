"""What a trained model makes of a text: `python scripts/predict.py run=RUN_DIR prompt="Return the"`."""

import json as jsonlib
import sys
from pathlib import Path
from typing import Any

from transformer_lab.checks import unknown
from transformer_lab.script import answer
from transformer_lab.signatures import expected, live, shown
from transformer_lab.terminal import one_line, say


def main(
    *,
    run: str,
    prompt: str | None = None,
    input: str | None = None,
    output: str | None = None,
    json: bool = False,
    extensions: list[str] = [],  # noqa: B006 - never changed
    **options: Any,
) -> None:
    """Let the best weights of a run continue, classify, translate or fill in a text, or every line of a file.

    run: the folder of the run
    prompt: the text; or
    input: a file with one text a line; - reads them from the terminal or a pipe
    output: a file for the results, one line each (line breaks as \\\\n); by default they are printed
    json: one JSON object a line instead of text, with all that the model has to say (probabilities, for instance)
    extensions: packages of your own that the run was trained with

    Options of language modelling
        num_samples, max_new_tokens, temperature (0.8; 0 takes the likeliest token), top_k, top_p, seed
    Options of mlm_nsp, whose text has a <mask> in it
        top (how many guesses for each mask)
    """
    if (prompt is None) == (input is None):
        raise ValueError("prompt: give either prompt=TEXT or input=FILE")
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise ValueError(f"output: there is no folder {Path(output).parent}")
    lines = [prompt] if prompt is not None else _lines(input)
    from transformer_lab.finished import load_run

    task = load_run(run, extensions).task
    _check(options, task)
    found = task.predict(lines, **options)
    texts = [jsonlib.dumps(one, ensure_ascii=False) if json else one["text"] for one in found]
    if prompt is not None and output is None:
        say(("\n" if json else "\n\n").join(texts) + "\n")
        return
    written = "".join((text if json else _on_one_line(text)) + "\n" for text in texts)
    if output is not None:
        Path(output).write_text(written, encoding="utf-8")
    else:
        say(written)


def _check(options: dict[str, Any], task: Any) -> None:
    """Raises ValueError for an option that the task's predictions do not have."""
    taken = {name: x for name, x in live(task.predict).parameters.items() if name != "lines"}
    for key, value in options.items():
        if key not in taken:
            raise ValueError(unknown(key, f"option of {task.name}'s predictions", taken, taken))
        if want := expected(taken[key], value):
            raise ValueError(f"{key}: expected {want}, found {shown(value)}")


def _lines(name: str | None) -> list[str]:
    try:
        text = sys.stdin.read() if name == "-" else Path(str(name)).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"input: {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"input: {name} is not UTF-8: {error.reason} at byte {error.start}") from error
    return text.splitlines()


def _on_one_line(text: str) -> str:
    return one_line(text.replace("\\", "\\\\"))


if __name__ == "__main__":
    answer(main)

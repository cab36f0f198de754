"""What a trained model makes of a text: `python scripts/predict.py run=RUN_DIR prompt="Return the"`."""

import sys
from pathlib import Path

from transformer_lab.script import answer


def main(
    *,
    run: str,
    prompt: str | None = None,
    input: str | None = None,
    output: str | None = None,
    num_samples: int = 1,
    max_new_tokens: int | None = None,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    extensions: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Continue a prompt, or every line of a file, with the best weights of a run.

    run: the folder of the run
    prompt: the text to continue; or
    input: a file with one prompt a line; - reads them from the terminal or a pipe
    output: a file for the results, one line each (line breaks as \\\\n); by default they are printed
    num_samples: how many continuations of each prompt
    max_new_tokens: where a continuation ends that has not ended itself; by default 100, or half a context if less
    temperature: 0 always takes the likeliest token, 1 samples as the model believes
    top_k: sample among the k likeliest tokens only
    top_p: sample among the likeliest tokens that together reach this probability
    seed: fixes what is sampled
    extensions: packages of your own that the run was trained with
    """
    if (prompt is None) == (input is None):
        raise ValueError("prompt: give either prompt=TEXT or input=FILE")
    if num_samples < 1:
        raise ValueError(f"num_samples: {num_samples} is too few; at least 1")
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise ValueError(f"output: there is no folder {Path(output).parent}")
    prompts = [prompt] if prompt is not None else _lines(input)
    from transformer_lab.compose import load_run

    task = load_run(run, extensions).task
    options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    asked = [text for text in prompts for _ in range(num_samples)]
    texts = [text + more for text, more in zip(asked, task.predict(asked, seed=seed, **options), strict=True)]
    if output is not None:
        Path(output).write_text("".join(_on_one_line(text) + "\n" for text in texts), encoding="utf-8")
    elif prompt is not None:
        print("\n\n".join(texts))
    else:
        print("".join(_on_one_line(text) + "\n" for text in texts), end="")


def _lines(name: str | None) -> list[str]:
    try:
        text = sys.stdin.read() if name == "-" else Path(str(name)).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"input: {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"input: {name} is not UTF-8: {error.reason} at byte {error.start}") from error
    return text.splitlines()


def _on_one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


if __name__ == "__main__":
    answer(main)

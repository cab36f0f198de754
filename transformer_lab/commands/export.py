"""A trained model for others: `transformer-lab export run=RUN_DIR to=FOLDER`."""

from transformer_lab.terminal import say


def main(
    *,
    run: str,
    to: str,
    format: str = "huggingface",
    extensions: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Write the best weights of a run in a format that others read, and compare what these make of it.

    run: the folder of the run
    to: the new folder, with the weights, the tokenizer and a card with the scores
    format: huggingface (for transformers), ctranslate2, or onnx
    extensions: packages of your own that the run was trained with

    The folder is there only if the library that reads it, where that is installed, computes the same logits and tokens.
    """
    from transformer_lab.finished.exported import export
    from transformer_lab.finished.loaded_run import load_run

    for line in export(load_run(run, extensions), run, to, format):
        say(f"{line}\n")

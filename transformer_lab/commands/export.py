"""A trained model for others: `transformer-lab export run=RUN_DIR to=FOLDER`."""

from transformer_lab.terminal import say


def main(*, run: str, to: str, extensions: list[str] = []) -> None:  # noqa: B006 - never changed
    """Write the best weights of a run as a folder of Hugging Face's format, and compare what transformers makes of it.

    run: the folder of the run
    to: the new folder: config.json, model.safetensors, the tokenizer, a card with the scores
    extensions: packages of your own that the run was trained with

    The folder is there only if transformers, where that is installed, computes the same logits and tokens.
    """
    from transformer_lab.finished.exported import export
    from transformer_lab.finished.loaded_run import load_run

    for line in export(load_run(run, extensions), run, to):
        say(f"{line}\n")

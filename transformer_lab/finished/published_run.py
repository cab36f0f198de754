"""A model that was never trained here, as a finished run: it predicts and is evaluated like any other."""

from pathlib import Path

from transformer_lab.composition.build import Section
from transformer_lab.composition.checks import problems
from transformer_lab.composition.command_line import composed
from transformer_lab.finished.loaded_run import LoadedRun, filled, unfilled
from transformer_lab.interop.families import DECODER, LANGUAGE_MODELING
from transformer_lab.interop.published import published
from transformer_lab.interop.reading import weights_of
from transformer_lab.interop.vocabulary import framed, tokenizer_of

LONGEST = 512  # tokens of a text, for a model that could read longer ones


def load_published(folder: Path, options: Section) -> LoadedRun:
    """The model in a folder of Hugging Face's format, on this machine's CPU, with `options` of its task.

    Raises ValueError where nothing here is like it, or where it is a body that nothing can be asked.
    """
    model = published(folder)
    if model.head.task is None:
        what = f"run: {folder} holds a {model.architecture}, whose head no task here is like"
        raise ValueError(f"{what}; init_from={folder} trains one")
    config = composed([f"task={model.head.name}", f"init_from={folder}", "hardware=cpu"])
    longest = {"context": model.keys.get("position.max_length") or model.values.get("n_positions", LONGEST)}
    tokenizer = tokenizer_of(model)
    as_there = {"opens_prompts": tokenizer.knows("<bos>")} if model.head.task == LANGUAGE_MODELING else {}
    config["task"] |= longest | as_there | model.sections.get("task", {}) | options
    if found := problems(config):
        raise ValueError(str(found[0]))
    if model.head.name == "classification" and model.keys["model._target_"] == DECODER and not framed(model, tokenizer):
        what = f"run: {folder} holds a {model.architecture}, which reads other ends of a text than classifiers do here"
        raise ValueError(f"{what}; init_from={folder} trains it further")
    classes = {"labels": dict.fromkeys(model.labels, 1)} if model.head.name == "classification" else {}
    wanted = unfilled(config, tokenizer, classes)
    weights = weights_of(model)
    for name, tensor in wanted.items():
        if name not in weights or weights[name].shape != tensor.shape:
            there = " x ".join(map(str, weights[name].shape)) if name in weights else "not there"
            raise ValueError(f"{folder}: {name} is {there}, by its config {' x '.join(map(str, tensor.shape))}")
    return LoadedRun(filled(config, tokenizer, classes, weights), config, text="")

"""Start a model from what another run has learnt, and keep parts of it as they are."""

import logging
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from transformer_lab.composition.build import Section
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop import reading, vocabulary
from transformer_lab.interop.hub import folder_of
from transformer_lab.interop.options import MODEL, NOT_OF_THE_MODEL, Ours
from transformer_lab.interop.published import is_published, published
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.seq2seq import Seq2Seq
from transformer_lab.models.stack import Stack
from transformer_lab.run.folder import best_checkpoint
from transformer_lab.tasks.base import Task
from transformer_lab.training import saved

log = logging.getLogger(__name__)
OF_TOKENS = ("model.embedding.weight", "head.weight", "head.bias")  # a row for each
MAY_DIFFER = {*NOT_OF_THE_MODEL, "model.num_layers", "model.num_decoder_layers", "model.token_types"}
# An encoder fits the encoder's side of a seq2seq, and the other way round; so does a decoder.
SIDES = re.compile(r"^model\.(?:(?:encoder|decoder)\.)?(?=position|embedding_norm|blocks|norm)")


def tokenizer_of(source: str) -> Tokenizer:
    """That of a run, or of a published model, in this folder."""
    if is_published(source := folder_of(source, "init_from")):
        return vocabulary.tokenizer_of(published(source))
    return Tokenizer.load(best_checkpoint(source, "init_from") / "tokenizer.json")


def weights_of(source: str) -> dict[str, Tensor]:
    """Those of a run, or of a published model, in this folder."""
    if is_published(source := folder_of(source, "init_from")):
        return reading.weights_of(published(source))
    checkpoint = best_checkpoint(source, "init_from")
    with saved.as_saved(checkpoint):
        return saved.read_weights(checkpoint)


def config_of(source: str) -> Section:
    """The sections of the model, of a run or of a published model, in this folder."""
    if is_published(source := folder_of(source, "init_from")):
        return published(source).sections
    checkpoint = best_checkpoint(source, "init_from")
    with saved.as_saved(checkpoint):
        return saved.read_config(checkpoint)


def contradictions(config: Section, source: Section) -> Iterator[str]:
    """Options by which a model computes something else with weights than the one that they are of."""
    here, there = Ours(config), Ours(source)
    for section in MODEL:
        ours, theirs = config.get(section) or {}, source.get(section) or {}
        if not theirs or (section == "model" and ours["_target_"] != theirs["_target_"]):
            continue  # a decoder may start from an encoder
        same = ours["_target_"] == theirs["_target_"]
        for name in sorted({*ours, *theirs}) if same else ["_target_"]:
            key = f"{section}.{name}"
            if key not in MAY_DIFFER and here.get(key) != there.get(key):
                values = [
                    str(values.get(key)).rpartition(".")[2] if name == "_target_" else values.get(key)
                    for values in (here, there)
                ]
                yield f"{key}={values[0]}, but these weights were trained with {values[1]}"


def start_from(source: str, task: Task, config: Section) -> None:
    """Take every weight of a source whose name is also one of the task's; says what was taken, new and left, and which
    options of the config are others than those that the weights were trained with.

    Raises ValueError where a weight of the model has another shape, or where nothing fits.
    """
    theirs, ours = weights_of(source), task.state_dict()
    others = list(contradictions(config, config_of(source)))
    taken: dict[str, str] = {}
    for name in ours:
        candidates = (name, *(f"{side}{SIDES.sub('', name)}" for side in _sides(name)))
        found = next((one for one in candidates if one in theirs), None)
        if found is not None and name in OF_TOKENS and len(theirs[found]) < len(ours[name]):
            theirs[found] = _with_more(theirs[found], len(ours[name]))
        if found is not None and theirs[found].shape == ours[name].shape:
            taken[name] = found
        elif found is not None and name.startswith("model."):
            shapes = " x ".join(map(str, theirs[found].shape)), " x ".join(map(str, ours[name].shape))
            what = "; ".join(others) or f"{found} is {shapes[0]} there and {shapes[1]} here"
            raise ValueError(f"init_from: {what}")
    for other in others:
        log.warning("init_from: %s", other)
    if not taken:
        raise ValueError(f"init_from: no weight in {source} fits this model")
    with torch.no_grad():
        for name, found in taken.items():
            ours[name].copy_(theirs[found])
    log.info("Taken from %s: %s", source, _named(taken))
    new, left = ours.keys() - taken.keys(), theirs.keys() - set(taken.values())
    log.info("New: %s. Left there: %s", _named(new), _named(left))


def _with_more(rows: Tensor, count: int) -> Tensor:
    """… for new tokens, each the mean of those that there are."""
    return torch.cat([rows, rows.mean(0, keepdim=True).expand(count - len(rows), *rows.shape[1:])])


def _sides(name: str) -> tuple[str, ...]:
    return ("model.encoder.", "model.decoder.", "model.") if SIDES.match(name) else ()


def _named(names: object) -> str:
    """Weights by the part they belong to, with how many: `model.blocks (48), head (2)`."""
    counts: dict[str, int] = {}
    for name in sorted(names):  # type: ignore[call-overload]
        part = ".".join(name.split(".")[:2] if name.startswith("model.") else name.split(".")[:1])
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} ({count})" for part, count in counts.items()) or "nothing"


def freeze(task: Task, layers: int) -> None:
    """Keep the first blocks of the model, and what comes before them, as they are; 0 keeps nothing.

    Raises ValueError where there are not so many.
    """
    if layers == 0:
        return
    stack = task.model.encoder if isinstance(task.model, Seq2Seq) else task.model
    if not isinstance(stack, Stack):
        raise ValueError(f"freeze_layers: {type(stack).__name__} has no blocks to freeze; leave it 0")
    if not 0 < layers <= len(stack.blocks):
        raise ValueError(f"freeze_layers: {layers} is not among the 0 to {len(stack.blocks)} blocks of the model")
    for part in (task.model.embedding, stack.position, stack.embedding_norm, *stack.blocks[:layers]):
        part.requires_grad_(False)
    if isinstance(task.model, Encoder) and task.model.types is not None:
        task.model.types.requires_grad_(False)

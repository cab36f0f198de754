"""Start a model from what another run has learnt, and keep parts of it as they are."""

import logging
import re

import torch
from torch import Tensor

from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop import reading
from transformer_lab.interop.published import is_published, published
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.seq2seq import Seq2Seq
from transformer_lab.models.stack import Stack
from transformer_lab.run.folder import best_checkpoint
from transformer_lab.tasks.base import Task
from transformer_lab.training import saved

log = logging.getLogger(__name__)
# An encoder fits the encoder's side of a seq2seq, and the other way round; so does a decoder.
SIDES = re.compile(r"^model\.(?:(?:encoder|decoder)\.)?(?=position|embedding_norm|blocks|norm)")


def tokenizer_of(source: str) -> Tokenizer:
    """That of a run, or of a published model, in this folder."""
    if is_published(source):
        return reading.tokenizer_of(published(source))
    return Tokenizer.load(best_checkpoint(source, "init_from") / "tokenizer.json")


def weights_of(source: str) -> dict[str, Tensor]:
    """Those of a run, or of a published model, in this folder."""
    if is_published(source):
        return reading.weights_of(published(source))
    checkpoint = best_checkpoint(source, "init_from")
    with saved.as_saved(checkpoint):
        return saved.read_weights(checkpoint)


def start_from(source: str, task: Task) -> None:
    """Take every weight of a source whose name is also one of the task's; says what was taken, new and left.

    Raises ValueError where a weight of the model has another shape, or where nothing fits.
    """
    theirs, ours = weights_of(source), task.state_dict()
    taken: dict[str, str] = {}
    for name in ours:
        candidates = (name, *(f"{side}{SIDES.sub('', name)}" for side in _sides(name)))
        found = next((one for one in candidates if one in theirs), None)
        if found is not None and theirs[found].shape == ours[name].shape:
            taken[name] = found
        elif found is not None and name.startswith("model."):
            shapes = " x ".join(map(str, theirs[found].shape)), " x ".join(map(str, ours[name].shape))
            raise ValueError(
                f"init_from: {found} is {shapes[0]} there and {shapes[1]} here; set the options of model, "
                "position and feed_forward as they are in its config.yaml"
            )
    if not taken:
        raise ValueError(f"init_from: no weight in {source} fits this model")
    with torch.no_grad():
        for name, found in taken.items():
            ours[name].copy_(theirs[found])
    log.info("Taken from %s: %s", source, _named(taken))
    new, left = ours.keys() - taken.keys(), theirs.keys() - set(taken.values())
    log.info("New: %s. Left there: %s", _named(new), _named(left))


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

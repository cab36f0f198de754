"""Published models in folders of Hugging Face's format: their weights, nothing of which is ever run."""

import logging
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transformer_lab.interop.published import Published, read_json
from transformer_lab.interop.weights import inward

log = logging.getLogger(__name__)
WEIGHTS, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
NEVER = -100.0  # in place of the bias of a token that is not to be written: low enough, and no harm to a loss
OLD_NAMES = {"gamma": "weight", "beta": "bias"}  # of norms, as TensorFlow calls them


def weights_of(model: Published) -> dict[str, Tensor]:
    """All weights in single precision, under our names. Raises ValueError, in one line, for what is not as it should
    be; says what of other heads is left in the file."""
    pairs = model.family.pairs(model.keys, model.head)
    wanted, prefix, empty = {pair.theirs for pair in pairs}, model.family.prefix, re.compile(model.family.empty)
    theirs: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for file in _files(model.folder, model.architecture):
        try:
            with safe_open(file, framework="pt") as opened:
                for written in opened.keys():  # noqa: SIM118 - not a dict
                    name = _today(written)
                    bare = name.removeprefix(prefix)
                    found = next((x for x in (name, f"{prefix}{name}", bare) if x in wanted), None)
                    if found is not None or not empty.fullmatch(bare):
                        tensor = opened.get_tensor(written)
                        (others if found is None else theirs)[found or bare] = tensor.to(torch.float32)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: not a safetensors file: {error}") from error
    try:
        ours = inward(pairs, theirs)
    except (ValueError, RuntimeError) as error:  # the latter where a tensor has not the rows of so many heads
        raise ValueError(f"{model.folder}: {(str(error).splitlines() or [''])[0]}") from error
    bias = ours.get("head.bias")
    for never in model.values.get("bad_words_ids") or []:  # OPUS-MT's token that fills up
        if bias is not None and isinstance(never, list) and len(never) == 1 and never[0] in range(len(bias)):
            bias[never[0]] = NEVER
    _refuse_strange(model, others, ours["model.embedding.weight"])
    return ours


def _today(name: str) -> str:
    before, _, last = name.rpartition(".")
    return f"{before}.{OLD_NAMES.get(last, last)}" if before else name


def _files(folder: Path, architecture: str) -> list[Path]:
    """The one file, or all that an index names. Raises ValueError where they are not there."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(x, str) for x in named.values()):
            raise ValueError(f"{folder / INDEX}: no weight_map of names")
        for name in (files := sorted(set(named.values()))):
            if Path(name).name != name:
                raise ValueError(f"{folder / INDEX}: {name!r} leads out of the folder")
            if not (folder / name).is_file():
                raise ValueError(f"{folder}: {name} is missing, which {INDEX} names")
        return [folder / name for name in files]
    if (folder / PICKLED).is_file():
        raise ValueError(
            f"{folder}: {PICKLED} alone is not read, as what is pickled may run anything; where you trust it, this "
            f'makes a {WEIGHTS} of it: python -c "from transformers import {architecture} as M; '
            f"M.from_pretrained('{folder}').save_pretrained('NEW_FOLDER')\""
        )
    raise ValueError(f"{folder}: there is no {WEIGHTS}")


def _refuse_strange(model: Published, others: dict[str, Tensor], embedding: Tensor) -> None:
    """Raises ValueError for a tensor of the body that has no place here; those of other heads are left, and told."""
    parts = {pair.theirs.partition(".")[0] for pair in model.family.table(model.keys)}
    left = []
    for name, tensor in others.items():
        if tensor.shape == embedding.shape and torch.equal(tensor, embedding):
            continue  # the output matrix, written out once more
        if name.partition(".")[0] in parts:
            raise ValueError(f"{model.folder}: {name} has no place in a {model.family.model_type} here")
        if name == "lm_head.weight" and model.head.task:
            raise ValueError(f"{model.folder}: lm_head.weight is not the embedding, as its config.json has it")
        left.append(name)
    if left:
        log.info("Left in %s: %s", model.folder, ", ".join(sorted(left)[:10]) + (", …" if len(left) > 10 else ""))

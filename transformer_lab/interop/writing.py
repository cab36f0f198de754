"""Models trained here as folders of Hugging Face's format: config.json, weights, tokenizer, and a card."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import processors

from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop.families import (
    CALLED,
    CLASSIFICATION,
    FEED_FORWARD,
    LANGUAGE_MODELING,
    MLM_NSP,
    TRANSLATION,
    Family,
    Head,
)
from transformer_lab.interop.options import Ours, Theirs
from transformer_lab.interop.published import CONFIG, FAMILIES
from transformer_lab.interop.reading import WEIGHTS
from transformer_lab.interop.vocabulary import PARTS, TOKENIZER
from transformer_lab.interop.weights import outward

WRITES = (LANGUAGE_MODELING, TRANSLATION)  # tasks that write texts
MOST_MISFITS = 4  # options that are told, of a model that no class holds


class Unheld(ValueError):
    """No class of transformers holds a model; `short` says why in a few words."""

    def __init__(self, text: str, short: str) -> None:
        super().__init__(text)
        self.short = short


@dataclass(frozen=True)
class Held:
    """The class of transformers that a model has a place in, and what its config.json says."""

    family: Family
    head: Head
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return self.head.architecture


def held(config: dict[str, Any], task: Any) -> Held:
    """Raises Unheld where no class holds the model, with the options that would do."""
    kind = config["task"]["_target_"]
    nearest: tuple[dict[str, list[Any]], Head] | None = None
    for family in FAMILIES:
        for head in family.heads:
            if head.task != kind:
                continue
            ours = Ours(_resolved(config, task))
            values = family.outward(ours, head)
            if not ours.misfits:
                return Held(family, head, values)
            # A model of another kind is further away than one of many other options.
            if nearest is None or _far(ours.misfits) < _far(nearest[0]):
                nearest = ours.misfits, head
    if nearest is None:
        raise Unheld(f"task: no class of transformers that is known here does {config['task']['name']}", "task")
    misfits, head = nearest
    words = [_word(key, fitting[0]) for key, fitting in misfits.items()]
    told = " ".join(words[:MOST_MISFITS])
    told += f" and {len(words) - MOST_MISFITS} more" if len(words) > MOST_MISFITS else ""
    raise Unheld(
        f"model: no class of transformers holds it; {head.architecture} would, if it had been trained with {told}",
        f"{head.architecture} has {told}",
    )


def exports_to(config: dict[str, Any], task: Any) -> str:
    """The class that a model can be exported to, or why there is none."""
    try:
        return held(config, task).name
    except Unheld as error:
        return f"none ({error.short})"


def _far(misfits: dict[str, list[Any]]) -> tuple[bool, int]:
    return "model._target_" in misfits, len(misfits)


def _word(key: str, value: Any) -> str:
    """As it is typed."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    section, _, name = key.partition(".")
    return f"{section}={CALLED[text]}" if name == "_target_" and text in CALLED else f"{key}={text}"


def _resolved(config: dict[str, Any], task: Any) -> dict[str, Any]:
    """With the sizes that a config may leave to the classes."""
    config = copy.deepcopy(config)
    if config["task"]["_target_"] == CLASSIFICATION:
        config["task"]["pooling"] = task.head.pooling
    blocks = getattr(getattr(task.model, "decoder", task.model), "blocks", None)
    if blocks and config["feed_forward"]["_target_"].startswith(FEED_FORWARD):
        config["feed_forward"]["hidden_dim"] = blocks[0].feed_forward.layer.up.out_features
    return config


def write(folder: Path, found: Held, task: Any) -> None:
    """Put into a new folder what the class reads, and its tokenizer."""
    tokenizer: Tokenizer = task.tokenizer
    values = {**found.values, "dtype": "float32", "vocab_size": tokenizer.vocab_size}
    values |= _ids(task, str(found.head.task)) | labels_of(task, str(found.head.task))
    keys = found.family.inward(Theirs(values, CONFIG), found.head)
    weights = outward(found.family.pairs(keys, found.head), task.state_dict())
    folder.mkdir(parents=True)
    _write_json(folder / CONFIG, values)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    if found.head.task in WRITES:
        _write_json(folder / "generation_config.json", _ids(task, str(found.head.task)))
    write_tokenizer(folder, task, str(found.head.task))


def write_tokenizer(folder: Path, task: Any, kind: str) -> None:
    """… of a task of this kind, which puts around a text what the task does."""
    (folder / TOKENIZER).write_text(_tokenizer(task, kind), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(task, kind))


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def labels_of(task: Any, kind: str) -> dict[str, Any]:
    """What a classifier's classes are called."""
    if kind != CLASSIFICATION:
        return {}
    return {"id2label": dict(enumerate(task.labels)), "label2id": {x: i for i, x in enumerate(task.labels)}}


def _ids(task: Any, kind: str) -> dict[str, int]:
    """Of special tokens; where none is there to pad with, the one that ends a text does."""
    tokenizer: Tokenizer = task.tokenizer
    if kind in WRITES:
        found = {"bos_token_id": task.begin, "eos_token_id": task.end, "pad_token_id": task.end}
        found |= {"decoder_start_token_id": task.begin} if kind == TRANSLATION else {}
    else:
        first, last = tokenizer.special("<cls>"), tokenizer.special("<sep>")
        found = {"cls_token_id": first, "bos_token_id": first, "sep_token_id": last, "eos_token_id": last}
        # Others take the last token that is no padding for the end of a text: it must be one that no text has.
        named = [tokenizer.special(name) for name in ("<pad>", "<mask>") if tokenizer.knows(name)]
        return found | {"pad_token_id": next((token for token in named if token != last), last)}
    return found | ({"pad_token_id": tokenizer.special("<pad>")} if tokenizer.knows("<pad>") else {})


def _tokenizer(task: Any, kind: str) -> str:
    tokenizer: Tokenizer = task.tokenizer
    (before, after), name = around(task, kind), tokenizer.name
    closing = [name(token) for token in after]
    single = " ".join([*map(name, before), "$A", *closing])
    second = ["$B:1", *(f"{one}:1" for one in closing)]
    table = [(name(token), token) for token in dict.fromkeys([*before, *after])]
    template = processors.TemplateProcessing(single=single, pair=" ".join([single, *second]), special_tokens=table)
    return tokenizer.reading.with_template(template)


def around(task: Any, kind: str) -> tuple[list[int], list[int]]:
    """The tokens that a task puts before a text that it reads, and behind it."""
    if kind == LANGUAGE_MODELING:
        return [task.begin] if task.opens_prompts else [], []
    if kind == TRANSLATION:
        return [], [task.end]
    return [task.tokenizer.special("<cls>")], [task.tokenizer.special("<sep>")]


def _tokenizer_config(task: Any, kind: str) -> dict[str, Any]:
    tokenizer: Tokenizer = task.tokenizer
    named = {key: tokenizer.name(tokenizer.special(part)) for part, (key, _) in PARTS.items() if tokenizer.knows(part)}
    end = named.get("eos_token" if kind in WRITES else "sep_token")
    # Without an unk_token, CTranslate2 does not load it.
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "unk_token"), end),
        **named,
        "pad_token": tokenizer.name(_ids(task, kind)["pad_token_id"]),
        "model_max_length": task.context,
        "model_input_names": ["input_ids", *(["token_type_ids"] if _types(task) else []), "attention_mask"],
        "clean_up_tokenization_spaces": False,
        # What spells a special token is text here; but where words are guessed, <mask> is typed.
        **({} if kind == MLM_NSP else {"split_special_tokens": True}),
    }


def _types(task: Any) -> bool:
    return getattr(task.model, "types", None) is not None

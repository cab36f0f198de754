"""Models trained here as folders of Hugging Face's format: config.json, weights, tokenizer, and a card."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import processors

from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop.families import CLASSIFICATION, FEED_FORWARD, LANGUAGE_MODELING, MLM_NSP, Family, Head
from transformer_lab.interop.options import Ours, Theirs
from transformer_lab.interop.published import CONFIG, FAMILIES
from transformer_lab.interop.reading import PARTS, TOKENIZER, WEIGHTS
from transformer_lab.interop.weights import outward

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
            if nearest is None or len(ours.misfits) < len(nearest[0]):
                nearest = ours.misfits, head
    if nearest is None:
        raise Unheld(f"task: no class of transformers that is known here does {config['task']['name']}", "task")
    misfits, head = nearest
    words = [f"{key}={_word(fitting[0])}" for key, fitting in misfits.items()]
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


def _word(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text.rpartition(".")[2] if text.startswith("transformer_lab.") else text


def _resolved(config: dict[str, Any], task: Any) -> dict[str, Any]:
    """With the sizes that a config may leave to the classes."""
    config = copy.deepcopy(config)
    blocks = getattr(task.model, "blocks", None)
    if blocks and config["feed_forward"]["_target_"].startswith(FEED_FORWARD):
        config["feed_forward"]["hidden_dim"] = blocks[0].feed_forward.layer.up.out_features
    return config


def write(folder: Path, found: Held, task: Any) -> None:
    """Put into a new folder what the class reads, and its tokenizer."""
    tokenizer: Tokenizer = task.tokenizer
    values = {**found.values, "dtype": "float32", "vocab_size": tokenizer.vocab_size, **_ids(tokenizer)}
    if found.head.task == CLASSIFICATION:
        values |= {"id2label": dict(enumerate(task.labels)), "label2id": {x: i for i, x in enumerate(task.labels)}}
    keys = found.family.inward(Theirs(values, CONFIG), found.head)
    weights = outward(found.family.pairs(keys, found.head), task.state_dict())
    folder.mkdir(parents=True)
    _write_json(folder / CONFIG, values)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / TOKENIZER).write_text(_tokenizer(tokenizer, found.head), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(task, found.head))
    if found.head.task == LANGUAGE_MODELING:
        _write_json(folder / "generation_config.json", _ids(tokenizer))


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The end token opens a text here, and where there is none of its own, pads it."""
    names = {"bos": "<eos>", "eos": "<eos>", "pad": "<pad>" if "<pad>" in tokenizer.special_tokens else "<eos>"}
    return {f"{key}_token_id": tokenizer.special(name) for key, name in names.items() if tokenizer.knows(name)}


def _tokenizer(tokenizer: Tokenizer, head: Head) -> str:
    """A tokenizer.json that puts around a text what the task does."""
    around = ["<eos>"] if head.task == LANGUAGE_MODELING else ["<cls>", "<sep>"]
    names = [tokenizer.name(tokenizer.special(part)) for part in around]
    table = [(name, tokenizer.special(part)) for name, part in zip(names, around, strict=True)]
    if head.task == LANGUAGE_MODELING:
        single, pair = f"{names[0]} $A", f"{names[0]} $A $B"
    else:
        single, pair = f"{names[0]} $A {names[1]}", f"{names[0]} $A {names[1]} $B:1 {names[1]}:1"
    return tokenizer.with_template(processors.TemplateProcessing(single=single, pair=pair, special_tokens=table))


def _tokenizer_config(task: Any, head: Head) -> dict[str, Any]:
    tokenizer: Tokenizer = task.tokenizer
    named = {key: tokenizer.name(tokenizer.special(part)) for part, (key, _) in PARTS.items() if tokenizer.knows(part)}
    end = named.get("eos_token") or named.get("sep_token")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{
            "bos_token": end,
            "pad_token": end,
            "unk_token": end,
        },  # without an unk_token, CTranslate2 ends in the middle
        **named,
        "model_max_length": task.context,
        "model_input_names": ["input_ids", *(["token_type_ids"] if _types(task) else []), "attention_mask"],
        "clean_up_tokenization_spaces": False,
        # What spells a special token is text here; but where words are guessed, <mask> is typed.
        **({} if head.task == MLM_NSP else {"split_special_tokens": True}),
    }


def _types(task: Any) -> bool:
    return getattr(task.model, "types", None) is not None

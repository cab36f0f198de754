"""What earlier versions called otherwise, and is still read: keys and classes of configs, what checkpoints hold."""

import logging
from functools import cache
from typing import Any, TypeVar

V = TypeVar("V")
log = logging.getLogger(__name__)
KEYS = {"task.mask_share": "task.mlm_probability"}
CLASSES: dict[str, str] = {}
WEIGHTS = {"judge.": "nsp_head."}  # how their names begin
# What sections were before there was a choice.
BEFORE: dict[str, Any] = {"mixer": {"_target_": "transformer_lab.models.layers.attention.Attention"}}
STATE = {"progress.window.targets": "progress.window.num_targets"}  # in training.json


def config_of_today(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the sections and names of today; of each other name a line says so, once."""
    found = _classes(_keys(config, KEYS, tell=True))
    return (BEFORE if "model" in found else {}) | found


def state_of_today(state: dict[str, Any]) -> dict[str, Any]:
    """The state of training, and the config in it, with the names of today."""
    found = _keys(state, STATE, tell=False)
    if "identity" in found:
        found["identity"]["config"] = config_of_today(found["identity"]["config"])
    return found


def weights_of_today(weights: dict[str, V]) -> dict[str, V]:
    """What belongs to each weight of a model, by the weight's name of today."""
    return {_weight(name): value for name, value in weights.items()}


def _keys(section: dict[str, Any], names: dict[str, str], tell: bool, path: str = "") -> dict[str, Any]:
    found = {}
    for key, value in section.items():
        here = f"{path}{key}"
        if here in names:
            if tell:
                _tell(here, names[here])
            key = names[here].rpartition(".")[2]
        found[key] = _keys(value, names, tell, f"{here}.") if isinstance(value, dict) else value
    return found


def _classes(section: dict[str, Any]) -> dict[str, Any]:
    found = {key: _classes(value) if isinstance(value, dict) else value for key, value in section.items()}
    target = found.get("_target_")
    if isinstance(target, str) and target in CLASSES:
        _tell(target, CLASSES[target])
        found["_target_"] = CLASSES[target]
    return found


@cache
def _tell(old: str, new: str) -> None:
    log.warning("%s is called %s now", old, new)


def _weight(name: str) -> str:
    old = next((old for old in WEIGHTS if name.startswith(old)), "")
    return WEIGHTS.get(old, "") + name.removeprefix(old)

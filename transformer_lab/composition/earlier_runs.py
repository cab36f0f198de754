"""What an earlier run decides: the one that is gone on with, or the one whose weights are taken.

`run_dir=X resume=auto` goes on with what X was made of, `init_from=X` builds a model as X's is: but for what is given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lab.composition.checks import roles
from transformer_lab.composition.parts import LAYERS
from transformer_lab.composition.signatures import signature
from transformer_lab.interop.hub import folder_of, is_name, pinned
from transformer_lab.interop.published import is_published, published
from transformer_lab.keys import Role
from transformer_lab.renamed import KEYS, config_of_today

CONFIG = "config.yaml"  # in a run's folder
# The options of a task that say what weights there are, and what is made of them.
OF_HEADS = ("tie_embeddings", "output_bias", "pooling", "transform", "head_bias")


@dataclass(frozen=True)
class Given:
    """What the command line, or a file of its choice such as an experiment, chooses; all else is so by default."""

    keys: dict[str, Any]  # dotted, with their values as they are written, interpolations and all
    options: dict[str, dict[str, Any]]  # of each group whose option is named: what that option's files say of the group
    chosen_by: dict[str, tuple[str, ...]]  # by an option of the first group, such as a task, options of the others
    set_by: dict[str, dict[str, Any]]  # by an option of a group, keys of other sections, as in `keys`


def decided(values: dict[str, Any], given: Callable[[], Given]) -> dict[str, Any]:
    """The config of the words, `values`, with what the run in `run_dir`, or else that of `init_from`, decides.

    Raises ValueError where that run's config cannot be read.
    """
    if values.get("resume") and (before := _config_of(values, "run_dir")):
        return _going_on(values, before, given())
    if is_name(source := str(values.get("init_from") or "")):
        values = {**values, "init_from": pinned(source, "init_from")}  # one commit, for as long as this run is
    if values.get("init_from") and (before := _config_of(values, "init_from")):
        return _starting(values, before, given())
    return values


def _config_of(values: dict[str, Any], key: str) -> dict[str, Any] | None:
    if not values[key]:
        return None
    folder = str(values[key])
    if key == "init_from" and is_published(folder := folder_of(folder, key, whole=False)):
        return published(folder).sections
    file = Path(folder) / CONFIG
    if not file.is_file():
        return None
    import yaml

    try:
        found = config_of_today(yaml.safe_load(file.read_text(encoding="utf-8")))
        return {**found}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{key}: {file} is no config of a run: {' '.join(str(error).split())}") from error


def _going_on(values: dict[str, Any], before: dict[str, Any], given: Given) -> dict[str, Any]:
    """All of the run's own; an option that is named counts where it makes another run, or what may be another.

    What cannot be another is only called by its name: `model=decoder` sets no width.
    """
    role = roles()
    fixed = {Role.IDENTITY} if values["resume"] == "changed" else {Role.IDENTITY, Role.LEARNING}
    kept = {key: value for key, value in before.items() if role.get(key) is not Role.PROCESS}
    result = {**values, **kept}
    named = list(given.options)
    for group in named:
        if _class(values.get(group)) != _class(before.get(group)):
            _take(result, values, [group])
            named += [other for other in given.chosen_by.get(group, ()) if other not in named]
        elif role[group] not in fixed:
            for key, value in given.options[group].items():
                if value != "???":
                    _take(result, values, [group, key])
    result = _with(result, values, given.keys)
    if str(before.get("init_from")).partition("@")[0] == result.get("init_from"):
        result["init_from"] = before["init_from"]  # of the commit that it was
    return result


def _starting(values: dict[str, Any], before: dict[str, Any], given: Given) -> dict[str, Any]:
    """The model and its parts as those that the weights are of; of a model of another class, the options of both."""
    result = dict(values)
    role = roles()
    for key in ("model", *LAYERS):
        theirs, ours = before.get(key), values.get(key)
        if role[key] is not Role.IDENTITY or not isinstance(theirs, dict) or not isinstance(ours, dict):
            continue
        same = _class(theirs) == _class(ours)
        if same or (key != "model" and key not in given.options):
            result[key] = theirs
        elif key == "model" and (taken := signature(str(_class(ours)))):
            both = {option: value for option, value in theirs.items() if option in taken.parameters}
            result[key] = {**ours, **both}
    task, theirs = dict(values.get("task") or {}), before.get("task") or {}
    known = getattr(signature(str(_class(task))), "parameters", {})
    result["task"] = task | {name: theirs[name] for name in OF_HEADS if name in theirs and name in known}
    return _with(result, values, given.set_by.get("task", {}) | given.keys)


def _with(result: dict[str, Any], values: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """What is given in place of what is there; an interpolation means the values that it has here."""
    for key in keys:
        _take(result, values, KEYS.get(key, key).split("."))
    anew = {key: raw for key, raw in keys.items() if isinstance(raw, str) and "${" in raw and "${hydra:" not in raw}
    if not anew:
        return result
    from omegaconf import OmegaConf
    from omegaconf.errors import UnsupportedValueType

    try:
        whole = OmegaConf.create(result)
    except UnsupportedValueType:  # something in it could not be resolved, which is told elsewhere
        return result
    for key, raw in anew.items():
        OmegaConf.update(whole, KEYS.get(key, key), raw, merge=False)
    found: Any = OmegaConf.to_container(whole, resolve=True)
    return dict(found)


def _class(section: Any) -> Any:
    return section.get("_target_") if isinstance(section, dict) else None


def _take(result: dict[str, Any], values: dict[str, Any], path: list[str]) -> None:
    """What stands under a dotted key in `values`, or that there is nothing."""
    for place, part in enumerate(path, 1):
        if part not in values:
            result.pop(part, None)
            return
        if place == len(path):
            result[part] = values[part]
            return
        inner = result[part] if isinstance(result.get(part), dict) else {}
        result[part] = result = dict(inner)
        values = values[part] if isinstance(values[part], dict) else {}

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
from transformer_lab.keys import Role
from transformer_lab.renamed import KEYS, config_of_today

CONFIG = "config.yaml"  # in a run's folder
FIXED = {Role.IDENTITY, Role.LEARNING}  # what cannot be another, so that the name of an option only says what it is


@dataclass(frozen=True)
class Given:
    """What the command line or an experiment chooses; all else is so by default."""

    keys: tuple[str, ...]  # dotted
    options: dict[str, dict[str, Any]]  # of each group whose option is named: what that option's file says
    chosen_by: dict[str, tuple[str, ...]]  # by an option of the first group, such as a task, options of the others


def decided(values: dict[str, Any], given: Callable[[], Given]) -> dict[str, Any]:
    """The config of the words, `values`, with what the run in `run_dir`, or else that of `init_from`, decides.

    Raises ValueError where that run's config cannot be read.
    """
    if values.get("resume") and (before := _config_of(values, "run_dir")):
        return _going_on(values, before, given())
    if values.get("init_from") and (before := _config_of(values, "init_from")):
        return _starting(values, before, given())
    return values


def _config_of(values: dict[str, Any], key: str) -> dict[str, Any] | None:
    file = Path(str(values[key] or "")) / CONFIG
    if not (values[key] and file.is_file()):
        return None
    import yaml

    try:
        found = config_of_today(yaml.safe_load(file.read_text(encoding="utf-8")))
        return {**found}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{key}: {file} is no config of a run: {' '.join(str(error).split())}") from error


def _going_on(values: dict[str, Any], before: dict[str, Any], given: Given) -> dict[str, Any]:
    """All of the run's own; an option that is named counts where it makes another run, or what may be another."""
    role = roles()
    kept = {key: value for key, value in before.items() if role.get(key) is not Role.PROCESS}
    result = {**values, **kept}
    named = list(given.options)
    for group in named:
        if _class(values[group]) != _class(before.get(group)):
            result[group] = values[group]
            named += [other for other in given.chosen_by.get(group, ()) if other not in named]
        elif role[group] not in FIXED:
            for key, value in given.options[group].items():
                if value != "???":
                    _take(result, values, [group, key])
    return _with(result, values, given.keys)


def _starting(values: dict[str, Any], before: dict[str, Any], given: Given) -> dict[str, Any]:
    """The model and its parts as those that the weights are of; of a model of another class, the options of both."""
    result = dict(values)
    role = roles()
    for key in ("model", *LAYERS):
        if role[key] not in FIXED or not isinstance(before.get(key), dict):
            continue
        same = _class(before[key]) == _class(values[key])
        if same or (key != "model" and key not in given.options):
            result[key] = before[key]
        elif key == "model" and (taken := signature(str(_class(values[key])))):
            both = {option: value for option, value in before[key].items() if option in taken.parameters}
            result[key] = {**values[key], **both}
    return _with(result, values, given.keys)


def _with(result: dict[str, Any], values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        _take(result, values, KEYS.get(key, key).split("."))
    return result


def _class(section: Any) -> Any:
    return section.get("_target_") if isinstance(section, dict) else None


def _take(result: dict[str, Any], values: dict[str, Any], path: list[str]) -> None:
    """What stands under a dotted key in `values`, or that there is nothing."""
    *above, last = path
    for part in above:
        inner = result[part] if isinstance(result.get(part), dict) else {}
        result[part] = result = dict(inner)
        values = values.get(part) or {}
    if last in values:
        result[last] = values[last]
    else:
        result.pop(last, None)

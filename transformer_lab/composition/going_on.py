"""`run_dir=X resume=auto` goes on with what X was made of: what the command line does not name is the run's own."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformer_lab.renamed import KEYS, config_of_today

CONFIG = "config.yaml"  # in a run's folder
# Of this process and this machine, whatever the run was started with; and nobody's folder chooses them for its reader.
OWN = {"run_dir", "resume", "cache_dir", "extensions", "plan", "preview"}
FAR = {"task", "experiment", "debug"}  # groups that choose options of others


def gone_on_with(
    values: dict[str, Any], words: Iterable[str], defaults: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The config that the run in `values["run_dir"]` goes on with: its own, but for what these words name.

    `values` is what the words make of the `defaults`; a word that sets a key begins with + or ~, others name an option
    of a group. That counts where its class is another than the run's, and then for all of the section. Raises
    ValueError where the run's config cannot be read.
    """
    file = Path(values["run_dir"] or "") / CONFIG
    if not (values["resume"] and values["run_dir"] and file.is_file()):
        return values
    import yaml

    try:
        before = config_of_today(yaml.safe_load(file.read_text(encoding="utf-8")))
        result = {**values, **{key: before[key] for key in before if key not in OWN}}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"run_dir: {file} is no config of a run: {' '.join(str(error).split())}") from error
    words = list(words)
    named = {word.partition("=")[0] for word in words if word[0] not in "+~"}
    usual = defaults() if named & FAR else values
    for key, section in values.items():
        chosen = key in named or _class(section) != _class(usual.get(key))
        if chosen and _class(section) != _class(before.get(key)):
            result[key] = section
    for word in words:
        if word[0] in "+~":
            key = word.partition("=")[0].lstrip("+~")
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

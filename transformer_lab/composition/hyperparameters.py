"""What a run was made of, as a flat table: what differs between runs can be read off it."""

from typing import Any

from transformer_lab.composition.checks import roles
from transformer_lab.keys import Role


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """A config's values by their dotted keys, a class by its name; without where a run lies and how it is watched."""
    aside = {key for key, role in roles().items() if role in (Role.RECORD, Role.PROCESS)}
    return _flat({key: value for key, value in config.items() if key not in aside})


def _flat(config: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            found |= _flat(value, name)
        elif key == "_target_":
            module, _, last = value.rpartition(".")
            found[path] = last if last[0].isupper() else module.rpartition(".")[2]  # kernels are functions in modules
        else:
            found[name] = value if isinstance(value, bool | int | float | str) else str(value)
    return found

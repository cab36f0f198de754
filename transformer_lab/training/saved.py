"""Checkpoints: folders of safetensors and JSON, whole or not there at all, and no code in them.

    checkpoints/step-00000400/model.safetensors     the weights
                              training.safetensors  the tensors of optimizer and callbacks; with `average`, whose
                                                    weights are in the file above, also the latest ones
                              training.json         their numbers, the counters of the run, what it was made of
                              config.yaml, tokenizer.json
                              facts.json            what the task learnt of the training data: the names of classes
                              manifest.json         size and SHA-256 of each file above
    checkpoints/last, best -> a folder above

A folder is written beside, flushed to the disk and renamed; only then does `last` lead to it.
"""

import hashlib
import json
import logging
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from transformer_lab.folders import flush, remove
from transformer_lab.renamed import config_of_today, state_of_today, weights_of_today
from transformer_lab.training.faults import NotSaved

log = logging.getLogger(__name__)
FORMAT = 1
STEP = re.compile(r"step-\d{8,}")
TENSOR, PAIRS = "<tensor>", "<pairs>"  # what stands in training.json for what JSON cannot hold


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a `checkpoints` folder, newest first."""
    named = (path for path in folder.glob("step-*") if STEP.fullmatch(path.name))
    return sorted((path for path in named if path.is_dir() and not path.is_symlink()), reverse=True)


def clean(folder: Path) -> None:
    """Delete what interrupted saves have left in a `checkpoints` folder."""
    for path in folder.glob(".*.partial"):
        remove(path)


def write(folder: Path, weights: dict[str, torch.Tensor], training: dict[str, Any], files: dict[str, str]) -> int:
    """Write a checkpoint beside `folder`, flush it to the disk, and rename it; returns its size in bytes.

    Raises NotSaved, which says how much room it needs and finds; nothing of it stays then.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    tensors: dict[str, torch.Tensor] = {}
    plain = {**files, "training.json": json.dumps(_take_tensors(training, "", tensors), indent=1)}
    try:
        size = _write(beside, weights, tensors, plain)
        if folder.exists():  # of a run that was set back behind this step
            delete(folder)
        beside.rename(folder)
        flush(folder.parent)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            remove(beside)
        needed = sum(x.nbytes for x in (*weights.values(), *tensors.values())) + sum(map(len, plain.values()))
        there = next(place for place in folder.absolute().parents if place.exists())
        raise NotSaved(
            f"checkpoint: {folder} cannot be saved: {getattr(error, 'strerror', None) or error}; it needs "
            f"{needed:,} bytes, {shutil.disk_usage(there).free:,} are free"
        ) from error
    return size


def delete(folder: Path) -> None:
    """All at once, as far as anybody can tell who is interrupted in it."""
    aside = folder.with_name(f".{folder.name}.deleted.partial")
    remove(aside)
    folder.rename(aside)
    remove(aside)


def _write(
    folder: Path, weights: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], plain: dict[str, str]
) -> int:
    remove(folder)  # of an interrupted save
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    save_file(tensors, folder / "training.safetensors")
    for name, text in plain.items():
        (folder / name).write_text(text, encoding="utf-8")
    listed = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": listed}, indent=1), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        flush(path)
    return sum(path.stat().st_size for path in folder.iterdir())


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is whole."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["format"] != FORMAT:
            return f"manifest.json is of format {manifest['format']}, this version reads {FORMAT}"
        for name, listed in files.items():
            path = folder / Path(name).name  # a name leads nowhere else
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != listed["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {listed['bytes']}"
            if _sha256(path) != listed["sha256"]:
                return f"{name} is not what was written (SHA-256 differs)"
        missing = {
            "model.safetensors",
            "training.safetensors",
            "training.json",
            "config.yaml",
            "tokenizer.json",
            "facts.json",
        } - set(files)
        return f"{sorted(missing)[0]} is not in the manifest" if missing else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "manifest.json cannot be read"


def newest_whole(folder: Path, key: str = "run_dir") -> Path | None:
    """The newest checkpoint that is whole; says which damaged ones it passed over. None where there is none at all.

    Raises ValueError, which names the `key`, where all are damaged.
    """
    found = steps(folder)
    for path in found:
        wrong = damage(path)
        if wrong is None:
            return path
        log.warning("Checkpoint %s is damaged and passed over: %s", path, wrong)
    if found:
        raise ValueError(f"{key}: all {len(found)} checkpoints in {folder} are damaged")
    return None


# These read a checkpoint that has been found whole, and run nothing of what they read. What another hand has made may
# still be no checkpoint: `as_saved` says so.


@contextmanager
def as_saved(folder: Path) -> Iterator[None]:
    """Raises ValueError, in one line, where a checkpoint turns out to be something else inside."""
    try:
        yield
    except (SafetensorError, yaml.YAMLError, LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{folder} is not what a run has saved: {type(error).__name__}: {reason}") from error


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return weights_of_today(load_file(folder / "model.safetensors"))


def read_config(folder: Path) -> dict[str, Any]:
    return config_of_today(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))


def read_training(folder: Path) -> dict[str, Any]:
    """The state of training: optimizer, counters, callbacks, and what the run was made of."""
    training: dict[str, Any] = _put_tensors(_plain_training(folder), load_file(folder / "training.safetensors"))
    if "weights" in training:
        training["weights"] = weights_of_today(training["weights"])
    return training


def read_identity(folder: Path) -> dict[str, Any]:
    """What the run was made of, without the optimizer, which is twice as large as the model."""
    return _plain_training(folder)["identity"]


def read_progress(folder: Path) -> dict[str, Any]:
    """The counters of the run."""
    return _plain_training(folder)["progress"]


def sizes(folder: Path) -> dict[str, tuple[int, str]]:
    """Of each parameter how many numbers it has, and of which type; their values are not read."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        found = {name: (math.prod(x.get_shape()), x.get_dtype()) for name, x in slices.items()}
        return weights_of_today(found)


def _plain_training(folder: Path) -> dict[str, Any]:
    return state_of_today(json.loads((folder / "training.json").read_text(encoding="utf-8")))


def _take_tensors(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """What JSON can hold of a state; its tensors go to `tensors`, and their names stand where they were.

    JSON has no numbers as keys, and an optimizer counts its parameters: such a dict becomes a list of pairs.
    """
    if isinstance(value, torch.Tensor):
        path = path if path not in tensors else f"{path}#{len(tensors)}"  # {"a.b": …} beside {"a": {"b": …}}
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: path}
    if isinstance(value, dict):
        inner: dict[Any, Any] = {
            key: _take_tensors(item, f"{path}.{key}".lstrip("."), tensors) for key, item in value.items()
        }
        return inner if all(isinstance(key, str) for key in inner) else {PAIRS: list(inner.items())}
    if isinstance(value, list | tuple):
        return [_take_tensors(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    return value


def _put_tensors(plain: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_take_tensors`."""
    if isinstance(plain, dict):
        if TENSOR in plain:
            return tensors[plain[TENSOR]]
        items = plain[PAIRS] if PAIRS in plain else plain.items()
        return {key: _put_tensors(item, tensors) for key, item in items}
    if isinstance(plain, list):
        return [_put_tensors(item, tensors) for item in plain]
    return plain


def point(link: Path, target: str) -> None:
    """Make `link` lead to `target`, in one step."""
    beside = link.with_name(f".{link.name}.partial")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

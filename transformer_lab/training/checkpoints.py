"""Checkpoints: folders of safetensors and JSON, whole or not there at all, and no code in them.

    checkpoints/step-00000400/model.safetensors     the weights
                              training.safetensors  the tensors of the optimizer
                              training.json         its numbers, the counters of the run, the callbacks
                              config.yaml, tokenizer.json
                              manifest.json         size and SHA-256 of each file above
    checkpoints/last, best -> a folder above

A folder is written beside, flushed to the disk and renamed; only then does `last` lead to it.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from safetensors.torch import load_file, save_file

log = logging.getLogger(__name__)
FORMAT = 1


class Checkpoints(Callback):
    """Saves every `every_steps` steps, after each best validation and at the end; keeps the `keep` newest and the best.

    A step that ends with a validation is saved after it, so that nothing is validated twice or never.
    """

    def __init__(self, *, folder: Path, files: dict[str, str], identity: dict[str, Any], every_steps: int,
                 keep: int) -> None:  # fmt: skip
        for name, value in (("every_steps", every_steps), ("keep", keep)):
            if value < 1:
                raise ValueError(f"checkpoint.{name}: {value} is too small; at least 1")
        self.folder, self.files, self.identity = folder, files, identity
        self.every_steps, self.keep = every_steps, keep

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        step = pl_module.progress.step
        validation_follows = trainer.datamodule.stretch.ends(step) or trainer.should_stop
        if step % self.every_steps == 0 and not validation_follows:
            self.save(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        step, best = pl_module.progress.step, pl_module.progress.best
        if trainer.state.fn == TrainerFn.FITTING and (
            step % self.every_steps == 0 or trainer.should_stop or best.step == step
        ):
            self.save(trainer, pl_module)

    def save(self, trainer: Any, module: Any) -> None:
        module.collect()
        tensors, numbers = split_state(module.optimizer.state_dict())
        callbacks = {c.state_key: c.state_dict() for c in trainer.callbacks if c.state_dict()}
        training = {"format": FORMAT, "identity": self.identity, "progress": module.progress.state(),
                    "optimizer": numbers, "callbacks": callbacks}  # fmt: skip
        texts = {**self.files, "training.json": json.dumps(training, indent=1)}
        progress = module.progress
        write(self.folder / f"step-{progress.step:08d}", module.task.state_dict(), tensors, texts)
        _point(self.folder / "last", f"step-{progress.step:08d}")
        if progress.best and progress.best.step == progress.step:
            _point(self.folder / "best", f"step-{progress.step:08d}")
        self._forget_old()

    def _forget_old(self) -> None:
        best = (self.folder / "best").resolve()
        for folder in steps(self.folder)[self.keep :]:
            if folder.resolve() != best:
                shutil.rmtree(folder)


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a `checkpoints` folder, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def write(
    folder: Path, weights: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor], texts: dict[str, str]
) -> None:
    """Write a checkpoint beside `folder`, flush it to the disk, and rename it."""
    beside = folder.with_name(f".{folder.name}.partial")
    for leftover in (beside, folder):  # of an interrupted save, or of a run that was set back behind this step
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, beside / "model.safetensors")
    save_file(optimizer, beside / "training.safetensors")
    for name, text in texts.items():
        (beside / name).write_text(text, encoding="utf-8")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(beside.iterdir())}
    (beside / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}, indent=1), encoding="utf-8")
    for path in (*beside.iterdir(), beside):
        _flush(path)
    beside.rename(folder)
    _flush(folder.parent)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is whole."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["format"] != FORMAT:
            return f"manifest.json is of format {manifest['format']}, this version reads {FORMAT}"
        for name, facts in files.items():
            path = folder / Path(name).name  # a name leads nowhere else
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {facts['bytes']}"
            if _sha256(path) != facts["sha256"]:
                return f"{name} is not what was written (SHA-256 differs)"
        missing = {"model.safetensors", "training.safetensors", "training.json", "config.yaml", "tokenizer.json"} - set(
            files
        )
        return f"{sorted(missing)[0]} is not in the manifest" if missing else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "manifest.json cannot be read"


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; says which damaged ones it passed over. None where there is none at all.

    Raises ValueError where all are damaged.
    """
    found = steps(folder)
    for path in found:
        wrong = damage(path)
        if wrong is None:
            return path
        log.warning("Checkpoint %s is damaged and passed over: %s", path, wrong)
    if found:
        raise ValueError(f"run_dir: all {len(found)} checkpoints in {folder} are damaged; nothing to go on from")
    return None


def read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """Weights, optimizer tensors and training.json of a checkpoint that has been found whole."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return load_file(folder / "model.safetensors"), load_file(folder / "training.safetensors"), training


def split_state(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state dict as tensors for safetensors, named PARAMETER.KEY, and the numbers for JSON."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{key}"] = value.contiguous()
            else:
                numbers[f"{parameter}.{key}"] = value
    return tensors, {"state": numbers, "param_groups": state["param_groups"]}


def join_state(tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `split_state`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers["state"]}.items():
        parameter, key = name.split(".", 1)
        state.setdefault(int(parameter), {})[key] = value
    return {"state": state, "param_groups": numbers["param_groups"]}


def _point(link: Path, target: str) -> None:
    """Make `link` lead to `target`, in one step."""
    beside = link.with_name(f".{link.name}.partial")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

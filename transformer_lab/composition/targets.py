"""Which classes a config may name: the package's own, those of extensions, and some of other libraries."""

import re
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformer_lab.composition.problems import Problem, unknown
from transformer_lab.composition.signatures import Signature, imported, module, signature

# Other libraries' classes: the package, the section where they may stand, and what they must descend from.
EXTERNAL = {
    "lightning.pytorch.callbacks": ("callbacks", "Callback"),
    "torch.optim": ("optimizer", "Optimizer"),
}
# … but for those that cannot serve here, or would change or save a run behind its back: what to use instead, or why.
SAVES = "a run saves its own checkpoints, as plain data: checkpoint.every_steps and checkpoint.keep"
AVERAGES = "what it validates is not what would be saved: average=ema is"
FREEZES = "freeze_layers and optimizer.layer_decay are what a resumed run knows of"
SHOWS = "a run shows its own progress"
REFUSED = {
    "ModelCheckpoint": SAVES,
    "OnExceptionCheckpoint": SAVES,
    "Checkpoint": SAVES,
    "WeightAveraging": AVERAGES,
    "EMAWeightAveraging": AVERAGES,
    "StochasticWeightAveraging": AVERAGES,
    "LearningRateFinder": "it trains before the run begins: python train.py -m sweep=learning_rate",
    "BatchSizeFinder": "a run that is out of memory halves hardware.micro_batch_tokens by itself",
    "GradientAccumulationScheduler": "a step is one optimizer step: tokens_per_step and hardware.micro_batch_tokens",
    "BaseFinetuning": FREEZES,
    "BackboneFinetuning": FREEZES,
    "ModelPruning": "its masks are not saved",
    "LBFGS": "it asks for the loss several times a step",
    "SparseAdam": "gradients are dense here",
    "ProgressBar": SHOWS,
    "RichProgressBar": SHOWS,
    "TQDMProgressBar": SHOWS,
}
OURS = ("transformer_lab", *EXTERNAL)  # what any config may name of


def target(path: str, name: Any, allowed: Collection[str]) -> Signature:
    """The signature of what may be built at a dotted path; ValueError if it may not, or does not exist."""
    home, _, last = str(name).rpartition(".")
    private = any(part.startswith("_") for part in str(name).split("."))
    if private or not any(str(name).startswith(f"{prefix}.") for prefix in allowed):
        raise ValueError(f"refused: {name!r} is of none of {', '.join(allowed)}, extensions")
    for package, (section, parent) in EXTERNAL.items():
        if name.startswith(f"{package}."):
            if path.partition(".")[0] != section:
                raise ValueError(f"refused: {name!r} may stand in {section} only")
            if last in REFUSED:
                raise ValueError(f"refused: {last}: {REFUSED[last]}")
            if home != package:
                raise ValueError(f"refused: {name!r}; name a class of {package} itself")
            return imported(name, parent)
    if found := signature(name):
        return found
    source = module(home)
    if source is None:
        raise ValueError(f"no module {home!r}")
    raise ValueError(str(unknown(last, f"class in {source.file.name}", source.names)))


def extension_problem(path: str, name: str, typed: Collection[str]) -> Problem | None:
    """A package of the user's own: a stranger's file must not be able to open up an installed library.

    `typed` are those that the user named himself, on the command line.
    """
    spec = find_spec(name) if re.fullmatch(r"[a-zA-Z]\w*", name) else None
    if spec is None:
        what = f"no package {name!r} is installed; one in this folder has to be named on the command line"
        return Problem(path, f"{what}, extensions=[{name}]")
    paths = [spec.origin or "", *(spec.submodule_search_locations or ())]
    installed = any(part in Path(x).parts for x in paths for part in ("site-packages", "dist-packages"))
    if name in sys.stdlib_module_names:
        return Problem(path, f"refused; {name} is a module of Python's own")
    if installed and name not in typed:
        return Problem(path, f"refused; {name} is installed: name it on the command line, extensions=[{name}]")
    return None


def refuse_callbacks(built: dict[str, object]) -> None:
    """Raises ValueError for a callback of another package that is one of those refused."""
    for name, callback in built.items():
        for kind in type(callback).__mro__:
            if kind.__module__.startswith("lightning.") and kind.__name__ in REFUSED:
                what = f"{type(callback).__name__} is a {kind.__name__}"
                raise ValueError(f"callbacks.{name}._target_: refused; {what}: {REFUSED[kind.__name__]}")

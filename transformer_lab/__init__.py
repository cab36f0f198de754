"""Transformers to train, see and change: `import transformer_lab as tl`.

`tl.train`, `tl.load` and `tl.config` are what the command line does, in Python (see `api.py`); models and layers are
PyTorch modules. Names are imported when they are first asked for, as PyTorch alone takes a second.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_lab.api import Run, config, load, train
    from transformer_lab.course.lab import lab
    from transformer_lab.layout import Layout
    from transformer_lab.models.decoder import Decoder
    from transformer_lab.models.encoder import Encoder
    from transformer_lab.models.layers.attention import Attention, CrossAttention
    from transformer_lab.models.seq2seq import Seq2Seq

__all__ = [
    "Attention",
    "CrossAttention",
    "Decoder",
    "Encoder",
    "Layout",
    "Run",
    "Seq2Seq",
    "config",
    "lab",
    "load",
    "train",
]
HOMES = {
    "api": ("Run", "config", "load", "train"),
    "course.lab": ("lab",),
    "layout": ("Layout",),
    "models.decoder": ("Decoder",),
    "models.encoder": ("Encoder",),
    "models.layers.attention": ("Attention", "CrossAttention"),
    "models.seq2seq": ("Seq2Seq",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("transformer-lab")
    home = next((home for home, names in HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home == "api" and sys.platform == "win32":
        from transformer_lab.terminal import WINDOWS

        raise ImportError(WINDOWS)
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

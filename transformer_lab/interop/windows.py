"""How far tokens see: in all layers alike, or in some, which a config.json lists or counts."""

from dataclasses import dataclass
from typing import Any

from transformer_lab.interop.options import Option, Ours, Theirs


@dataclass(frozen=True)
class EveryLayer(Option):
    """How far tokens see, in all layers alike (Mistral)."""

    default: int  # of a config.json that does not say

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        theirs.read.add("sliding_window")
        return {"model.window": theirs.values.get("sliding_window", self.default), "model.global_every": None}

    def outward(self, ours: Ours) -> dict[str, Any]:
        ours.want("model.global_every", None)
        return {"sliding_window": ours.get("model.window")}


@dataclass(frozen=True)
class LayerWindows(Option):
    """… in some layers (Qwen): here every so manieth layer, the first among them, sees everything."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        layers, window = theirs.whole("num_hidden_layers"), theirs.get("sliding_window", None)
        first = theirs.get("max_window_layers", 28)
        kinds = theirs.get("layer_types", None)
        if not theirs.get("use_sliding_window", False) or window is None:
            return {"model.window": None, "model.global_every": None}
        sees_all = [number < first for number in range(layers)]
        if kinds is not None:
            sees_all = [kind == "full_attention" for kind in kinds]
        if all(sees_all):
            return {"model.window": None, "model.global_every": None}
        return {"model.window": window, "model.global_every": every_of(sees_all, theirs)}

    def outward(self, ours: Ours) -> dict[str, Any]:
        window, layers = ours.get("model.window"), ours.get("model.num_layers")
        every = ours.get("model.global_every")
        if window is None:
            return {"use_sliding_window": False, "sliding_window": None}
        kinds = ["full_attention" if sees else "sliding_attention" for sees in sees_everything(every, layers)]
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0, "layer_types": kinds}


def every_of(sees_all: list[bool], theirs: Theirs) -> int | None:
    """Which so manieth layer sees everything, of those that do; raises ValueError where no number says so."""
    layers = len(sees_all)
    for every in (None, *range(2, layers + 1)):
        if sees_everything(every, layers) == sees_all:
            return every
    narrow = ", ".join(str(number) for number, sees in enumerate(sees_all) if not sees)
    raise theirs.refused(
        "layer_types", f"windows in layers {narrow}", ["every so manieth layer, the first among them,"]
    )


def sees_everything(every: int | None, layers: int) -> list[bool]:
    """Of each layer, whether it does: every so manieth, the first among them."""
    return [every is not None and number % every == 0 for number in range(layers)]

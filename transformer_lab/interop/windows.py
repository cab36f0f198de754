"""How far tokens see: in all layers alike, or in some, which a config.json lists or counts."""

from dataclasses import dataclass
from typing import Any

from transformer_lab.interop.options import Option, Ours, Theirs

NO_WINDOWS: dict[str, Any] = {"model.window": None, "model.global_every": None, "model.global_first": 0}


@dataclass(frozen=True)
class EveryLayer(Option):
    """How far tokens see, in all layers alike (Mistral)."""

    default: int  # of a config.json that does not say

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        theirs.read.add("sliding_window")
        return NO_WINDOWS | {"model.window": theirs.values.get("sliding_window", self.default)}

    def outward(self, ours: Ours) -> dict[str, Any]:
        ours.want("model.global_every", None)
        ours.want("model.global_first", 0)
        return {"sliding_window": ours.get("model.window")}


@dataclass(frozen=True)
class LayerWindows(Option):
    """… in some layers (Qwen): here every so manieth layer, from one of the first on, sees everything."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        layers, window = theirs.whole("num_hidden_layers"), theirs.values.get("sliding_window", 4096)
        first = theirs.get("max_window_layers", 28)
        theirs.read.update(("sliding_window", "layer_types"))
        if not theirs.get("use_sliding_window", False) or window is None:
            return NO_WINDOWS
        sees_all = listed(theirs, layers)
        if sees_all is None:
            first = first if type(first) is int else theirs.whole("max_window_layers")
            sees_all = [number < first for number in range(layers)]
        return windows_of(theirs.whole("sliding_window", 4096), sees_all, theirs)

    def outward(self, ours: Ours) -> dict[str, Any]:
        window, layers = ours.get("model.window"), ours.get("model.num_layers")
        every, first = ours.get("model.global_every"), ours.get("model.global_first")
        if window is None:
            return {"use_sliding_window": False, "sliding_window": None}
        kinds = kinds_of(sees_everything(every, first, layers))
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0, "layer_types": kinds}


@dataclass(frozen=True)
class GlobalLayers(Option):
    """… in most layers (ModernBERT, Gemma): which see everything stands in `layer_types`, or is every so manieth by an
    older key, of which it is the first or the last."""

    window: str
    pattern: str
    every: int
    last: bool
    sides: int  # how many the width of a window counts together
    usual: int  # how wide it is in a config.json that is silent

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        layers, every = theirs.whole("num_hidden_layers"), theirs.whole(self.pattern, self.every)
        sees_all = listed(theirs, layers)
        if sees_all is None:
            sees_all = sees_everything(every, every - 1 if self.last else 0, layers)
        width = theirs.whole(self.window, self.usual)
        return windows_of(width // 2 + 1 if self.sides == 2 else width, sees_all, theirs)

    def outward(self, ours: Ours) -> dict[str, Any]:
        layers, window = ours.get("model.num_layers"), ours.get("model.window")
        every, first = ours.get("model.global_every"), ours.get("model.global_first")
        sees_all = sees_everything(every, first, layers) if window else [True] * layers
        width = self.usual if not window else 2 * (window - 1) if self.sides == 2 else window
        return {"layer_types": kinds_of(sees_all), self.window: width}


def listed(theirs: Theirs, layers: int) -> list[bool] | None:
    """Of each layer, whether `layer_types` says that it sees everything; None where there is no such list."""
    kinds = theirs.get("layer_types", None)
    if kinds is None:
        return None
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ValueError(f"{theirs.where}: layer_types: not a list of {layers} kinds, one for each layer")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise theirs.refused("layer_types", kind, ["full_attention", "sliding_attention"])
    return [kind == "full_attention" for kind in kinds]


def windows_of(window: int, sees_all: list[bool], theirs: Theirs) -> dict[str, Any]:
    """Our keys, where `sees_all` says of each layer whether it does; raises ValueError where no two numbers say so."""
    layers = len(sees_all)
    if all(sees_all):
        return NO_WINDOWS
    if not any(sees_all):
        return NO_WINDOWS | {"model.window": window}
    first = sees_all.index(True)
    for every in range(first + 1, layers + 1):
        if sees_everything(every, first, layers) == sees_all:
            return {"model.window": window, "model.global_every": every, "model.global_first": first}
    narrow = ", ".join(str(number) for number, sees in enumerate(sees_all) if not sees)
    raise theirs.refused("layer_types", f"windows in layers {narrow}", ["every so manieth layer that sees everything"])


def sees_everything(every: int | None, first: int, layers: int) -> list[bool]:
    """Of each layer, whether it does."""
    return [every is not None and number % every == first for number in range(layers)]


def kinds_of(sees_all: list[bool]) -> list[str]:
    """What a config.json lists as `layer_types`."""
    return ["full_attention" if sees else "sliding_attention" for sees in sees_all]

"""Rotary positions in a config.json: `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""

from dataclasses import dataclass
from typing import Any

from transformer_lab.interop.families import ROTARY
from transformer_lab.interop.options import Option, Ours, Theirs

POSITIONS = ROTARY.rpartition(".")[0].rpartition(".")[0]
KINDS = {
    "default": ROTARY,
    "linear": f"{POSITIONS}.rotary_linear.RotaryLinear",
    "llama3": f"{POSITIONS}.rotary_llama3.RotaryLlama3",
    "yarn": f"{POSITIONS}.rotary_yarn.RotaryYaRN",
}
LLAMA3 = {"low_freq_factor": "position.slow", "high_freq_factor": "position.fast"}


@dataclass(frozen=True)
class RotaryBase(Option):
    """How fast pairs turn, and what makes them serve longer texts; `base` where a config.json is silent."""

    base: float

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        key = "rope_parameters" if theirs.get("rope_parameters", None) else "rope_scaling"
        parameters = theirs.get(key, {})
        theirs.read.add("rope_scaling")
        if not isinstance(parameters, dict):
            raise theirs.refused(key, parameters)
        theta = theirs.get("rope_theta", self.base)
        share = theirs.get("partial_rotary_factor", 1.0)
        inner = Theirs({"partial_rotary_factor": share, **parameters}, f"{theirs.where}: {key}")
        return scheme(inner, theta, theirs) | {"position.local_base": None}

    def outward(self, ours: Ours) -> dict[str, Any]:
        ours.want("position.local_base", None)
        return {"rope_parameters": found} if (found := parameters_of(ours)) else {}


def scheme(inner: Theirs, base: float, theirs: Theirs) -> dict[str, Any]:
    """Our keys of what `inner` says, the parameters of all layers of `theirs`, or of one kind of them."""
    kind = inner.get("rope_type", inner.get("type", "default"))
    inner.read.update(("rope_type", "type"))
    found: dict[str, Any] = {"position.base": inner.number("rope_theta", base)}
    if (share := inner.get("partial_rotary_factor", 1.0)) != 1.0:
        raise inner.refused("partial_rotary_factor", share, [1.0])
    if not isinstance(kind, str) or kind not in KINDS:
        raise inner.refused("rope_type", kind, KINDS)
    found["position._target_"] = KINDS[kind]
    if kind != "default":
        found["position.factor"] = inner.number("factor")
    if kind in ("llama3", "yarn"):
        trained = inner.get("original_max_position_embeddings", theirs.get("max_position_embeddings"))
        found["position.trained_length"] = trained
    if kind == "llama3":
        found |= {ours: inner.number(key) for key, ours in LLAMA3.items()}
    if kind == "yarn":
        for key, usual in (("beta_fast", 32), ("beta_slow", 1)):
            if (value := inner.get(key, usual)) != usual:
                raise inner.refused(key, value, [usual])
        for key in ("attention_factor", "mscale", "mscale_all_dim"):  # what else changes the scale
            if (value := inner.get(key, None)) is not None:
                raise inner.refused(key, value)
        if inner.get("truncate", True) is not True:
            raise inner.refused("truncate", False, [True])
    inner.refuse_rest({"original_max_position_embeddings"})
    return found


def parameters_of(ours: Ours) -> dict[str, Any] | None:
    """What `scheme` reads; None where positions are no rotary ones, which is then noted."""
    if not ours.want("position._target_", *KINDS.values()):
        return None
    target = ours.get("position._target_")
    kind = next(name for name, value in KINDS.items() if value == target)
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": float(ours.get("position.base"))}
    if kind != "default":
        found["factor"] = float(ours.get("position.factor"))
    if kind in ("llama3", "yarn"):
        found["original_max_position_embeddings"] = ours.get("position.trained_length")
    if kind == "llama3":
        found |= {theirs: float(ours.get(key)) for theirs, key in LLAMA3.items()}
    return found


@dataclass(frozen=True)
class GlobalAndLocalBase(Option):
    """One base for layers that see everything, `bases[0]` where a config.json is silent, and one for layers with a
    window; in older files each had a key of its own."""

    keys: tuple[str, str]
    bases: tuple[float, float]
    scaled: bool = True  # whether those that see everything may serve longer texts than they were trained with

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        rope = theirs.get("rope_parameters", {})
        if not isinstance(rope, dict):
            raise theirs.refused("rope_parameters", rope)
        found = []
        for kind, key, usual in zip(("full_attention", "sliding_attention"), self.keys, self.bases, strict=True):
            said = rope.get(kind) or (theirs.get("rope_scaling", {}) if kind == "full_attention" else {})
            inner = Theirs(said, f"{theirs.where}: rope_parameters.{kind}")
            found.append(scheme(inner, theirs.get(key, usual), theirs))
        everywhere, near = found
        if not self.scaled and everywhere["position._target_"] != ROTARY:
            raise theirs.refused("rope_parameters.full_attention", "scaled", ["default"])
        if near["position._target_"] != ROTARY:
            raise theirs.refused("rope_parameters.sliding_attention", "scaled", ["default"])
        return everywhere | {"position.local_base": near["position.base"]}

    def outward(self, ours: Ours) -> dict[str, Any]:
        if (parameters := parameters_of(ours)) is None or not (self.scaled or ours.want("position._target_", ROTARY)):
            return {}
        local = float(ours.get("position.local_base") or ours.get("position.base"))
        near = {"rope_type": "default", "rope_theta": local}
        return {"rope_parameters": {"full_attention": parameters, "sliding_attention": near}}

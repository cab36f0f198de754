"""The sections of a config that name a class: of which kind it must be, and what it is handed when it is built."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """What a section's class is handed by those who call it, which are no keys of a config."""

    handed: frozenset[str] = frozenset()
    kind: str | None = None  # the dotted name of the class that it must descend from
    in_model: bool = False  # the model calls it with sizes of its own, once or often: a function will do as well


def _part(handed: str = "", kind: str | None = None, *, in_model: bool = False) -> Part:
    return Part(frozenset(handed.split()), kind and f"transformer_lab.{kind}", in_model)


PARTS = {
    "model": _part("vocab_size position norm mixer feed_forward residual attention", "models.model.Model"),
    "position": _part("dim num_heads head_dim causal", "models.layers.positions.base.Position", in_model=True),
    "norm": _part("dim", in_model=True),
    "mixer": _part("dim num_heads num_kv_heads head_dim bias out_bias kernel norm scale causal window", in_model=True),
    "feed_forward": _part("dim", in_model=True),
    "residual": _part("dim layer norm dropout", in_model=True),
    "attention": _part("q k v queries keys causal window bias", in_model=True),
    "task": _part("model tokenizer", "tasks.base.Task"),  # and what it has learnt of the data: see `Task.stand_in`
    "data": _part(kind="data.sources.base.Source"),
    "tokenizer": _part(kind="data.tokenizers.TokenizerTrainer"),
    "optimizer": Part(frozenset({"model", "params"}), "torch.optim.Optimizer"),
    "schedule": _part("total_steps", "training.schedules.Schedule"),
    "hardware": _part(kind="training.hardware.Hardware"),
    "logger": _part(kind="training.loggers.Curves"),
    "pictures": _part("batches"),
    "checkpoint": _part("folder again files identity"),
    "hydra.sweeper": _part("configs composed run"),
}
LAYERS = tuple(name for name, part in PARTS.items() if part.in_model)

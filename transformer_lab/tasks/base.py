"""What a task is: where text meets tensors, from a corpus to a loss and the metrics its field reports."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from transformer_lab.data.packing import Packing
from transformer_lab.data.steps import Collate
from transformer_lab.data.store import Corpus
from transformer_lab.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class Outcome:
    """What a batch gave: the loss summed over its targets, how many these were, and sums the metrics are made of."""

    loss: Tensor
    targets: int
    sums: dict[str, Tensor] = field(default_factory=dict)


class Task(nn.Module):
    """A model with a head and a loss. Subclasses say what they read, how it is packed, and what they report."""

    model_type: ClassVar[type[nn.Module]]  # the model it can train
    example_type: ClassVar[type]  # what its data source must give
    specials: ClassVar[tuple[str, ...]]  # special tokens its tokenizer must have; the first one closes each document

    model: Any
    tokenizer: Tokenizer
    context: int  # longest sequence, in tokens
    collate: Collate  # a plain object, safe to send to loader workers

    def packing(self, corpus: Corpus) -> Packing:
        raise NotImplementedError

    def forward(self, batch: Any) -> Outcome:
        raise NotImplementedError

    def metrics(self, loss: float, sums: dict[str, float], corpus: Corpus) -> dict[str, float]:
        """What is reported of a pass: `loss` is the mean over all targets, `sums` are the outcomes' added up."""
        raise NotImplementedError

    def samples(self, corpus: Corpus) -> str:
        """A few predictions as Markdown, for people to read while the model learns."""
        raise NotImplementedError

    predict: Callable[..., list[str]]  # what the model makes of each line; the options are the task's own

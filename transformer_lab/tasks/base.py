"""What a task is: where text meets tensors, from a corpus to a loss and the metrics its field reports."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from transformer_lab.data.packing import Packing
from transformer_lab.data.steps import Batch, Collate, EvaluationSet
from transformer_lab.data.store import Corpus, Encoding, corpus_of
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.models.heads import TokenHead
from transformer_lab.models.model import Model
from transformer_lab.terminal import one_line, plain

TRIED = 12  # tokens of a text that a trained model is tried with


@dataclass(frozen=True)
class Outcome:
    """What a batch gave: each loss summed over its targets (`Batch.num_targets` says how many), and sums for metrics.

    The loss of a step is the sum over the losses of each one's mean over the targets of the whole step.
    """

    losses: dict[str, Tensor]
    sums: dict[str, Tensor] = field(default_factory=dict)


class Task(nn.Module):
    """A model with a head and a loss. Subclasses say what they read, how it is packed, and what they report."""

    model_types: ClassVar[tuple[type[Model], ...]]  # the models it can train; the first is its default
    example_type: ClassVar[type]  # what its data source must give
    special_tokens: ClassVar[tuple[str, ...]]  # special tokens its tokenizer must have
    best_by: str = "loss"  # the metric whose best validation has the best weights, unless the config names another
    # What `learn` gives the constructor, which is no key of the config; with values that serve to build without data.
    stand_in: ClassVar[dict[str, Any]] = {}

    model: Model
    tokenizer: Tokenizer
    context: int  # longest sequence, in tokens
    capacity: int  # most tokens of a unit
    encoding: Encoding
    collate: Collate  # a plain object, safe to send to loader workers

    @classmethod
    def learn(cls, examples: Iterator[Any], language: str | None) -> dict[str, Any]:
        """What has to be known of the training split before a model can be built, fit for JSON.

        What `stand_in` names is handed to the constructor; all else is an option of the task that the data decide, and
        is put into the config, unless it is set there.
        `language` is the code of the one that is written, where the data name it. Here: nothing is learnt, and the data
        need not be read for it.
        """
        return {}

    @classmethod
    def rehearsal(cls, options: dict[str, Any]) -> dict[str, Any]:
        """What `learn` might return, with which a build without data tries these options of the task."""
        return cls.stand_in

    def packing(self, corpus: Corpus) -> Packing:
        raise NotImplementedError

    def evaluation_packing(self, corpus: Corpus) -> Packing:
        """How a split is read when it is scored."""
        return self.packing(corpus)

    def example(self, given: Any) -> Any:
        """What a person types as an example of this task: a text, unless a task says otherwise."""
        return self.example_type(given)

    def batch(self, examples: Sequence[Any]) -> Batch:
        """A few examples as one batch, encoded, packed and collated as in training. Raises ValueError where the task
        can make nothing of them."""
        packing = self.packing(corpus_of(examples, self.tokenizer, self.encoding))
        return self.collate(packing.corpus, packing.pieces(np.arange(packing.num_units)), 0)

    def forward(self, batch: Any) -> Outcome:
        raise NotImplementedError

    def compile(self, *args: Any, **options: Any) -> None:
        """From now on run what takes most of a step compiled: the blocks of the model, and the loss of tokens.

        The options are those of `torch.compile`. One program of a block serves batches of every size.
        """
        self.model.compile(*args, **{"dynamic": True, **options})
        for part in self.modules():
            if isinstance(part, TokenHead):
                part.compile(*args, **options)  # the vocabulary has one size always: known, it is read faster

    def score(self, batch: Any) -> Outcome:
        """The outcome of a batch of an evaluation, with all that the metrics need."""
        outcome: Outcome = self(batch)
        return outcome

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        """What is reported of a pass: `losses` are means over their targets, `sums` are the outcomes' added up."""
        raise NotImplementedError

    def scored_by(self) -> str | None:
        """Which implementation and settings the scores are of; None where their names say all."""
        return None

    def try_with(self, corpus: Corpus) -> str:
        """Something to try a trained model with: how a text of a split begins, in one line."""
        column = corpus[corpus.tokens_in[0]]
        begins = (self.tokenizer.decode(column[row][:TRIED].tolist()).split() for row in range(len(column)))
        return one_line(max((" ".join(words) for words in itertools.islice(begins, 10)), key=len))

    def samples(self, batches: EvaluationSet) -> str:
        """A few predictions on a split as Markdown, for people to read while the model learns."""
        raise NotImplementedError

    def pictures(self, sums: dict[str, Tensor]) -> dict[str, Any]:
        """What of a pass is better seen than read: a matplotlib figure by its name."""
        return {}

    # What the model makes of each line, fit for JSON; `text` is what a person reads, `truncated` says that a line was
    # longer than the context. Options are the task's own.
    predict: Callable[..., list[dict[str, Any]]]

    def show(self, batch: Any) -> str:
        """A batch as the model sees it: decoded, with the borders of its sequences, and what is to be predicted."""
        raise NotImplementedError


def quoted(text: str) -> str:
    """Text as it is, for Markdown: indented, so that nothing in it is taken for markup."""
    return "\n".join(f"    {plain(line)}" for line in text.splitlines())


def told_truncated(truncated: bool) -> dict[str, bool]:
    """What a prediction says of a text that was longer than the context: part of it the model has not seen."""
    return {"truncated": True} if truncated else {}


def some(count: int, most: int) -> np.ndarray:
    """At most so many numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, num=min(count, most)).astype(np.int64))


def check_context(context: int, least: int, why: str, limit: int | None, needed: int | None = None) -> None:
    """Raises ValueError where the longest sequence is too short to hold anything, or longer than positions reach."""
    if context < least:
        raise ValueError(f"task.context: {context} is too short; at least {least}, {why}")
    if limit is not None and (needed or context) > limit:
        raise ValueError(
            f"task.context: {needed or context} tokens are more than `position` serves; at most {limit}, "
            f"or position.max_length={needed or context}"
        )

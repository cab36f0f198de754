"""What a task is: where text meets tensors, from a corpus to a loss and the metrics its field reports."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from transformer_lab.data.packing import Packing
from transformer_lab.data.steps import Batch, Collator, EvaluationSet
from transformer_lab.data.store import Corpus, Encoding, corpus_of
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.models.heads import TokenHead
from transformer_lab.models.model import Model
from transformer_lab.terminal import one_line, plain

TRIED = 12  # tokens of a text that a trained model is tried with
MISTAKES = 10  # of the hardest texts that are told
SHOWN = 500  # characters of each
Row = dict[str, Any]  # of a table: cells by their columns


@dataclass(frozen=True)
class Outcome:
    """What a batch gave: each loss summed over its targets (`Batch.num_targets` says how many).

    The loss of a step is the sum over the losses of each one's mean over the targets of the whole step.
    """

    losses: dict[str, Tensor]


@dataclass(frozen=True)
class Scored:
    """What the texts of a batch add to the scores of an evaluation: a row for each, or for each part of one.

    `losses` are (P, 2): each summed over a row's targets, and how many those are. `counts` (P, …) is what else the
    metrics are made of. `Collator.examples` says which text a row is of; what is known of one text is added up.
    """

    losses: dict[str, Tensor]
    counts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Texts:
    """What a pass has found of each text of a split: `Scored`, on the CPU in double precision, added up by text."""

    examples: np.ndarray  # (T,) which examples of the corpus they are, ascending
    losses: dict[str, Tensor]  # (T, 2)
    counts: dict[str, Tensor]  # (T, …)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def once(self) -> Tensor:
        """How often each text counts where all of them count: (T,)."""
        return torch.ones(len(self), dtype=torch.float64)

    @property
    def loss(self) -> Tensor:
        """Of each text, for each of its targets: (T,)."""
        means = [loss[:, 0] / loss[:, 1].clamp(min=1e-9) for loss in self.losses.values()]
        return torch.stack(means).sum(0)

    @property
    def hardest(self) -> list[tuple[int, float]]:
        """Rows with their losses, the greatest first."""
        losses, rows = self.loss.sort(descending=True, stable=True)
        return list(zip(rows.tolist(), losses.tolist(), strict=True))


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
    collate: Collator

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

    def score(self, batch: Any) -> Scored:
        """What each text of a batch of an evaluation adds to the scores."""
        raise NotImplementedError

    def fit_to(self, texts: Texts) -> None:
        """What a task sets by the validation split, before its metrics are taken; here nothing."""

    def sums(self, texts: Texts) -> Callable[[Tensor], dict[str, Tensor]]:
        """What metrics are made of, by how often each text counts (T,); here the counts, added up."""
        return lambda weights: {name: torch.tensordot(weights, rows, 1) for name, rows in texts.counts.items()}

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        """What is reported of a pass: `losses` are means over their targets, `sums` what is counted."""
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
        """A few predictions on a split as Markdown, for people to read while the model learns; "" where the hardest
        texts say as much."""
        return ""

    def tables(self, texts: Texts) -> dict[str, list[Row]]:
        """What a pass has found, in more detail than its metrics: tables by their names."""
        return {}

    def mistakes(self, texts: Texts, corpus: Corpus) -> list[Row]:
        """The texts of a split that the model found hardest, with what it made of them, fit for JSON; under `text` what
        a person reads."""
        found = []
        for row, loss in texts.hardest[:MISTAKES]:
            tokens = tokens_of(corpus, int(texts.examples[row]), min(self.context, SHOWN))
            found.append({"loss": loss, "text": self.tokenizer.decode(tokens.tolist())[:SHOWN]})
        return found

    def pictures(self, texts: Texts) -> dict[str, Any]:
        """What of a pass is better seen than read: a matplotlib figure by its name."""
        return {}

    # What the model makes of each line, fit for JSON; `text` is what a person reads, `truncated` says that a line was
    # longer than the context. Options are the task's own.
    predict: Callable[..., list[dict[str, Any]]]

    def show(self, batch: Any) -> str:
        """A batch as the model sees it: decoded, with the borders of its sequences, and what is to be predicted."""
        raise NotImplementedError


def tokens_of(corpus: Corpus, example: int, most: int) -> np.ndarray:
    """What an example begins with, or a part of the only one (see `examples_at`)."""
    column = corpus["tokens"]
    return column.values[example : example + most] if corpus.num_examples == 1 else column[example][:most]


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

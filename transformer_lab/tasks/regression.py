"""A number for each text, or for two texts together: how good a review is, how alike two sentences are.

**B** texts or pairs, **T** texts of a split.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from transformer_lab.data.examples import LabeledText
from transformer_lab.data.store import Corpus
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.figures import legible, new_figure
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.heads import Pooling
from transformer_lab.tasks.base import MISTAKES, Outcome, Row, Scored, Texts
from transformer_lab.tasks.sequence_task import BEGIN, END, SequenceTask, TextBatch, TextCollate, TextEncoding, number

MOST_DRAWN = 5000  # points of a picture
DIGITS = 6  # of a number that is told


@dataclass(frozen=True)
class NumberEncoding(TextEncoding):
    label_column = ("value", np.float64)

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "numbers", "pairs": self.pairs}

    def label(self, example: LabeledText) -> Sequence[float]:
        return [value_of(example)]


def value_of(example: LabeledText) -> float:
    """Raises ValueError where its label is no number, or several."""
    value = number(example.labels[0]) if len(example.labels) == 1 else None
    if value is None:
        labels = ", ".join(example.labels) or "nothing"
        raise ValueError(
            f"data.label_column: {labels!r:.40} of the text {example.text!r:.60} is no number; "
            "task=classification learns names"
        )
    return value


@dataclass(frozen=True)
class NumberCollate(TextCollate):
    mean: float
    deviation: float

    def labels(self, corpus: Corpus, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        column = corpus["value"]
        values = (column.values[column.offsets[rows]] - self.mean) / self.deviation
        return torch.from_numpy(values.astype(np.float32)), {"values": float(len(rows))}


class Regression(SequenceTask):
    """Trains an `Encoder` or a `Decoder` to give a number for a text, or for a pair, of at most `context` tokens.

    The loss is the squared error in units of the training numbers' standard deviation, so that learning rates are as
    for other tasks, and 1 is what their `mean` alone would reach; `mse` is in the units of the data. `scale` has mean
    and standard deviation of the training split. `pooling` makes one vector of a text (see `SequenceHead`); None: the
    mean for an encoder, the last token for a decoder. `truncate` says what a text that is too long loses. `pairs` says
    that two texts are read together, which the data decide; a model with two `token_types` tells them apart.
    """

    encoding: NumberEncoding
    collate: NumberCollate
    stand_in = {"scale": {"mean": 0.0, "deviation": 1.0}}  # noqa: RUF012
    said_of_nothing = {"value": None}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Encoder | Decoder,
        tokenizer: Tokenizer,
        scale: dict[str, float],
        name: str,
        context: int,
        pooling: Pooling | None = None,
        dropout: float = 0.0,
        truncate: Literal["end", "beginning"] = "end",
        pairs: bool = False,
    ) -> None:
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            name=name,
            context=context,
            num_outputs=1,
            pooling=pooling,
            dropout=dropout,
            pairs=pairs,
        )
        self.mean, self.deviation = scale["mean"], scale["deviation"]
        self.encoding = NumberEncoding(pairs)
        begin, end = tokenizer.special(BEGIN), tokenizer.special(END)
        self.collate = NumberCollate(self.encoding.texts_in, begin, end, context, truncate, self.mean, self.deviation)

    @classmethod
    def learn(cls, examples: Iterator[LabeledText], language: str | None) -> dict[str, Any]:
        count, mean, squares, pairs = 0, 0.0, 0.0, False
        for example in examples:  # in one pass, and exact (Welford, 1962)
            value = value_of(example)
            count += 1
            before = value - mean
            mean += before / count
            squares += before * (value - mean)
            pairs = pairs or example.second is not None
        if not squares:
            raise ValueError(f"data.label_column: all texts of the training split have the number {mean:g}")
        scale = {"mean": mean, "deviation": math.sqrt(squares / count)}
        return {"scale": scale, **({"pairs": True} if pairs else {})}

    def label_of(self, line: str) -> Any:
        return self.predict([line])[0]["value"]

    def values(self, batch: TextBatch) -> Tensor:  # (B,) in standard deviations from the mean
        return self.logits(batch)[:, 0]

    def forward(self, batch: TextBatch) -> Outcome:
        return Outcome({"values": (self.values(batch) - batch.labels).square().sum()})

    def score(self, batch: TextBatch) -> Scored:
        said, true = self.values(batch), batch.labels
        losses = torch.stack([(said - true).square(), torch.ones_like(said)], 1)
        return Scored({"values": losses}, {"said": said, "true": true})

    def sums(self, texts: Texts) -> Callable[[Tensor], dict[str, Tensor]]:
        said, true = texts.counts["said"], texts.counts["true"]
        ranks = ranked(said), ranked(true)
        return lambda weights: {
            "pearson": moments(said, true, weights),
            "spearman": moments(ranks[0](weights), ranks[1](weights), weights),
        }

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        correlations = {name: correlation(found) for name, found in sums.items()}
        return {"loss": losses["values"], "mse": losses["values"] * self.deviation**2, **correlations}

    def in_units(self, value: float) -> float:
        """… of the data, of what is in standard deviations from the mean."""
        return round_to(self.mean + self.deviation * value)

    def mistakes(self, texts: Texts, corpus: Corpus) -> list[Row]:
        found: list[Row] = []
        for row, loss in texts.hardest[:MISTAKES]:
            true, said = (self.in_units(float(texts.counts[name][row])) for name in ("true", "said"))
            told = {"loss": loss, "label": true, "prediction": said}
            found.append({**told, "text": self.text_of(corpus, int(texts.examples[row]))})
        return found

    def pictures(self, texts: Texts) -> dict[str, Any]:
        """What was said over what is true, and where both are equal."""
        some = np.unique(np.linspace(0, len(texts) - 1, MOST_DRAWN).astype(int))
        true, said = (self.mean + self.deviation * texts.counts[name][some].numpy() for name in ("true", "said"))
        figure = new_figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.scatter(true, said, s=10, alpha=0.4)
        ends = min(true.min(), said.min()), max(true.max(), said.max())
        axes.plot(ends, ends, color="grey", linewidth=1)
        axes.set(xlabel="is", ylabel="prediction", aspect="equal")
        axes.grid(alpha=0.3)
        return {"scatter": legible(figure)}

    def said(self, logits: Tensor) -> list[dict[str, Any]]:
        values = map(self.in_units, logits[:, 0].tolist())
        return [{"value": value, "text": f"{value:.4g}"} for value in values]

    def label_name(self, label: Any) -> str:
        return f"{self.in_units(label):.4g}"


def round_to(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def moments(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Of values (T,), each of which counts so often, the sums of 1, x, y, x², y² and xy: (6,)."""
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]) @ weights


def correlation(sums: Tensor) -> float:
    """Pearson's, of `moments`; 0 where one of the two is the same everywhere."""
    count, x, y, xx, yy, xy = sums.tolist()
    spread = (count * xx - x * x) * (count * yy - y * y)
    return max(-1.0, min(1.0, (count * xy - x * y) / math.sqrt(spread))) if spread > 0 else 0.0


def ranked(values: Tensor) -> Callable[[Tensor], Tensor]:
    """The rank of each value by how often each counts, as a share of all; equal ones share the middle of theirs, as
    Spearman's correlation has it: (T,) -> (T,)."""
    distinct, which = torch.unique(values, return_inverse=True)

    def rank(weights: Tensor) -> Tensor:
        counts = torch.bincount(which, weights, minlength=len(distinct))
        return ((counts.cumsum(0) - counts / 2) / weights.sum())[which] - 0.5

    return rank

"""Tasks that say one thing of a whole text, or of two texts together: what class it is of, how good it is.

**N** tokens of a batch, **B** texts or pairs, **C** numbers that a model gives of each.
"""

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from transformer_lab.data.examples import LabeledText
from transformer_lab.data.packing import EXAMPLE, Packing, Packs, ranges
from transformer_lab.data.steps import Batch, Collator
from transformer_lab.data.store import Corpus, Ragged, Token
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.layout import Layout
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.heads import Pooling, SequenceHead, Transform
from transformer_lab.tasks.base import SHOWN, Task, check_context, told_truncated
from transformer_lab.terminal import one_line

BEGIN, END = "<cls>", "<sep>"
AT_ONCE = 64  # texts read together in a prediction


@dataclass(frozen=True, eq=False, kw_only=True)
class TextBatch(Batch):
    tokens: Tensor  # (N,)
    layout: Layout
    types: Tensor | None  # (N,) of pairs: 1 in the second text and its end, else 0, as in BERT
    labels: Tensor  # (B,) of each text; or (B, C), 1 where a text belongs to a class


@dataclass(frozen=True)
class TextEncoding:
    """A row of tokens for each text, of pairs another one for the second, and a row of what is to be said of it."""

    pairs: bool
    label_column: ClassVar[tuple[str, type]]  # its name and kind of number
    written = None

    @property
    def texts_in(self) -> tuple[str, ...]:
        """The columns that hold tokens."""
        return ("tokens", "second") if self.pairs else ("tokens",)

    @property
    def columns(self) -> Mapping[str, type]:
        name, kind = self.label_column
        return {**dict.fromkeys(self.texts_in, Token), name: kind}

    @abstractmethod
    def cache_key(self) -> dict[str, Any]: ...

    @abstractmethod
    def label(self, example: LabeledText) -> Sequence[float]: ...

    def texts(self, example: LabeledText) -> Sequence[str]:
        if (example.second is not None) != self.pairs:
            raise ValueError(
                f"task.pairs={str(self.pairs).lower()}: {example.texts!r:.60} is {len(example.texts)} texts"
            )
        return example.texts

    def row(self, example: LabeledText, encoded: list[list[int]]) -> dict[str, Any]:
        return {**dict(zip(self.texts_in, encoded, strict=True)), self.label_column[0]: self.label(example)}


@dataclass(frozen=True)
class TextCollate(Collator):
    """Texts between `begin` and `end`, which also parts two; of what is longer than `context`, the end or the beginning
    is truncated, of pairs that of the longer text."""

    texts_in: tuple[str, ...]  # the columns
    begin: int
    end: int
    context: int
    truncate: Literal["end", "beginning"]

    @abstractmethod
    def labels(self, corpus: Corpus, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Of these examples, and how many targets they are."""

    def __call__(self, corpus: Corpus, pieces: np.ndarray, key: int) -> TextBatch:
        columns, rows = [corpus[name] for name in self.texts_in], pieces["example"]
        begins = np.stack([column.offsets[rows] for column in columns])
        there = np.stack([column.offsets[rows + 1] for column in columns]) - begins
        lengths = kept(there, self.context)
        if self.truncate == "beginning":
            begins += there - lengths
        whole = marked(lengths)
        place = np.cumsum(whole) - whole  # of what comes next in each
        tokens = np.empty(whole.sum(), dtype=np.int64)
        types: np.ndarray | None = None
        tokens[place] = self.begin
        for number, (column, first, length) in enumerate(zip(columns, begins, lengths, strict=True)):
            place = place + 1
            if length.any():
                tokens[ranges(place, length)] = column.values[ranges(first, length)]
            if number:
                types = np.zeros_like(tokens)
                types[ranges(place, length + 1)] = 1
            place = place + length
            tokens[place] = self.end
        labels, num_targets = self.labels(corpus, rows)
        return TextBatch(
            num_tokens=len(tokens),
            num_targets=num_targets,
            tokens=torch.from_numpy(tokens),
            layout=Layout.of(torch.from_numpy(whole)),
            types=None if types is None else torch.from_numpy(types),
            labels=labels,
        )


def number(label: str) -> float | None:
    """The number that a label is, if it is one."""
    try:
        found = float(label)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def marked(lengths: np.ndarray) -> np.ndarray:
    """How long texts (1, B), or the two of each pair (2, B), are with the tokens around them: (B,)."""
    return np.asarray(lengths.sum(0) + 1 + len(lengths))


def kept(lengths: np.ndarray, context: int) -> np.ndarray:
    """What is left of each so that they fit: of a pair the longer one is cut, both to half where both are longer."""
    room = context - 1 - len(lengths)
    if len(lengths) == 1:
        return np.minimum(lengths, room)
    first, second = lengths
    half = room // 2
    return np.stack(
        [
            np.minimum(first, np.maximum(room - half, room - second)),
            np.minimum(second, np.maximum(half, room - first)),
        ]
    )


class SequenceTask(Task):
    """Trains an `Encoder` or a `Decoder` to say one thing of a text, or of a pair, of at most `context` tokens.

    A subclass sets `encoding` and `collate`, and says what is learned and what is made of it. `num_outputs` numbers are
    given of each text, by a head with this `pooling` (see `SequenceHead`); None: the mean for an encoder, the last
    token for a decoder. `pairs` says that two texts are read together; a model with two `token_types` tells them apart.
    """

    collate: TextCollate
    encoding: TextEncoding
    model: Encoder | Decoder
    model_types = (Encoder, Decoder)
    example_type = LabeledText
    special_tokens = (BEGIN, END)
    said_of_nothing: ClassVar[dict[str, Any]]  # what `predict` says of a line that cannot be read

    def __init__(
        self,
        *,
        model: Encoder | Decoder,
        tokenizer: Tokenizer,
        name: str,
        context: int,
        num_outputs: int,
        pooling: Pooling | None,
        dropout: float,
        pairs: bool,
        transform: bool = False,
        head_bias: bool = True,
    ) -> None:
        super().__init__()
        least, why = (5, "a token of each text between the three") if pairs else (3, "a token between the two")
        check_context(context, least, f"{why} that mark beginning and end", model.position.max_length)
        if not 0 <= dropout < 1:
            raise ValueError(f"task.dropout: {dropout} is not a share; 0 <= dropout < 1")
        causal = isinstance(model, Decoder)
        if causal and pooling in ("first", "pooler"):
            raise ValueError(
                f"task.pooling: the first token of a decoder has seen nothing of the text, so {pooling} "
                "cannot judge it; last or mean"
            )
        self.model, self.tokenizer, self.name, self.context = model, tokenizer, name, context
        self.capacity = context
        between = Transform(dim=model.dim, bias=model.bias, norm=model.make_norm(dim=model.dim)) if transform else None
        self.head = SequenceHead(
            dim=model.dim,
            num_classes=num_outputs,
            dropout=dropout,
            width_ratio=model.width_ratio,
            pooling=pooling or ("last" if causal else "mean"),
            transform=between,
            bias=head_bias,
        )

    def example(self, given: Any) -> LabeledText:
        """A text, or of pairs a tuple of two, which then has the label that the model predicts; or `(text, label)`,
        of several labels `(text, [label, …])`."""
        alone = isinstance(given, str) or (self.encoding.pairs and isinstance(given[0], str))
        text, labels = (given, None) if alone else given
        text, second = text if self.encoding.pairs else (text, None)
        if labels is None:
            labels = self.label_of(text if second is None else json.dumps([text, second]))
        some = tuple(labels) if isinstance(labels, (list, tuple)) else (labels,)
        return LabeledText(text, tuple(map(str, some)), second=second)

    @abstractmethod
    def label_of(self, line: str) -> Any:
        """What the model says of a line, as data would."""

    def try_with(self, corpus: Corpus) -> str:
        if not self.encoding.pairs:
            return super().try_with(corpus)
        texts = [self.tokenizer.decode(corpus[name][0].tolist()) for name in self.encoding.texts_in]
        return one_line(json.dumps([" ".join(text.split()) for text in texts], ensure_ascii=False))

    def packing(self, corpus: Corpus) -> Packing:
        return Packs(corpus=corpus, capacity=self.context, layout=EXAMPLE, pieces=self._pieces, cache_key="texts")

    def _pieces(self, corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
        columns = [corpus[name] for name in self.encoding.texts_in]
        lengths = np.stack([np.diff(column.offsets[begin : end + 1]) for column in columns])
        return (
            np.arange(begin, end).view(EXAMPLE),
            marked(kept(lengths, self.context)),
            int((marked(lengths) > self.context).sum()),
        )

    def logits(self, batch: TextBatch) -> Tensor:  # (B, C)
        told_apart = {"types": batch.types} if isinstance(self.model, Encoder) else {}
        hidden = self.model(batch.tokens, batch.layout, indices=self.head.indices(batch.layout), **told_apart)
        return self.head(hidden, batch.layout).float()

    def text_of(self, corpus: Corpus, example: int) -> str:
        """A text of a split, or both of a pair, as a person reads it."""
        columns = (corpus[name][example] for name in self.encoding.texts_in)
        return " ‖ ".join(self.tokenizer.decode(row[:SHOWN].tolist())[:SHOWN] for row in columns)

    @abstractmethod
    def label_name(self, label: Any) -> str:
        """A label of a batch as a person reads it."""

    def show(self, batch: TextBatch) -> str:
        texts = batch.tokens.split(batch.layout.lengths.tolist())
        return "\n".join(
            f"{self.label_name(label)} | {self.tokenizer.reveal(text.tolist())}"
            for text, label in zip(texts, batch.labels.tolist(), strict=True)
        )

    @abstractmethod
    def said(self, logits: Tensor) -> list[dict[str, Any]]:
        """Of each text, what `predict` says; `text` is short for it: (B, C) -> B dicts."""

    def predict(self, lines: list[str]) -> list[dict[str, Any]]:
        """What is said of each line; of pairs, a line is a JSON list of two texts."""
        self.eval()
        found: list[dict[str, Any]] = []
        for begin in range(0, len(lines), AT_ONCE):
            some = lines[begin : begin + AT_ONCE]
            texts = [self._texts(line) for line in some]
            corpus = self._corpus([both or [""] * len(self.encoding.texts_in) for both in texts])
            batch: TextBatch = self.collate(corpus, np.arange(len(some)).view(EXAMPLE), 0)
            with torch.inference_mode():
                said = self.said(self.logits(batch.to(self.model.embedding.weight.device)))
            lengths = np.stack([corpus[name].lengths for name in self.encoding.texts_in])
            truncated = (marked(lengths) > self.context).tolist()
            for line, both, one, short in zip(some, texts, said, truncated, strict=True):
                if both is None:
                    error = 'no pair of texts, such as ["A man sleeps.", "Nobody is awake."]'
                    found.append({"input": line, **self.said_of_nothing, "error": error, "text": f"{line}\t({error})"})
                else:
                    found.append({"input": line, **one, "text": f"{one['text']}\t{line}", **told_truncated(short)})
        return found

    def _texts(self, line: str) -> list[str] | None:
        """What a line holds; None where it is no pair, and is to be one."""
        if not self.encoding.pairs:
            return [line]
        try:
            both = json.loads(line)
        except (ValueError, RecursionError):
            return None
        fits = isinstance(both, list) and len(both) == 2 and all(isinstance(text, str) for text in both)
        return both if fits else None

    def _corpus(self, texts: list[list[str]]) -> Corpus:
        """Texts without known labels as a corpus."""
        names = self.encoding.texts_in
        columns = {
            name: Ragged.of(self.tokenizer.encode_batch(list(column)))
            for name, column in zip(names, zip(*texts, strict=True), strict=True)
        }
        return Corpus({**columns, self.encoding.label_column[0]: Ragged.of([[0]] * len(texts))}, names, 0)

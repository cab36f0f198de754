"""Which class, or classes, a text belongs to.

**N** tokens of a batch, **B** texts, **C** classes.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transformer_lab.data.examples import LabeledText
from transformer_lab.data.packing import EXAMPLE, Packing, Packs, ranges
from transformer_lab.data.sources.base import no_such_name
from transformer_lab.data.steps import Batch, EvaluationSet
from transformer_lab.data.store import Corpus, Ragged, Token
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.layout import Layout
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.heads import Pooling, SequenceHead
from transformer_lab.tasks import classification_report as report
from transformer_lab.tasks.base import Outcome, Task, check_context, quoted, told_truncated
from transformer_lab.terminal import without_markup

log = logging.getLogger(__name__)
BEGIN, END = "<cls>", "<sep>"
SEPARATORS = (",", ";", "|", "/")  # what people write between labels
LOOKED_AT = 512  # examples of the validation split among which the worst mistakes are sought
AT_ONCE = 64  # texts classified together


@dataclass(frozen=True, eq=False, kw_only=True)
class TextBatch(Batch):
    tokens: Tensor  # (N,)
    layout: Layout
    classes: Tensor  # (B,) of each text; or (B, C), 1 where a text belongs to a class


@dataclass(frozen=True)
class LabeledEncoding:
    """A row of tokens and one of classes for each text."""

    labels: tuple[str, ...]
    columns = {"tokens": Token, "classes": np.int32}  # noqa: RUF012 - the same for all
    written = None

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "labelled", "labels": self.labels}

    def texts(self, example: LabeledText) -> Sequence[str]:
        return example.texts

    def row(self, example: LabeledText, encoded: list[list[int]]) -> dict[str, Sequence[int]]:
        return {"tokens": encoded[0], "classes": list(dict.fromkeys(map(self._class, example.labels)))}

    def _class(self, label: str) -> int:
        label = _composed(label)
        if label not in self.labels:
            raise no_such_name("data", label, self.labels, "a label that no text of the training split has")
        return self.labels.index(label)


@dataclass(frozen=True)
class Collate:
    """Texts between `begin` and `end`; of one longer than `context`, the end or the beginning is truncated."""

    begin: int
    end: int
    context: int
    truncate: Literal["end", "beginning"]
    num_classes: int | None  # where a text may belong to several classes
    weights: tuple[float, ...]  # of the classes

    def __call__(self, corpus: Corpus, pieces: np.ndarray, key: int) -> TextBatch:
        column, rows = corpus["tokens"], pieces["example"]
        begins, ends = column.offsets[rows], column.offsets[rows + 1]
        room = self.context - 2
        if self.truncate == "end":
            ends = np.minimum(ends, begins + room)
        else:
            begins = np.maximum(begins, ends - room)
        lengths = ends - begins
        last = np.cumsum(lengths + 2) - 1
        tokens = np.empty(last[-1] + 1, dtype=np.int64)
        tokens[last - lengths - 1], tokens[last] = self.begin, self.end
        if lengths.any():
            tokens[ranges(last - lengths, lengths)] = column.values[ranges(begins, lengths)]
        classes, num_targets = self._classes(corpus, rows)
        return TextBatch(
            num_tokens=len(tokens),
            num_targets=num_targets,
            tokens=torch.from_numpy(tokens),
            layout=Layout.of(torch.from_numpy(lengths + 2)),
            classes=classes,
        )

    def _classes(self, corpus: Corpus, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        column = corpus["classes"]
        if self.num_classes is None:
            classes = torch.from_numpy(column.values[column.offsets[rows]].astype(np.int64))
            return classes, {"classes": float(np.asarray(self.weights)[classes.numpy()].sum())}
        member = torch.zeros(len(rows), self.num_classes)
        for place, row in enumerate(rows):
            member[place, column[row].astype(np.int64)] = 1
        return member, {"classes": len(rows) * float(sum(self.weights))}


class Classification(Task):
    """Trains an `Encoder` or a `Decoder` to name the class of a text of at most `context` tokens.

    With `multi_label`, a text may belong to any number of classes: each is a yes or no of its own. `pooling` makes one
    vector of a text (see `SequenceHead`); None: the mean for an encoder, the last token for a decoder.
    `class_weights` says how much each class counts in the loss, by name, or is "balanced": the rarer, the more
    (King and Zeng, 2001). `truncate` says what a text that is too long loses. `labels` are the classes and how many
    texts of the training split are of each.
    """

    collate: Collate
    model: Encoder | Decoder
    model_types = (Encoder, Decoder)
    example_type = LabeledText
    special_tokens = (BEGIN, END)
    stand_in = {"labels": {"a": 1, "b": 1}}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Encoder | Decoder,
        tokenizer: Tokenizer,
        labels: dict[str, int],
        name: str,
        context: int,
        pooling: Pooling | None = None,
        multi_label: bool = False,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: dict[str, float] | Literal["balanced"] | None = None,
        truncate: Literal["end", "beginning"] = "end",
    ) -> None:
        super().__init__()
        check_context(context, 3, "a token between the two that mark beginning and end", model.position.max_length)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"task.label_smoothing: {label_smoothing} is not a share; 0 <= label_smoothing < 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"task.dropout: {dropout} is not a share; 0 <= dropout < 1")
        causal = isinstance(model, Decoder)
        if causal and pooling in ("first", "pooler"):
            raise ValueError(
                f"task.pooling: the first token of a decoder has seen nothing of the text, so {pooling} "
                "cannot judge it; last or mean"
            )
        self.model, self.tokenizer, self.name, self.context = model, tokenizer, name, context
        self.capacity, self.labels, self.multi_label = context, tuple(labels), multi_label
        self.label_smoothing = label_smoothing
        self.best_by = "macro_f1" if multi_label or class_weights else "accuracy"  # who weighs classes asks for each
        if multi_label and (joined := _joined(self.labels)):
            log.warning("data.separator: %r is taken for one class; data.separator=%r makes several of it", *joined)
        weights = _weights(labels, class_weights)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.encoding = LabeledEncoding(self.labels)
        begin, end = tokenizer.special(BEGIN), tokenizer.special(END)
        self.collate = Collate(begin, end, context, truncate, len(labels) if multi_label else None, tuple(weights))
        self.head = SequenceHead(
            dim=model.dim,
            num_classes=len(labels),
            dropout=dropout,
            width_ratio=model.width_ratio,
            pooling=pooling or ("last" if causal else "mean"),
        )

    @classmethod
    def rehearsal(cls, options: dict[str, Any]) -> dict[str, Any]:
        weights = options.get("class_weights")
        named = dict.fromkeys(map(_spelt, weights), 1) if isinstance(weights, dict) else {}
        return {"labels": cls.stand_in["labels"] | named}

    @classmethod
    def learn(cls, examples: Iterator[LabeledText], language: str | None) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        for example in examples:
            counts.update({_composed(label) for label in example.labels})
        if len(counts) < 2:
            one = next(iter(counts), None)
            raise ValueError(
                "data: a text has to be told from others, but "
                + (f"all of the training split are of the class {one}" if one else "no text has a label")
            )
        return {"labels": {label: counts[label] for label in sorted(counts, key=_natural)}}

    def example(self, given: str | tuple[str, Any]) -> LabeledText:
        """A text, which is then of the class that the model predicts; or a text with its class, or classes."""
        if isinstance(given, str):
            said = () if self.multi_label else (self.predict([given])[0]["label"],)
            return LabeledText(given, said)
        text, labels = given
        return LabeledText(text, (labels,) if isinstance(labels, str) else tuple(labels))

    def packing(self, corpus: Corpus) -> Packing:
        if not self.multi_label and (corpus["classes"].lengths != 1).any():
            raise ValueError("task.multi_label: some texts have several labels, or none; true allows that")
        return Packs(corpus=corpus, capacity=self.context, layout=EXAMPLE, pieces=self._pieces, cache_key="texts")

    def _pieces(self, corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
        lengths = np.diff(corpus["tokens"].offsets[begin : end + 1]) + 2
        return (
            np.arange(begin, end).view(EXAMPLE),
            np.minimum(lengths, self.context),
            int((lengths > self.context).sum()),
        )

    def logits(self, batch: TextBatch) -> Tensor:  # (B, C)
        hidden = self.model(batch.tokens, batch.layout, indices=self.head.indices(batch.layout))
        return self.head(hidden, batch.layout)

    def losses(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Of each text: (B,)."""
        smoothing, weights = self.label_smoothing if self.training else 0.0, self.weights.to(logits.dtype)
        if not self.multi_label:
            return F.cross_entropy(logits, classes, weights, reduction="none", label_smoothing=smoothing)
        wanted = (classes * (1 - smoothing) + smoothing / 2).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="none").sum(1)

    def forward(self, batch: TextBatch) -> Outcome:
        return Outcome({"classes": self.losses(self.logits(batch).float(), batch.classes).sum()})

    def score(self, batch: TextBatch) -> Outcome:
        logits = self.logits(batch).float()
        return Outcome({"classes": self.losses(logits, batch.classes).sum()}, {"counts": self._counts(logits, batch)})

    def _counts(self, logits: Tensor, batch: TextBatch) -> Tensor:
        count = report.of_each_class if self.multi_label else report.confusion
        return count(logits, batch.classes)

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        score = report.multi_label if self.multi_label else report.single_label
        return {"loss": losses["classes"], **score(sums["counts"].double())}

    def pictures(self, sums: dict[str, Tensor]) -> dict[str, Any]:
        if self.multi_label:
            return {}
        return {"confusion": report.confusion_picture(sums["counts"].long(), self.labels)}

    def samples(self, batches: EvaluationSet) -> str:
        """How well each class is found, and the texts whose class was the greatest surprise."""
        found: list[tuple[float, str]] = []
        total = torch.zeros(())
        for index in range(len(batches)):
            batch = batches[index]
            assert isinstance(batch, TextBatch)
            batch = batch.to(self.model.embedding.weight.device)
            with torch.inference_mode():
                logits = self.logits(batch).float()
                losses = self.losses(logits, batch.classes).tolist()
            total = total + self._counts(logits, batch).cpu()
            texts = batch.tokens.split(batch.layout.lengths.tolist())
            said = self._said(logits)
            for loss, text, guess, truth in zip(losses, texts, said, batch.classes.tolist(), strict=True):
                if guess != truth:
                    shown = self.tokenizer.decode(text.tolist())
                    line = f"loss {loss:.2f}: {without_markup(f'{self._name(truth)}, taken for {self._name(guess)}')}"
                    found.append((loss, f"{line}\n\n{quoted(shown)}"))
            if float(total.sum()) >= LOOKED_AT:
                break
        table = report.table(total.double(), self.labels, self.multi_label)
        worst = sorted(found, key=lambda one: -one[0])[:10]
        return table + "\n\n### The greatest mistakes\n\n" + "\n\n---\n\n".join(text for _, text in worst)

    def _said(self, logits: Tensor) -> list[Any]:
        """As `classes` would hold it."""
        return (logits > 0).float().tolist() if self.multi_label else logits.argmax(1).tolist()

    def _name(self, classes: Any) -> str:
        if not self.multi_label:
            return self.labels[classes]
        return ", ".join(label for label, member in zip(self.labels, classes, strict=True) if member) or "none"

    def show(self, batch: TextBatch) -> str:
        texts = batch.tokens.split(batch.layout.lengths.tolist())
        return "\n".join(
            f"{self._name(classes)} | {self.tokenizer.reveal(text.tolist())}"
            for text, classes in zip(texts, batch.classes.tolist(), strict=True)
        )

    def predict(self, lines: list[str]) -> list[dict[str, Any]]:
        """The class of each line, and the probability of each."""
        self.eval()
        found = []
        for begin in range(0, len(lines), AT_ONCE):
            encoded = self.tokenizer.encode_batch(lines[begin : begin + AT_ONCE])
            corpus = _corpus(encoded)
            batch: TextBatch = self.collate(corpus, np.arange(len(encoded)).view(EXAMPLE), 0)
            with torch.inference_mode():
                logits = self.logits(batch.to(self.model.embedding.weight.device)).float()
            shares = (logits.sigmoid() if self.multi_label else logits.softmax(1)).tolist()
            truncated = [len(ids) + 2 > self.context for ids in encoded]
            for line, said, probabilities, short in zip(
                lines[begin:], self._said(logits), shares, truncated, strict=False
            ):
                name = self._name(said)
                each = dict(zip(self.labels, (round(p, 6) for p in probabilities), strict=True))
                best = "" if self.multi_label else f" {max(probabilities):.3f}"
                text = f"{name}{best}\t{line}"
                found.append(
                    {"input": line, "label": name, "probabilities": each, "text": text, **told_truncated(short)}
                )
        return found


def _corpus(encoded: list[list[int]]) -> Corpus:
    """Texts without known classes as a corpus."""
    return Corpus({"tokens": Ragged.of(encoded), "classes": Ragged.of([[0]] * len(encoded))}, ("tokens",), 0)


def _spelt(name: Any) -> str:
    """A class as the data spell it, whose name a config has taken for a number or a truth."""
    return str(name).lower() if isinstance(name, bool) else _composed(str(name))


def _composed(label: str) -> str:
    """Letters and their marks may be written as one character or as several (Unicode Standard Annex 15)."""
    return unicodedata.normalize("NFC", label)


def _joined(labels: Sequence[str]) -> tuple[str, str] | None:
    """A label that seems to be several, of which others are labels too; and what stands between them."""
    for sign in SEPARATORS:
        known = {part.strip() for label in labels for part in label.split(sign) if sign not in label}
        for label in labels:
            parts = [part.strip() for part in label.split(sign)]
            if len(parts) > 1 and all(part in known for part in parts):
                return label, sign
    return None


def _natural(label: str) -> tuple[bool, float, str]:
    """Numbers in their order, before words in theirs."""
    number = label.removeprefix("-").isdecimal()
    return not number, float(label) if number else 0.0, label


def _weights(labels: dict[str, int], wanted: dict[str, float] | str | None) -> list[float]:
    if wanted is None:
        return [1.0] * len(labels)
    if wanted == "balanced":
        return [sum(labels.values()) / (len(labels) * count) for count in labels.values()]
    assert isinstance(wanted, dict)
    wanted = {_spelt(name): weight for name, weight in wanted.items()}
    for name, weight in wanted.items():
        if name not in labels:
            raise no_such_name("task.class_weights", name, labels, "no such class")
        if weight < 0:
            raise ValueError(f"task.class_weights: {name}={weight} is negative; 0 leaves a class out of the loss")
    return [wanted.get(name, 1.0) for name in labels]

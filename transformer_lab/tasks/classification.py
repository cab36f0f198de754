"""Which class, or classes, a text belongs to, or two texts together: whether one follows from the other, say.

**N** tokens of a batch, **B** texts or pairs, **C** classes.
"""

import json
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
from transformer_lab.terminal import one_line, without_markup

log = logging.getLogger(__name__)
BEGIN, END = "<cls>", "<sep>"
SEPARATORS = (",", ";", "|", "/")  # what people write between labels
LOOKED_AT = 512  # examples of the validation split among which the worst mistakes are sought
AT_ONCE = 64  # texts classified together


@dataclass(frozen=True, eq=False, kw_only=True)
class TextBatch(Batch):
    tokens: Tensor  # (N,)
    layout: Layout
    types: Tensor | None  # (N,) of pairs: 1 in the second text and its end, else 0, as in BERT
    classes: Tensor  # (B,) of each text; or (B, C), 1 where a text belongs to a class


@dataclass(frozen=True)
class LabeledEncoding:
    """A row of tokens for each text, of pairs another one for the second, and a row of classes."""

    labels: tuple[str, ...]
    pairs: bool = False
    written = None

    @property
    def texts_in(self) -> tuple[str, ...]:
        """The columns that hold tokens."""
        return ("tokens", "second") if self.pairs else ("tokens",)

    @property
    def columns(self) -> dict[str, Any]:
        return {**dict.fromkeys(self.texts_in, Token), "classes": np.int32}

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "labelled", "labels": self.labels, **({"pairs": True} if self.pairs else {})}

    def texts(self, example: LabeledText) -> Sequence[str]:
        if (example.second is not None) != self.pairs:
            raise ValueError(
                f"task.pairs={str(self.pairs).lower()}: {example.texts!r:.60} is {len(example.texts)} texts"
            )
        return example.texts

    def row(self, example: LabeledText, encoded: list[list[int]]) -> dict[str, Sequence[int]]:
        tokens = dict(zip(self.texts_in, encoded, strict=True))
        return {**tokens, "classes": list(dict.fromkeys(map(self._class, example.labels)))}

    def _class(self, label: str) -> int:
        label = _composed(label)
        if label not in self.labels:
            raise no_such_name("data", label, self.labels, "a label that no text of the training split has")
        return self.labels.index(label)


@dataclass(frozen=True)
class Collate:
    """Texts between `begin` and `end`, which also parts two; of what is longer than `context`, the end or the beginning
    is truncated, of pairs that of the longer text."""

    texts_in: tuple[str, ...]  # the columns
    begin: int
    end: int
    context: int
    truncate: Literal["end", "beginning"]
    num_classes: int | None  # where a text may belong to several classes
    weights: tuple[float, ...]  # of the classes

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
        classes, num_targets = self._classes(corpus, rows)
        return TextBatch(
            num_tokens=len(tokens),
            num_targets=num_targets,
            tokens=torch.from_numpy(tokens),
            layout=Layout.of(torch.from_numpy(whole)),
            types=None if types is None else torch.from_numpy(types),
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


class Classification(Task):
    """Trains an `Encoder` or a `Decoder` to name the class of a text, or of a pair, of at most `context` tokens.

    With `multi_label`, a text may belong to any number of classes: each is a yes or no of its own. `pooling` makes one
    vector of a text (see `SequenceHead`); None: the mean for an encoder, the last token for a decoder.
    `class_weights` says how much each class counts in the loss, by name, or is "balanced": the rarer, the more
    (King and Zeng, 2001). `truncate` says what a text that is too long loses. `labels` are the classes and how many
    texts of the training split are of each. `pairs` says that two texts are classified together, which the data decide;
    a model with two `token_types` tells them apart.
    """

    collate: Collate
    encoding: LabeledEncoding
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
        pairs: bool = False,
    ) -> None:
        super().__init__()
        least, why = (5, "a token of each text between the three") if pairs else (3, "a token between the two")
        check_context(context, least, f"{why} that mark beginning and end", model.position.max_length)
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
        self.encoding = LabeledEncoding(self.labels, pairs)
        begin, end = tokenizer.special(BEGIN), tokenizer.special(END)
        classes = len(labels) if multi_label else None
        self.collate = Collate(self.encoding.texts_in, begin, end, context, truncate, classes, tuple(weights))
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
        pairs = False
        for example in examples:
            counts.update({_composed(label) for label in example.labels})
            pairs = pairs or example.second is not None
        if len(counts) < 2:
            one = next(iter(counts), None)
            raise ValueError(
                "data: a text has to be told from others, but "
                + (f"all of the training split are of the class {one}" if one else "no text has a label")
            )
        labels = {label: counts[label] for label in sorted(counts, key=_natural)}
        return {"labels": labels, **({"pairs": True} if pairs else {})}

    def example(self, given: Any) -> LabeledText:
        """A text, or of pairs a tuple of two, which is then of the class that the model predicts; or `(text, class)`,
        `(text, [class, …])`."""
        alone = isinstance(given, str) or (self.encoding.pairs and isinstance(given[0], str))
        text, labels = (given, None) if alone else given
        text, second = text if self.encoding.pairs else (text, None)
        if labels is None:
            asked = text if second is None else json.dumps([text, second])
            labels = [] if self.multi_label else self.predict([asked])[0]["label"]
        return LabeledText(text, (labels,) if isinstance(labels, str) else tuple(labels), second=second)

    def try_with(self, corpus: Corpus) -> str:
        if not self.encoding.pairs:
            return super().try_with(corpus)
        texts = [self.tokenizer.decode(corpus[name][0].tolist()) for name in self.encoding.texts_in]
        return one_line(json.dumps([" ".join(text.split()) for text in texts], ensure_ascii=False))

    def packing(self, corpus: Corpus) -> Packing:
        if not self.multi_label and (corpus["classes"].lengths != 1).any():
            raise ValueError("task.multi_label: some texts have several labels, or none; true allows that")
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
        """The class of each line, and the probability of each; of pairs, a line is a JSON list of two texts."""
        self.eval()
        found: list[dict[str, Any]] = []
        for begin in range(0, len(lines), AT_ONCE):
            some = lines[begin : begin + AT_ONCE]
            texts = [self._texts(line) for line in some]
            corpus = self._corpus([both or [""] * len(self.encoding.texts_in) for both in texts])
            batch: TextBatch = self.collate(corpus, np.arange(len(some)).view(EXAMPLE), 0)
            with torch.inference_mode():
                logits = self.logits(batch.to(self.model.embedding.weight.device)).float()
            shares = (logits.sigmoid() if self.multi_label else logits.softmax(1)).tolist()
            lengths = np.stack([corpus[name].lengths for name in self.encoding.texts_in])
            truncated = (marked(lengths) > self.context).tolist()
            for line, both, said, probabilities, short in zip(
                some, texts, self._said(logits), shares, truncated, strict=True
            ):
                if both is None:
                    found.append(_unread(line))
                    continue
                name = self._name(said)
                each = dict(zip(self.labels, (round(p, 6) for p in probabilities), strict=True))
                best = "" if self.multi_label else f" {max(probabilities):.3f}"
                text = f"{name}{best}\t{line}"
                found.append(
                    {"input": line, "label": name, "probabilities": each, "text": text, **told_truncated(short)}
                )
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
        """Texts without known classes as a corpus."""
        names = self.encoding.texts_in
        columns = {
            name: Ragged.of(self.tokenizer.encode_batch(list(column)))
            for name, column in zip(names, zip(*texts, strict=True), strict=True)
        }
        return Corpus({**columns, "classes": Ragged.of([[0]] * len(texts))}, names, 0)


def _unread(line: str) -> dict[str, Any]:
    error = 'no pair of texts, such as ["A man sleeps.", "Nobody is awake."]'
    return {"input": line, "label": None, "probabilities": {}, "error": error, "text": f"{line}\t({error})"}


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

"""Which class, or classes, a text belongs to, or two texts together: whether one follows from the other, say.

**B** texts or pairs, **C** classes, **T** texts of a split.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transformer_lab.data.examples import LabeledText
from transformer_lab.data.packing import Packing
from transformer_lab.data.sources.base import no_such_name
from transformer_lab.data.store import Corpus
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.heads import Pooling
from transformer_lab.tasks import classification_report as report
from transformer_lab.tasks.base import MISTAKES, Outcome, Row, Scored, Texts
from transformer_lab.tasks.sequence_task import BEGIN, END, SequenceTask, TextBatch, TextCollate, TextEncoding, number

log = logging.getLogger(__name__)
SEPARATORS = (",", ";", "|", "/")  # what people write between labels
MOST_NUMBERS = 20  # labels that are numbers, some with a fraction; where there are more, they are no names


@dataclass(frozen=True)
class ClassEncoding(TextEncoding):
    labels: tuple[str, ...]
    label_column = ("classes", np.int32)

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "labelled", "labels": self.labels, **({"pairs": True} if self.pairs else {})}

    def label(self, example: LabeledText) -> Sequence[int]:
        return list(dict.fromkeys(map(self._class, example.labels)))

    def _class(self, label: str) -> int:
        label = _composed(label)
        if label not in self.labels:
            raise no_such_name("data", label, self.labels, "a label that no text of the training split has")
        return self.labels.index(label)


@dataclass(frozen=True)
class ClassCollate(TextCollate):
    num_classes: int | None  # where a text may belong to several classes
    weights: tuple[float, ...]  # of the classes

    def labels(self, corpus: Corpus, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        column = corpus["classes"]
        if self.num_classes is None:
            classes = torch.from_numpy(column.values[column.offsets[rows]].astype(np.int64))
            return classes, {"classes": float(np.asarray(self.weights)[classes.numpy()].sum())}
        member = torch.zeros(len(rows), self.num_classes)
        for place, row in enumerate(rows):
            member[place, column[row].astype(np.int64)] = 1
        return member, {"classes": len(rows) * float(sum(self.weights))}


class Classification(SequenceTask):
    """Trains an `Encoder` or a `Decoder` to name the class of a text, or of a pair, of at most `context` tokens.

    With `multi_label`, a text may belong to any number of classes: each is a yes or no of its own, yes from the
    probability `threshold` on; "validation" chooses one for each class, by its F1 on the validation split (Lipton,
    Elkan and Naryanaswamy, 2014, arXiv:1402.1892). `pooling` makes one vector of a text (see `SequenceHead`); None: the
    mean for an encoder, the last token for a decoder. With `transform` it goes through a layer of its own (ModernBERT);
    `head_bias` adds a number of its own to the logit of each class. `class_weights` says how much each class counts in
    the loss, by name, or is "balanced": the rarer, the more (King and Zeng, 2001). `truncate` says what a text that is
    too long loses. `labels` are the classes and how many texts of the training split are of each. `pairs` says that two
    texts are classified together, which the data decide; a model with two `token_types` tells them apart.
    """

    encoding: ClassEncoding
    collate: ClassCollate
    stand_in = {"labels": {"a": 1, "b": 1}}  # noqa: RUF012
    said_of_nothing = {"label": None, "probabilities": {}}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Encoder | Decoder,
        tokenizer: Tokenizer,
        labels: dict[str, int],
        name: str,
        context: int,
        pooling: Pooling | None = None,
        transform: bool = False,
        head_bias: bool = True,
        multi_label: bool = False,
        threshold: float | Literal["validation"] = 0.5,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: dict[str, float] | Literal["balanced"] | None = None,
        truncate: Literal["end", "beginning"] = "end",
        pairs: bool = False,
    ) -> None:
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            name=name,
            context=context,
            num_outputs=len(labels),
            pooling=pooling,
            dropout=dropout,
            pairs=pairs,
            transform=transform,
            head_bias=head_bias,
        )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"task.label_smoothing: {label_smoothing} is not a share; 0 <= label_smoothing < 1")
        if threshold != "validation" and not 0 < threshold < 1:
            raise ValueError(f"task.threshold: {threshold} is no probability; 0 < threshold < 1, or validation")
        if threshold != 0.5 and not multi_label:
            raise ValueError("task.threshold: of several classes the likeliest is said; task.multi_label=true has them")
        self.labels, self.multi_label, self.label_smoothing = tuple(labels), multi_label, label_smoothing
        self.best_by = "macro_f1" if multi_label or class_weights else "accuracy"  # who weighs classes asks for each
        if multi_label and (joined := _joined(self.labels)):
            log.warning("data.separator: %r is taken for one class; data.separator=%r makes several of it", *joined)
        weights = _weights(labels, class_weights)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.learns_thresholds = threshold == "validation"
        self.thresholds: Tensor  # (C,) logits from which on a class is said
        at = torch.full((len(labels),), 0.5 if threshold == "validation" else threshold).logit()
        self.register_buffer("thresholds", at, persistent=self.learns_thresholds)
        self.encoding = ClassEncoding(pairs, self.labels)
        begin, end = tokenizer.special(BEGIN), tokenizer.special(END)
        classes = len(labels) if multi_label else None
        self.collate = ClassCollate(self.encoding.texts_in, begin, end, context, truncate, classes, tuple(weights))

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
        numbers = [label for label in counts if number(label) is not None]
        if len(numbers) == len(counts) > MOST_NUMBERS and any(not float(label).is_integer() for label in numbers):
            raise ValueError(
                f"data.label_column: {len(counts):,} labels, all of them numbers such as {numbers[0]}, are no classes; "
                "task=regression learns numbers"
            )
        labels = {label: counts[label] for label in sorted(counts, key=_natural)}
        return {"labels": labels, **({"pairs": True} if pairs else {})}

    def label_of(self, line: str) -> Any:
        return [] if self.multi_label else self.predict([line])[0]["label"]

    def packing(self, corpus: Corpus) -> Packing:
        if not self.multi_label and (corpus["classes"].lengths != 1).any():
            raise ValueError("task.multi_label: some texts have several labels, or none; true allows that")
        return super().packing(corpus)

    def losses(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Of each text: (B,)."""
        smoothing, weights = self.label_smoothing if self.training else 0.0, self.weights.to(logits)
        if not self.multi_label:
            return F.cross_entropy(logits, classes, weights, reduction="none", label_smoothing=smoothing)
        wanted = classes * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="none").sum(1)

    def forward(self, batch: TextBatch) -> Outcome:
        return Outcome({"classes": self.losses(self.logits(batch), batch.labels).sum()})

    def score(self, batch: TextBatch) -> Scored:
        logits, classes = self.logits(batch), batch.labels
        losses = self.losses(logits, classes)
        if self.multi_label:
            targets, counts = self.weights.sum().expand(losses.shape), {"logits": logits, "classes": classes}
        else:
            targets, counts = self.weights[classes], {"said": logits.argmax(1), "classes": classes}
        return Scored({"classes": torch.stack([losses, targets], 1)}, counts)

    def fit_to(self, texts: Texts) -> None:
        if self.learns_thresholds:
            found = map(report.best_threshold, texts.counts["logits"].T, texts.counts["classes"].T)
            self.thresholds.copy_(torch.tensor(list(found)))

    def sums(self, texts: Texts) -> Callable[[Tensor], dict[str, Tensor]]:
        said, true = self._said(texts), texts.counts["classes"]
        count = report.of_each_class(said, true) if self.multi_label else report.confusion(said, true, len(self.labels))
        return lambda weights: {"counts": count(weights)}

    def _said(self, texts: Texts) -> Tensor:
        """The classes of each text: numbers (T,), or yes and no (T, C)."""
        if self.multi_label:
            return (texts.counts["logits"] > self.thresholds.cpu()).double()
        return texts.counts["said"]

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        score = report.multi_label if self.multi_label else report.single_label
        return {"loss": losses["classes"], **score(sums["counts"])}

    def tables(self, texts: Texts) -> dict[str, list[Row]]:
        counts = self.sums(texts)(texts.once)["counts"]
        thresholds = self.thresholds.sigmoid().tolist() if self.learns_thresholds else None
        found = {"classes": report.table(counts, self.labels, self.multi_label, thresholds)}
        return found if self.multi_label else {**found, "confusion": report.confusion_table(counts, self.labels)}

    def mistakes(self, texts: Texts, corpus: Corpus) -> list[Row]:
        """Those that are taken for something else."""
        found: list[Row] = []
        said = self._said(texts)
        wrong = (said != texts.counts["classes"]).view(len(texts), -1).any(1).tolist()
        for row, loss in [one for one in texts.hardest if wrong[one[0]]][:MISTAKES]:
            label, prediction = (self.label_name(one[row].tolist()) for one in (texts.counts["classes"], said))
            text = self.text_of(corpus, int(texts.examples[row]))
            found.append({"loss": loss, "label": label, "prediction": prediction, "text": text})
        return found

    def pictures(self, texts: Texts) -> dict[str, Any]:
        counts = self.sums(texts)(texts.once)["counts"]
        if self.multi_label:
            return {"classes": report.classes_picture(counts, self.labels)}
        return {"confusion": report.confusion_picture(counts.long(), self.labels)}

    def said(self, logits: Tensor) -> list[dict[str, Any]]:
        """Names, and the probability of each."""
        shares = logits.sigmoid() if self.multi_label else logits.softmax(1)
        classes = logits > self.thresholds if self.multi_label else logits.argmax(1)
        found = []
        for probabilities, some in zip(shares.tolist(), classes.tolist(), strict=True):
            name = self.label_name(some)
            each = dict(zip(self.labels, (round(p, 6) for p in probabilities), strict=True))
            best = "" if self.multi_label else f" {max(probabilities):.3f}"
            found.append({"label": name, "probabilities": each, "text": f"{name}{best}"})
        return found

    def label_name(self, label: Any) -> str:
        if not self.multi_label:
            return self.labels[int(label)]
        return ", ".join(name for name, member in zip(self.labels, label, strict=True) if member) or "none"


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
    """Whole numbers in their order, before words in theirs."""
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

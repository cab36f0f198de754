"""What is to be written in lab 3, what the framework makes of the same inputs, and what usual mistakes make of them.

**B** texts of a batch, **N** tokens of it, **D** width of a model, **C** classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import transformer_lab as tl
from transformer_lab.course.checking import Draw, Exercise

Examples = list[tuple[list[int], int]]


def framework_collate(examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    texts, labels = zip(*examples, strict=True)
    return (
        torch.tensor([token for text in texts for token in text]),
        torch.tensor([*map(len, texts)]),
        torch.tensor(labels),
    )


def framework_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """In their order, as many as fit."""
    found: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if length > room:
            found.append([])
            room = budget
        found[-1].append(number)
        room -= length
    return found


def framework_pooled(hidden: Tensor, lengths: Tensor) -> Tensor:
    return tl.Layout.of(lengths).sums(hidden) / lengths[:, None]


def framework_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def framework_confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


# --- inputs ---


def some_examples(draw: Draw) -> tuple[Examples]:
    lengths = sorted(draw.sizes(draw.choice([3, 4]), 2, 8), reverse=True)
    return ([([draw.randint(5, 99) for _ in range(length)], draw.randint(0, 3)) for length in lengths],)


def some_lengths(draw: Draw) -> tuple[list[int], int]:
    """Some fill a batch to the last token, some pass it by one, and a shorter one would fit into an earlier batch."""
    budget = draw.choice([11, 12, 13])
    return [6, budget - 6, 7, budget - 6, 2, 9, *(draw.randint(1, 10) for _ in range(8)), 10, 1, 3], budget


def packed_states(draw: Draw) -> tuple[Tensor, Tensor]:
    lengths = draw.sizes(draw.choice([3, 4]), 2, 9)
    return draw.normal(sum(lengths), draw.choice([5, 6])), torch.tensor(lengths)


def logits_and_labels(draw: Draw) -> tuple[Tensor, Tensor]:
    texts, classes = draw.choice([5, 7]), draw.choice([3, 4])
    logits = 2 * draw.normal(texts, classes)
    logits[draw.randrange(texts)] += 200  # exp of it is infinite
    return logits, torch.tensor([draw.randrange(classes) for _ in range(texts)])


def judged(draw: Draw) -> tuple[Tensor, Tensor, int]:
    classes = draw.choice([3, 4, 5])
    labels = [*range(classes - 1), *(draw.randrange(classes - 1) for _ in range(20))]
    predicted = [label if label == 1 or draw.random() < 0.5 else draw.randrange(classes - 1) for label in labels]
    predicted[0] = 1  # so it is not symmetric: 0 is taken for 1, and 1 never for 0; the last class never comes
    return torch.tensor(predicted), torch.tensor(labels), classes


# --- mistakes ---


def padded(examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(text) for text, _ in examples)
    tokens = torch.tensor([text + [0] * (longest - len(text)) for text, _ in examples])
    return tokens, *framework_collate(examples)[1:]


def filled(
    lengths: list[int], budget: int, fits: Callable[[int, int, int], bool], drop: bool = False
) -> list[list[int]]:
    """Batches, where `fits` says by tokens, texts and the next length whether one more goes in."""
    found: list[list[int]] = [[]]
    for number, length in enumerate(lengths):
        batch = found[-1]
        if batch and not fits(sum(lengths[i] for i in batch), len(batch), length):
            found.append([])
            if drop:
                continue
        found[-1].append(number)
    return [batch for batch in found if batch]


def without_the_last(lengths: list[int], budget: int) -> list[list[int]]:
    return framework_batches(lengths, budget)[:-1]


def longest_counts(lengths: list[int], budget: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for number, length in enumerate(lengths):
        longest = max([length, *(lengths[i] for i in found[-1])])
        if found[-1] and longest * (len(found[-1]) + 1) > budget:
            found.append([])
        found[-1].append(number)
    return found


def as_lengths(lengths: list[int], budget: int) -> list[list[int]]:
    return [[lengths[i] for i in batch] for batch in framework_batches(lengths, budget)]


def at(hidden: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    return hidden[places]


def likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1)[torch.arange(len(labels)), labels]


EXERCISES = [
    Exercise(
        name="collate",
        shape="(tokens, lengths, labels)",
        draw=some_examples,
        right=framework_collate,
        mistakes={
            "texts are laid end to end, and not filled up with zeros": padded,
            "lengths come second, and labels last": (
                lambda examples: (lambda t, n, y: (t, y, n))(*framework_collate(examples))
            ),
            "lengths are how many tokens each text has, and not where it begins": (
                lambda examples: (
                    lambda t, n, y: (t, n.cumsum(0) - n, y)  # type: ignore[no-any-return]
                )(*framework_collate(examples))
            ),
            "lengths are how many tokens each text has, and not where it ends": (
                lambda examples: (lambda t, n, y: (t, n.cumsum(0), y))(*framework_collate(examples))
            ),
            "there is a label for each text, and not for each token": (
                lambda examples: (lambda t, n, y: (t, n, y.repeat_interleave(n)))(*framework_collate(examples))
            ),
            "labels are whole numbers": (
                lambda examples: (lambda t, n, y: (t, n, y.float()))(*framework_collate(examples))
            ),
            "tokens are whole numbers": (
                lambda examples: (lambda t, n, y: (t.float(), n, y))(*framework_collate(examples))
            ),
            "the texts stay in the order in which they came": lambda examples: framework_collate(examples[::-1]),
        },
    ),
    Exercise(
        name="batches",
        draw=some_lengths,
        right=framework_batches,
        mistakes={
            "a batch may hold as many tokens as the budget: this one stops before": (
                lambda lengths, budget: filled(lengths, budget, lambda tokens, texts, more: tokens + more < budget)
            ),
            "a batch never holds more tokens than the budget: look before a text is added, and not after": (
                lambda lengths, budget: filled(lengths, budget, lambda tokens, texts, more: tokens < budget)
            ),
            "the last batch is missing": without_the_last,
            "the text that did not fit opens the next batch: here it is lost": (
                lambda lengths, budget: filled(
                    lengths, budget, lambda tokens, texts, more: tokens + more <= budget, drop=True
                )
            ),
            "tokens count, and not texts": (
                lambda lengths, budget: filled(lengths, budget, lambda tokens, texts, more: texts < budget)
            ),
            "each text has a batch of its own here": (
                lambda lengths, budget: filled(lengths, budget, lambda tokens, texts, more: False)
            ),
            "nothing is filled up here, so the tokens of a batch are the sum of its lengths": longest_counts,
            "the numbers of the texts are asked for, and not their lengths": as_lengths,
            "all batches are one and the same list: begin a new one, in place of batch.clear()": (
                lambda lengths, budget: (
                    [framework_batches(lengths, budget)[-1]] * len(framework_batches(lengths, budget))
                )
            ),
            "texts are counted from 0": (
                lambda lengths, budget: [[i + 1 for i in batch] for batch in framework_batches(lengths, budget)]
            ),
        },
    ),
    Exercise(
        name="pooled",
        shape="(B, D)",
        draw=packed_states,
        right=framework_pooled,
        mistakes={
            "this is the sum of each text: divide by how many tokens it has": (
                lambda hidden, lengths: tl.Layout.of(lengths).sums(hidden)
            ),
            "each text by its own length, and not by the mean length": (
                lambda hidden, lengths: tl.Layout.of(lengths).sums(hidden) / lengths.float().mean()
            ),
            "each text by its own length, and not by the longest": (
                lambda hidden, lengths: tl.Layout.of(lengths).sums(hidden) / lengths.max()
            ),
            "this is the first token of each text: the mean is asked for": (
                lambda hidden, lengths: at(hidden, lengths, lengths.cumsum(0) - lengths)
            ),
            "this is the last token of each text: the mean is asked for": (
                lambda hidden, lengths: at(hidden, lengths, lengths.cumsum(0) - 1)
            ),
            "this is the mean of all texts: each has one of its own": (
                lambda hidden, lengths: hidden.mean(0).expand(len(lengths), -1)
            ),
            "this is the largest of each channel: the mean is asked for": (
                lambda hidden, lengths: torch.stack([part.max(0).values for part in hidden.split(lengths.tolist())])
            ),
            "the mean over the tokens of a text, dimension 0, and not over its channels": (
                lambda hidden, lengths: torch.cat([part.mean(1) for part in hidden.split(lengths.tolist())])
            ),
        },
    ),
    Exercise(
        name="loss",
        shape="()",
        draw=logits_and_labels,
        right=framework_loss,
        mistakes={
            "a loss is small where the guess is good: minus is missing": lambda logits, labels: likelihood(
                logits, labels
            ).mean(),
            "the mean over the texts is asked for, and not the sum": lambda logits, labels: (
                -likelihood(logits, labels).sum()
            ),
            "the mean over the texts is still to be taken": lambda logits, labels: -likelihood(logits, labels),
            "exp of a large number is infinite: log_softmax takes the largest away first": (
                lambda logits, labels: (
                    -(logits.exp()[torch.arange(len(labels)), labels] / logits.exp().sum(-1)).log().mean()
                )
            ),
            "the logarithm is missing: this is minus the probability": (
                lambda logits, labels: -likelihood(logits, labels).exp().mean()
            ),
            "cross-entropy takes logits: softmax is done twice here": (
                lambda logits, labels: F.cross_entropy(logits.softmax(-1), labels)
            ),
            "the logarithm is missing: this is 1 minus the probability": (
                lambda logits, labels: 1 - likelihood(logits, labels).exp().mean()
            ),
            "only the right class of each text counts: this is the mean over all classes": (
                lambda logits, labels: -logits.log_softmax(-1).mean()
            ),
            "softmax over the classes, the last dimension, and not over the texts": (
                lambda logits, labels: -logits.log_softmax(0)[torch.arange(len(labels)), labels].mean()
            ),
            "the natural logarithm is usual: this is the one to base 2": (
                lambda logits, labels: -likelihood(logits, labels).mean() / torch.tensor(2.0).log()
            ),
            "softmax is missing: these are the logits themselves": (
                lambda logits, labels: -logits[torch.arange(len(labels)), labels].mean()
            ),
        },
    ),
    Exercise(
        name="confusion",
        shape="(C, C)",
        draw=judged,
        right=framework_confusion,
        mistakes={
            "a row is a true class, a column a predicted one": (
                lambda predicted, labels, classes: framework_confusion(labels, predicted, classes)
            ),
            "counts are asked for, and not shares of all": (
                lambda predicted, labels, classes: framework_confusion(predicted, labels, classes) / len(labels)
            ),
            "counts are asked for, and not shares of a row": (
                lambda predicted, labels, classes: (
                    (found := framework_confusion(predicted, labels, classes)) / found.sum(1, keepdim=True).clamp(min=1)
                )
            ),
            "pairs that come twice count twice: [labels, predicted] += 1 adds once; torch.bincount counts": (
                lambda predicted, labels, classes: framework_confusion(predicted, labels, classes).clamp(max=1)
            ),
            "a class that never comes has a row and a column of zeros, too": (
                lambda predicted, labels, classes: framework_confusion(predicted, labels, classes)[:-1, :-1]
            ),
            "those that were right count, too, on the diagonal": (
                lambda predicted, labels, classes: (
                    framework_confusion(predicted, labels, classes) * (1 - torch.eye(classes, dtype=torch.long))
                )
            ),
            "this counts those that were right alone": (
                lambda predicted, labels, classes: (
                    framework_confusion(predicted, labels, classes) * torch.eye(classes, dtype=torch.long)
                )
            ),
            "counts are whole numbers": (
                lambda predicted, labels, classes: framework_confusion(predicted, labels, classes).float()
            ),
        },
    ),
]

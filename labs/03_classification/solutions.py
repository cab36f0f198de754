"""What learners hand in for lab 3: right ones written differently, and wrong ones with what must be said of them."""

import torch
from torch import nn
from torch.nn import functional as F

NO_HINT = None


def collate_by_loops(examples):
    tokens, lengths, labels = [], [], []
    for text, label in examples:
        tokens.extend(text)
        lengths.append(len(text))
        labels.append(label)
    return torch.tensor(tokens), torch.tensor(lengths), torch.tensor(labels)


def collate_by_cat(examples):
    texts = [torch.tensor(text) for text, _ in examples]
    return torch.cat(texts), torch.tensor([len(text) for text in texts]), torch.tensor([label for _, label in examples])


def collate_padded(examples):
    texts = [torch.tensor(text) for text, _ in examples]
    tokens = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    return tokens, torch.tensor([len(text) for text in texts]), torch.tensor([label for _, label in examples])


def batches_by_while(lengths, budget):
    found, begin = [], 0
    while begin < len(lengths):
        end = begin + 1
        while end < len(lengths) and sum(lengths[begin : end + 1]) <= budget:
            end += 1
        found.append(list(range(begin, end)))
        begin = end
    return found


def batches_running(lengths, budget):
    batch, tokens, found = [], 0, []
    for number, length in enumerate(lengths):
        if tokens + length > budget:
            found.append(batch)
            batch, tokens = [], 0
        batch.append(number)
        tokens += length
    return [*found, batch]


def batches_without_the_last(lengths, budget):
    batch, tokens, found = [], 0, []
    for number, length in enumerate(lengths):
        if tokens + length > budget:
            found.append(batch)
            batch, tokens = [], 0
        batch.append(number)
        tokens += length
    return found


def batches_that_lose(lengths, budget):
    batch, tokens, found = [], 0, []
    for number, length in enumerate(lengths):
        if tokens + length <= budget:
            batch.append(number)
            tokens += length
        else:
            found.append(batch)
            batch, tokens = [], 0
    return [*found, batch] if batch else found


def batches_never_empty(lengths, budget):
    batch, found = [], []
    for number, length in enumerate(lengths):
        batch.append(number)
        if sum(lengths[i] for i in batch) + length > budget:
            found.append(batch)
            batch = []
    return found


def batches_same_list(lengths, budget):
    batch, tokens, found = [], 0, []
    for number, length in enumerate(lengths):
        if tokens + length > budget:
            found.append(batch)
            batch.clear()
            tokens = 0
        batch.append(number)
        tokens += length
    return [*found, batch]


def pooled_by_loops(hidden, lengths):
    found, begin = [], 0
    for length in lengths.tolist():
        found.append(hidden[begin : begin + length].mean(0))
        begin += length
    return torch.stack(found)


def pooled_wrong_begin(hidden, lengths):
    return torch.stack([hidden[n * length : (n + 1) * length].mean(0) for n, length in enumerate(lengths.tolist())])


def confusion_by_loops(predicted, labels, classes):
    found = torch.zeros(classes, classes, dtype=torch.long)
    for p, y in zip(predicted, labels, strict=True):
        found[y, p] += 1
    return found


def confusion_other_way(predicted, labels, classes):
    found = torch.zeros(classes, classes, dtype=torch.long)
    for p, y in zip(predicted, labels, strict=True):
        found[p, y] += 1
    return found


def confusion_at_once(predicted, labels, classes):
    found = torch.zeros(classes, classes, dtype=torch.long)
    found[labels, predicted] += 1
    return found


RIGHT = {
    "collate": [collate_by_loops, collate_by_cat],
    "batches": [batches_by_while, batches_running],
    "pooled": [
        pooled_by_loops,
        lambda hidden, lengths: torch.stack([part.mean(0) for part in hidden.split(lengths.tolist())]),
        lambda hidden, lengths: torch.segment_reduce(hidden, "mean", lengths=lengths, axis=0),
    ],
    "loss": [
        lambda logits, labels: F.nll_loss(logits.log_softmax(1), labels),
        lambda logits, labels: (logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]).mean(),
    ],
    "confusion": [
        confusion_by_loops,
        lambda predicted, labels, classes: F.one_hot(labels, classes).T @ F.one_hot(predicted, classes),
    ],
}
WRONG = {
    "collate": [
        (collate_padded, "tokens: of"),
        (lambda examples: collate_by_loops(examples)[:2], "3 things are to come out"),
        (lambda examples: tuple(x.tolist() for x in collate_by_loops(examples)), "a tensor is to come out"),
        (lambda examples: torch.tensor([text for text, _ in examples]), "ValueError"),
        (
            lambda examples: (
                collate_by_loops(examples)[0],
                collate_by_loops(examples)[2],
                collate_by_loops(examples)[1],
            ),
            "come second",
        ),
        (lambda examples: collate_by_loops(sorted(examples, key=lambda one: len(one[0]))), "stay in the order"),
        (
            lambda examples: (lambda t, n, y: (t, torch.cat([torch.zeros(1).long(), n]).cumsum(0), y))(
                *collate_by_loops(examples)
            ),
            NO_HINT,
        ),
        (lambda examples: (lambda t, n, y: (t, n.max(), y))(*collate_by_loops(examples)), NO_HINT),
        (lambda examples: (lambda t, n, y: (t, n, F.one_hot(y)))(*collate_by_loops(examples)), NO_HINT),
    ],
    "batches": [
        (batches_without_the_last, "the last batch is missing"),
        (batches_that_lose, "here it is lost"),
        (batches_never_empty, NO_HINT),
        (batches_same_list, "one and the same list"),
        (
            lambda lengths, budget: [
                list(range(i, min(i + budget, len(lengths)))) for i in range(0, len(lengths), budget)
            ],
            "and not texts",
        ),
        (
            lambda lengths, budget: [[lengths[i] for i in batch] for batch in batches_running(lengths, budget)],
            "numbers of the texts",
        ),
        (lambda lengths, budget: batches_running(sorted(lengths), budget), NO_HINT),
        (lambda lengths, budget: batches_running(lengths, budget + 1), NO_HINT),
        (lambda lengths, budget: batches_running(lengths, budget - 1), "stops before"),
        (lambda lengths, budget: [[i] for i in range(len(lengths))], "of its own here"),
    ],
    "pooled": [
        (pooled_wrong_begin, NO_HINT),
        (
            lambda hidden, lengths: torch.stack([part.sum(0) for part in hidden.split(lengths.tolist())]),
            "divide by how many",
        ),
        (lambda hidden, lengths: torch.stack([part[0] for part in hidden.split(lengths.tolist())]), "the first token"),
        (lambda hidden, lengths: torch.stack([part[-1] for part in hidden.split(lengths.tolist())]), "the last token"),
        (
            lambda hidden, lengths: torch.stack([part.mean(1) for part in hidden.split(lengths.tolist())]),
            "RuntimeError",
        ),
        (lambda hidden, lengths: hidden.mean(0), NO_HINT),
        (lambda hidden, lengths: [part.mean(0) for part in hidden.split(lengths.tolist())], "a tensor is to come out"),
        (lambda hidden, lengths: torch.stack([part.mean() for part in hidden.split(lengths.tolist())]), NO_HINT),
        (lambda hidden, lengths: pooled_by_loops(hidden, lengths).detach(), "no gradient"),
    ],
    "loss": [
        (lambda logits, labels: F.nll_loss(logits, labels), "the logits themselves"),
        (lambda logits, labels: F.nll_loss(logits.softmax(1), labels), "minus the probability"),
        (lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"), "not the sum"),
        (lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"), "still to be taken"),
        (lambda logits, labels: F.cross_entropy(logits.softmax(1), labels), "done twice"),
        (lambda logits, labels: F.cross_entropy(logits, labels).item(), "a tensor is to come out"),
        (lambda logits, labels: -F.cross_entropy(logits, labels), "minus is missing"),
        (lambda logits, labels: (logits.argmax(1) != labels).float().mean(), NO_HINT),
        (lambda logits, labels: F.mse_loss(logits.softmax(1), F.one_hot(labels, logits.shape[1]).float()), NO_HINT),
    ],
    "confusion": [
        (confusion_other_way, "a row is a true class"),
        (confusion_at_once, "adds once"),
        (
            lambda predicted, labels, classes: confusion_by_loops(predicted, labels, classes) / len(labels),
            "shares of all",
        ),
        (
            lambda predicted, labels, classes: confusion_by_loops(predicted, labels, int(labels.max()) + 1),
            "of zeros, too",
        ),
        (lambda predicted, labels, classes: (predicted == labels).sum(), NO_HINT),
        (lambda predicted, labels, classes: torch.bincount(predicted, minlength=classes), NO_HINT),
        (lambda predicted, labels, classes: confusion_by_loops(predicted, labels, classes).float(), "whole numbers"),
        (lambda predicted, labels, classes: confusion_by_loops(predicted, predicted, classes), NO_HINT),
    ],
}

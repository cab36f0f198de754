"""Questions of lab 3: each a function of a seed, whose answer the framework or PyTorch computes."""

import math
from random import Random

import torch
from torch.nn import functional as F

import transformer_lab as tl
from transformer_lab.course.quizzing import Question


def loss_of_one(random: Random) -> Question:
    percent = random.choice([10, 20, 25, 50, 80])
    loss = -math.log(percent / 100)
    return Question(
        f"A classifier gives the right class of a text a probability of {percent} %. What is its cross-entropy there, "
        "to two decimals?",
        round(loss, 2),
        f"minus the natural logarithm of {percent / 100}",
        {
            round(1 - percent / 100, 2): "this is 1 minus the probability",
            round(-math.log2(percent / 100), 2): "this is the logarithm to base 2",
            round(-loss, 2): "the logarithm of a number below 1 is negative, and the loss is minus that",
        },
    )


def loss_from_logits(random: Random) -> Question:
    logits = [0.0, 0.0, math.log(random.choice([2, 3, 8]))]
    right = random.choice([0, 2])
    loss = float(F.cross_entropy(torch.tensor([logits]), torch.tensor([right])))
    shares = torch.tensor(logits).softmax(-1).tolist()
    return Question(
        f"Logits of three classes are 0, 0 and {logits[2]:.4f} = ln {round(math.exp(logits[2]))}. Class {right} is "
        "right (counted from 0). What is the cross-entropy, to two decimals?",
        round(loss, 2),
        f"softmax gives class {right} {shares[right]:.3f}, and minus its natural logarithm is {loss:.2f}",
        {
            round(shares[right], 2): "this is the probability; the loss is minus its logarithm",
            round(math.log(3), 2): "so it is where all three are equally likely",
            round(-math.log(shares[2 - right]), 2): "this is the loss for the other class",
        },
    )


def first_loss(random: Random) -> Question:
    classes = random.choice([2, 4, 5, 10, 20])
    return Question(
        f"A classifier of {classes} classes has not been trained yet, and holds all for equally likely. What is its "
        "first loss, to two decimals?",
        round(float(F.cross_entropy(torch.zeros(1, classes), torch.tensor([0]))), 2),
        f"minus ln of 1 / {classes}, which is ln {classes}; another first loss says that something is wrong",
        {
            round(1 / classes, 3): "this is the probability",
            0: "only one that is sure and right has no loss",
            1: "a loss is no share",
        },
    )


def how_many_batches(random: Random) -> Question:
    lengths = [random.randint(2, 9) for _ in range(6)]
    budget = random.choice([12, 15])
    batches = room = 0
    for length in lengths:
        if length > room:
            batches, room = batches + 1, budget
        room -= length
    return Question(
        f"Texts of {', '.join(map(str, lengths))} tokens are put into batches in this order, each of at most {budget} "
        "tokens. How many batches are that?",
        batches,
        "a new one is opened where the next text does not fit any more",
        {
            math.ceil(sum(lengths) / budget): "texts are not cut, so not every batch is full",
            len(lengths): "several texts share a batch",
            batches - 1: "the last batch counts, too, though it is not full",
        },
    )


def shape_of_pooled(random: Random) -> Question:
    lengths, dim = random.sample(range(3, 20), 4), random.choice([32, 64])
    shape = tuple((tl.Layout.of(lengths).sums(torch.zeros(sum(lengths), dim))).shape)
    return Question(
        f"Texts of {', '.join(map(str, lengths[:3]))} and {lengths[3]} tokens are packed, and the model is {dim} "
        "wide. What is the shape of their mean-pooled vectors?",
        str(shape),
        "one vector for each text",
        {
            f"({sum(lengths)}, {dim})": "so it is before pooling, a vector for each token",
            f"(4, {max(lengths)}, {dim})": "nothing is filled up, and tokens are gone after pooling",
            f"({dim}, 4)": "a row for each text",
        },
    )


def a_mean(random: Random) -> Question:
    first, second = random.sample([2, 3, 4, 5], 2)
    values = [random.randint(0, 9) for _ in range(first + second)]
    layout = tl.Layout.of([first, second])
    means = (layout.sums(torch.tensor(values, dtype=torch.float64)) / layout.lengths).tolist()
    return Question(
        f"A packed batch has texts of {first} and {second} tokens. One channel of its tokens holds {values}. What is "
        "this channel of the second text's mean-pooled vector, to two decimals?",
        round(means[1], 2),
        f"the mean of the last {second} numbers",
        {
            round(means[0], 2): "this is the first text",
            round(sum(values) / len(values), 2): "this is the mean of both texts",
            float(sum(values[first:])): "this is the sum",
        },
    )


def accuracy(random: Random) -> Question:
    table = [[random.randint(5, 40), random.randint(1, 9)], [random.randint(1, 9), random.randint(5, 40)]]
    right = (table[0][0] + table[1][1]) / (sum(table[0]) + sum(table[1]))
    return Question(
        f"A confusion matrix has the rows {table[0]} and {table[1]}. What is the accuracy, to three decimals?",
        round(right, 3),
        "what lies on the diagonal, by all",
        {
            round(1 - right, 3): "this is the share of errors",
            round(
                (table[0][0] / sum(table[0]) + table[1][1] / sum(table[1])) / 2, 3
            ): "this is the mean over the classes",
        },
    )


def recall(random: Random) -> Question:
    table = [[random.randint(10, 40), random.randint(1, 9)], [random.randint(10, 30), random.randint(10, 40)]]
    return Question(
        f"Rows are true classes, columns predicted ones: {table[0]} and {table[1]}. Which share of the texts of the "
        "first class was found (its recall), to three decimals?",
        round(table[0][0] / sum(table[0]), 3),
        "of the first row, what lies on the diagonal",
        {
            round(
                table[0][0] / (table[0][0] + table[1][0]), 3
            ): "this is its precision: of those predicted to be of it, how many are",
            round(table[0][1] / sum(table[0]), 3): "this is what was missed",
        },
    )


def largest_class(random: Random) -> Question:
    counts = random.sample(range(10, 90), 3)
    return Question(
        f"Three classes have {counts[0]}, {counts[1]} and {counts[2]} texts. A model that always says the same class "
        "has an accuracy of at most … (to three decimals)",
        round(max(counts) / sum(counts), 3),
        "that of the largest class: what a classifier has to be better than",
        {
            round(1 / 3, 3): "so it would be with classes of one size",
            round(min(counts) / sum(counts), 3): "it can say the largest",
        },
    )


def parameters_of_a_head(random: Random) -> Question:
    dim, classes = random.choice([64, 128, 384]), random.choice([2, 4, 10])
    head = torch.nn.Linear(dim, classes, device="meta")
    count = sum(weight.numel() for weight in head.parameters())
    return Question(
        f"A classifier's head maps a vector of {dim} numbers to {classes} logits, with a bias. How many parameters "
        "has it?",
        count,
        f"{dim} x {classes} weights, and {classes} biases",
        {dim * classes: "the biases are missing", dim * classes + dim: "a bias belongs to a class"},
    )


def what_padding_does(random: Random) -> Question:
    length, longest = random.randint(3, 8), random.randint(10, 20)
    return Question(
        f"Vectors of a text of {length} tokens are filled up with zeros to {longest}, and somebody takes the mean "
        f"over all {longest}. What happens to the pooled vector?",
        f"it comes out {longest / length:.2g} times too small",
        f"the sum is as it was, but it is divided by {longest} in place of {length}",
        {
            "nothing: zeros do not count": "they count as tokens in what the sum is divided by",
            f"it comes out {longest / length:.2g} times too large": (
                "the sum is divided by too many tokens, not by too few"
            ),
            "it becomes zero in every channel": "the real tokens are in the sum",
        },
    )


def why_tokens(random: Random) -> Question:
    texts = random.choice([16, 32, 64])
    return Question(
        f"Batches are made by a budget of tokens, and not of {texts} texts each. What is gained for each batch?",
        "its work and memory are nearly the same",
        "work grows with tokens, and texts differ in length by a lot",
        {
            "the classes come equally often": "which classes come is up to chance, as before",
            "each holds as many texts as others": "that is so with a fixed number of texts",
            "no text is ever cut off at its end": "how much of a text is read is another matter",
        },
    )


QUESTIONS = [
    loss_of_one,
    loss_from_logits,
    first_loss,
    how_many_batches,
    shape_of_pooled,
    a_mean,
    accuracy,
    recall,
    largest_class,
    parameters_of_a_head,
    what_padding_does,
    why_tokens,
]

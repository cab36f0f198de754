"""What the labs take for granted of Python and PyTorch: ungraded, computed like the other quizzes."""

import math
from random import Random

import torch
from torch import nn

from transformer_lab.course.quizzing import Question


def shape_of_a_product(random: Random) -> Question:
    rows, inner, columns = random.sample(range(2, 10), 3)
    shape = tuple((torch.zeros(rows, inner) @ torch.zeros(inner, columns)).shape)
    return Question(
        f"a is ({rows}, {inner}) and b is ({inner}, {columns}). What is the shape of a @ b?",
        str(shape),
        "a row for each row of a, a column for each column of b; what is in between is summed over",
        {
            f"({rows}, {inner}, {columns})": "what is in between is summed over",
            f"({columns}, {rows})": "rows come from a, columns from b",
            f"({inner}, {inner})": "that is what both share, and it is summed over",
        },
    )


def shape_of_a_sum(random: Random) -> Question:
    first, second, third = random.sample(range(2, 10), 3)
    dim = random.choice([0, 1, 2])
    sizes = [first, second, third]
    shape = tuple(torch.zeros(*sizes).sum(dim).shape)
    others = [tuple(torch.zeros(*sizes).sum(other).shape) for other in range(3) if other != dim]
    return Question(
        f"x is ({first}, {second}, {third}). What is the shape of x.sum({dim})?",
        str(shape),
        f"dimension {dim} is the one of {sizes[dim]}, and goes",
        {
            str(others[0]): f"dimensions are counted from 0, and number {dim} is summed over",
            str(others[1]): f"dimensions are counted from 0, and number {dim} is summed over",
            str(tuple(torch.zeros(*sizes).sum(dim, keepdim=True).shape)): "so it is with keepdim=True",
        },
    )


def broadcast(random: Random) -> Question:
    rows, columns = random.sample(range(2, 10), 2)
    shape = tuple((torch.zeros(rows, 1) + torch.zeros(columns)).shape)
    return Question(
        f"a is ({rows}, 1) and b is ({columns},). What is the shape of a + b?",
        str(shape),
        "shapes are lined up at their ends, and a size of 1 is repeated",
        {
            f"({rows}, 1)": f"the 1 is repeated {columns} times",
            f"({columns}, {rows})": "b has no rows; it is lined up with the columns of a",
            "none: an error": "a size of 1 fits any other",
        },
    )


def transposed(random: Random) -> Question:
    sizes = random.sample(range(2, 10), 3)
    shape = tuple(torch.zeros(*sizes).transpose(0, 1).shape)
    return Question(
        f"x is ({sizes[0]}, {sizes[1]}, {sizes[2]}). What is the shape of x.transpose(0, 1)?",
        str(shape),
        "the first two dimensions change places",
        {
            f"({sizes[2]}, {sizes[1]}, {sizes[0]})": "0 and 1 change places, and not 0 and 2",
            f"({sizes[0]}, {sizes[2]}, {sizes[1]})": "0 is the first dimension",
            f"({sizes[0]}, {sizes[1]}, {sizes[2]})": "it gives a view whose dimensions have changed places",
        },
    )


def viewed(random: Random) -> Question:
    rows, columns = random.choice([2, 3, 4]), random.choice([6, 12])
    row, column = random.randrange(rows), random.randrange(1, columns)
    x = torch.arange(rows * columns).view(rows, columns)
    return Question(
        f"x = torch.arange({rows * columns}).view({rows}, {columns}). What is x[{row}, {column}]?",
        int(x[row, column]),
        f"rows are filled one after the other: {row} rows of {columns}, and {column} more",
        {
            row + column * rows: "rows are filled one after the other, and not columns",
            row * columns + column + 1: "torch.arange begins with 0",
        },
    )


def linear(random: Random) -> Question:
    inputs, outputs = random.sample(range(3, 20), 2)
    layer = nn.Linear(inputs, outputs, device="meta")
    count = sum(weight.numel() for weight in layer.parameters())
    return Question(
        f"How many parameters has nn.Linear({inputs}, {outputs})?",
        count,
        f"a matrix of {inputs} x {outputs}, and a bias for each of {outputs} outputs",
        {
            inputs * outputs: "it has a bias, too, unless bias=False",
            inputs * outputs + inputs: "a bias belongs to an output",
            inputs + outputs: "each input is joined with each output",
        },
    )


def gradient(random: Random) -> Question:
    factor, at = random.randint(2, 6), random.randint(2, 6)
    x = torch.tensor(float(at), requires_grad=True)
    (factor * x**2).backward()
    return Question(
        f"x = torch.tensor({at}., requires_grad=True); ({factor} * x**2).backward(). What is x.grad?",
        int(x.grad),
        f"the derivative of {factor} x² is {2 * factor} x",
        {
            factor * at**2: "this is the value, and not its derivative",
            2 * at: f"the {factor} is a factor of the derivative, too",
            2 * factor: "this is still to be multiplied with x",
        },
    )


def uniform_loss(random: Random) -> Question:
    classes = random.choice([2, 4, 10, 100, 1000])
    loss = float(nn.functional.cross_entropy(torch.zeros(1, classes), torch.tensor([0])))
    return Question(
        f"A classifier of {classes} classes gives each the same probability. What is its cross-entropy, to two "
        "decimals?",
        round(loss, 2),
        f"minus the natural logarithm of 1 / {classes}",
        {
            round(1 / classes, 4): "this is the probability; the loss is minus its logarithm",
            round(math.log2(classes), 2): "PyTorch takes the natural logarithm, and this is the one to base 2",
            0: "0 is the loss of one that is sure, and right",
        },
    )


def steps(random: Random) -> Question:
    batch = random.choice([16, 32, 64])
    batches = random.randint(10, 40)
    rest = random.randint(1, batch - 1)
    epochs = random.randint(2, 5)
    return Question(
        f"{batch * batches + rest} examples are read {epochs} times, {batch} in a step, the last step of each time "
        "with the rest. How many steps is that?",
        epochs * (batches + 1),
        f"{batches} full ones and one with {rest} examples, {epochs} times",
        {
            epochs * batches: "the rest is a step, too",
            batches + 1: "this is one time through the examples",
        },
    )


def counted(random: Random) -> Question:
    values = [random.randint(-5, 5) for _ in range(8)]
    x = torch.tensor(values)
    limit = random.choice([-1, 0, 1])
    return Question(
        f"x = torch.tensor({values}). What is (x > {limit}).sum()?",
        int((x > limit).sum()),
        "a comparison gives True or False for each number, and True counts as 1",
        {
            int(x[x > limit].sum()): "this adds up the numbers; the comparison gives True and False",
            int((x >= limit).sum()): f"> leaves {limit} itself out",
            len(values): "these are all of them",
        },
    )


QUESTIONS = [
    shape_of_a_product,
    shape_of_a_sum,
    broadcast,
    transposed,
    viewed,
    linear,
    gradient,
    uniform_loss,
    steps,
    counted,
]

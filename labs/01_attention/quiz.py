"""Questions of lab 1: each a function of a seed, whose answer the framework computes.

**T** tokens, **K** width of a head, **D** of a model, **H** heads, **G** key/value heads, **N** tokens of a batch.
"""

import math
from random import Random

import torch

import transformer_lab as tl
from transformer_lab.course.quizzing import Question


def a_score(random: Random) -> Question:
    q, k = ([random.choice([-2, -1, 1, 2, 3]) for _ in range(4)] for _ in range(2))
    product = sum(x * y for x, y in zip(q, k, strict=True))
    while product == 0:
        k[0] += 1
        product = sum(x * y for x, y in zip(q, k, strict=True))
    return Question(
        f"A query is {q}, a key is {k}. What is their score in scaled dot-product attention?",
        product / 2,
        f"the dot product is {product}, and the root of K = 4 is 2: {product} / 2",
        {
            product: "this is the dot product; it is divided by the root of K",
            product / 4: "the dot product is divided by the root of K = 4, which is 2, and not by K",
            product * 2: "it is divided by the root of K, not multiplied",
        },
    )


def two_weights(random: Random) -> Question:
    times = random.choice([3, 4, 9, 19])
    first, second = torch.tensor([math.log(times), 0.0]).softmax(-1).tolist()
    return Question(
        f"A token looks at two others. Their scores are ln {times} = {math.log(times):.3f} and 0. What is the weight "
        "of the first, to two decimals?",
        round(first, 2),
        f"e to the scores are {times} and 1, and {times} / {times + 1} is {first:.2f}",
        {
            round(second, 2): "this is the weight of the second",
            1.0: "a score of 0 is no weight of 0: e to the 0 is 1",
            float(times): "this is e to the score; it is still to be divided by the sum",
        },
    )


def kept(random: Random) -> Question:
    total = random.randint(5, 12)
    masked = random.randint(2, total - 2)
    return Question(
        f"All {total} scores of a token are equal. {masked} of them are masked, as they must not be looked at. What "
        "is the weight of each of the others, to three decimals?",
        round(1 / (total - masked), 3),
        f"softmax shares out 1 over the {total - masked} that are left",
        {
            round(1 / total, 3): "so it is without a mask; weights sum to 1 over what is left",
            round(1 / masked, 3): "this shares out 1 over those that are masked",
        },
    )


def masked_too_late(random: Random) -> Question:
    total = random.randint(5, 12)
    masked = random.randint(1, total - 2)
    return Question(
        f"All {total} scores of a token are equal. Somebody takes softmax first, and then sets the weights of "
        f"{masked} masked tokens to 0. What do the weights of this row sum to, to two decimals?",
        round((total - masked) / total, 2),
        f"each of {total} weights is 1 by {total}, and {total - masked} are left: that is why masking comes before "
        "softmax",
        {
            1.0: "they did before; nothing has shared out what was taken away",
            round(masked / total, 2): "this is what was taken away",
        },
    )


def shape_of_scores(random: Random) -> Question:
    heads, width, length, memory = random.choice([2, 4, 8]), random.choice([16, 32, 64]), 10, 7
    return Question(
        f"A text of {length} tokens looks at another one of {memory} tokens, with {heads} heads of width {width}. "
        "What shape do the scores have?",
        f"({heads}, {length}, {memory})",
        "for each head, a row for each token that looks, a column for each that is looked at",
        {
            f"({heads}, {memory}, {length})": "a row is a token that looks, and 10 of them do",
            f"({length}, {memory}, {width})": "the width is summed over in the dot product",
            f"({heads}, {length}, {length})": "a column is a token that is looked at, and there are 7 of them",
        },
    )


def parameters(random: Random) -> Question:
    heads = random.choice([4, 8])
    dim, groups = heads * random.choice([8, 16, 32]), random.choice([heads, heads // 2, heads // 4])
    with torch.device("meta"):
        layer = tl.Attention(dim=dim, num_heads=heads, num_kv_heads=groups)
    count = sum(weight.numel() for weight in layer.parameters())
    wrong: dict[int | float | str, str] = {
        3 * dim * dim: "there is a fourth matrix, which mixes what the heads found",
        4 * dim * dim * heads: "the heads share the width: together they are as wide as the model",
        4 * dim * dim: "keys and values are narrower where heads share them",
        dim * dim: "this is one of the four matrices",
    }
    return Question(
        f"An attention layer of width {dim} has {heads} heads and {groups} key/value heads, and no biases. How many "
        "parameters has it?",
        count,
        f"two matrices of {dim} x {dim}, queries and out, and two of {dim} x {dim // heads * groups}, keys and values",
        wrong,
    )


def what_changes(random: Random) -> Question:
    first, second = random.randint(4, 9), random.randint(4, 9)
    place = random.randint(2, first - 1)
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    layer, layout = tl.Attention(dim=8, num_heads=2, causal=True), tl.Layout.of([first, second])
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    x = torch.randn(first + second, 8, generator=generator)
    other = x.clone()
    other[place - 1] += 1
    with torch.no_grad():
        count = int((layer(x, layout) - layer(other, layout)).abs().amax(1).gt(0).sum())
    wrong: dict[int | float | str, str] = {
        first + second: "the second text does not see the first, and a token does not see those after it",
        first: "a token does not see those after it: those before the changed one do not notice",
        place: "these are the changed token and those before it, which do not see it",
        1: "tokens after it look at it, so what comes out of them changes, too",
        first + second - place + 1: "the second text does not see the first",
    }
    return Question(
        f"Two texts of {first} and {second} tokens are packed into one batch, and go through one causal attention "
        f"layer. Token {place} of the first text is replaced by another (the first token is number 1). How many of "
        f"the {first + second} outputs change?",
        count,
        f"its own, and those of the {first - place} after it in the same text",
        wrong,
    )


def width_of_a_head(random: Random) -> Question:
    heads, width = random.choice([2, 4, 8, 12]), random.choice([8, 16, 64])
    return Question(
        f"A model of width {heads * width} has {heads} heads. By which number are its dot products divided, to two "
        "decimals?",
        round(math.sqrt(width), 2),
        f"a head is {heads * width} / {heads} = {width} wide, and the root of that is {math.sqrt(width):.2f}",
        {
            round(math.sqrt(heads * width), 2): "this is the root of the model's width; a head is narrower",
            float(width): "this is the width of a head; its root is what divides",
            round(math.sqrt(heads), 2): "this is the root of how many heads there are",
        },
    )


def spread(random: Random) -> Question:
    width = random.choice([16, 64, 100, 256, 400])
    return Question(
        f"Queries and keys are {width} wide, of independent numbers with mean 0 and variance 1. What is the standard "
        "deviation of their dot products?",
        round(math.sqrt(width)),
        f"variances add up, {width} times 1, and its root is {math.sqrt(width):.0f}: scores are divided by it",
        {
            width: "this is the variance",
            1: "so it is after the division by the root of K",
        },
    )


def pairs(random: Random) -> Question:
    lengths = random.sample(range(3, 12), 3)
    layout = tl.Layout.of(lengths)
    layer = tl.Attention(dim=4, num_heads=1, causal=True)
    with torch.no_grad():
        count = int((layer.attention_weights(torch.zeros(sum(lengths), 4), layout)[0] > 0).sum())
    total = sum(lengths)
    return Question(
        f"Texts of {lengths[0]}, {lengths[1]} and {lengths[2]} tokens are packed. In causal attention, how many pairs "
        "of a token that looks and one that is looked at have a weight above 0?",
        count,
        "a text of n tokens has n (n + 1) / 2 of them, as each sees itself and those before; texts do not see each "
        "other",
        {
            total**2: "these are all pairs of the batch",
            sum(x * x for x in lengths): "these are all pairs within a text; half of them lie in the future",
            total * (total + 1) // 2: "texts do not see each other",
            sum(x * (x - 1) // 2 for x in lengths): "a token sees itself, too",
        },
    )


def longer(random: Random) -> Question:
    times = random.choice([2, 3, 4, 10])
    return Question(
        f"A text becomes {times} times as long. How many times as many scores does a head of self-attention compute?",
        times**2,
        "there is a score for each pair of tokens",
        {
            times: "a score belongs to a pair of tokens, and not to one",
            2**times: "pairs grow with the square of the length, not exponentially",
        },
    )


def changed_places(random: Random) -> Question:
    causal = random.random() < 0.5
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    layer, layout = tl.Attention(dim=8, num_heads=2, causal=causal), tl.Layout.of([6])
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    x, order = torch.randn(6, 8, generator=generator), torch.tensor([3, 5, 0, 4, 1, 2])
    with torch.no_grad():
        follows = torch.allclose(layer(x[order], layout), layer(x, layout)[order], atol=1e-4)
    options = {
        "change places in the same way": "so it is without a mask: nothing else tells one place from another",
        "stay where and as they are": "each output is of one token, and goes where that goes",
        "become other vectors": "where all see all, a token sees the same others as before, in another order",
        "become equal to each other": "each token has a query of its own",
    }
    right = "change places in the same way" if follows else "become other vectors"
    why = (
        "each token sees the same others as before: without positions, a text is a heap (lab 2)"
        if follows
        else "the mask lets each token see those before it, and these are others now"
    )
    return Question(
        f"The tokens of a text change places. It goes through {'causal ' if causal else ''}self-attention "
        f"{'' if causal else 'in which every token sees all '}and without positions. What do the outputs do?",
        right,
        why,
        {text: why for text, why in options.items() if text != right},
    )


def sharper(random: Random) -> Question:
    factor = random.choice([0.1, 0.2, 5, 10])
    row = torch.tensor([0.5, 1.0, 1.5, 2.0])
    before, after = (float(-(w := scores.softmax(-1)).log().mul(w).sum()) for scores in (row, row * factor))
    options = {
        "nearer to all on one token": "that comes of larger differences between scores",
        "nearer to equal shares": "that comes of smaller differences between scores",
        "multiplied by the same number": "they still sum to 1",
        "just what they were before": "adding a number to all scores does nothing; multiplying does",
    }
    right = "nearer to all on one token" if after < before else "nearer to equal shares"
    return Question(
        f"All scores of a token are multiplied by {factor}. Its weights become …",
        right,
        "differences between scores decide, and e to the power of them makes them ratios",
        {text: why for text, why in options.items() if text != right},
    )


QUESTIONS = [
    a_score,
    two_weights,
    kept,
    masked_too_late,
    shape_of_scores,
    parameters,
    what_changes,
    width_of_a_head,
    spread,
    pairs,
    longer,
    changed_places,
    sharper,
]

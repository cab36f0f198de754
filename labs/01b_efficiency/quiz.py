"""Questions of lab 1b: each a function of a seed, whose answer the framework or plain arithmetic computes."""

from random import Random

import torch

import transformer_lab as tl
from transformer_lab.course.quizzing import Question
from transformer_lab.models.layers.kernels.reference import visible


def scores_in_memory(random: Random) -> Question:
    tokens, heads = random.choice([1024, 2048, 4096]), random.choice([4, 8, 16])
    size = torch.empty(heads, tokens, tokens, device="meta").nbytes
    return Question(
        f"How many megabytes (millions of bytes) are the scores of one text of {tokens:,} tokens with {heads} heads, "
        "in fp32? To one decimal.",
        round(size / 1e6, 1),
        f"{heads} x {tokens:,} x {tokens:,} numbers of 4 bytes: a fused kernel never has them in memory",
        {
            round(size / 4e6, 1): "these are millions of numbers; each takes 4 bytes",
            round(size / heads / 1e6, 1): "so it is of one head",
            round(4 * heads * tokens / 1e6, 1): "there is a score for each pair of tokens",
        },
    )


def padding(random: Random) -> Question:
    lengths = random.sample(range(4, 30), 4)
    filled, real = 4 * max(lengths), len(tl.Layout.of(lengths).positions)
    return Question(
        f"Texts of {', '.join(map(str, lengths[:3]))} and {lengths[3]} tokens are filled up to the longest. How many "
        "tokens of the batch mean nothing?",
        filled - real,
        f"4 times {max(lengths)} are {filled}, and {real} of them are real",
        {
            filled: "these are all tokens of the batch",
            real: "these are the real ones",
            max(lengths) - min(lengths): "so many the shortest text gets",
        },
    )


def pairs_of_padding(random: Random) -> Question:
    short, times = random.choice([10, 20, 50]), random.choice([2, 3, 5])
    long = short * times
    return Question(
        f"A text of {short} tokens is filled up to {long}. How many times as many pairs does attention then compute "
        "for it?",
        times**2,
        f"pairs grow with the square: {long}² by {short}²",
        {
            times: "so many times as many tokens; pairs grow with the square",
            times - 1: "this is how much padding there is",
        },
    )


def cache_size(random: Random) -> Question:
    layers, heads, width, tokens = random.choice([12, 24, 32]), random.choice([8, 16]), 64, random.choice([1000, 4000])
    groups = random.choice([1, 2, 4])
    one = torch.empty(layers, groups, tokens, width, dtype=torch.bfloat16, device="meta").nbytes
    return Question(
        f"{layers} layers, {heads} heads of width {width}, {groups} key/value head{'s' * (groups > 1)}, a text of "
        f"{tokens:,} tokens, bf16. How many megabytes (millions of bytes) is the key/value cache? To one decimal.",
        round(2 * one / 1e6, 1),
        f"keys and values: 2 x {layers} layers x {groups} x {width} numbers of 2 bytes for each token",
        {
            round(one / 1e6, 1): "keys are kept, and values, too",
            round(2 * one * heads / groups / 1e6, 1): "the heads share their keys and values: only those are kept",
            round(one * 4 / 1e6, 1): "a number in bf16 takes 2 bytes",
            round(2 * one / layers / 1e6, 1): "each layer has keys and values of its own",
        },
    )


def who_shares(random: Random) -> Question:
    groups = random.choice([2, 4])
    heads = groups * random.choice([2, 4])
    head = random.randrange(1, heads)
    place = int(torch.arange(groups).repeat_interleave(heads // groups)[head])
    return Question(
        f"{heads} heads share {groups} key/value heads; both are counted from 0. Which one does head {head} look at?",
        place,
        f"neighbours share: {heads // groups} heads each, so {head} // {heads // groups}",
        {
            head % groups: "neighbouring heads share, so it is a division, and not its rest",
            head: "there are fewer key/value heads than heads",
        },
    )


def without_a_cache(random: Random) -> Question:
    count = random.choice([10, 20, 100])
    return Question(
        f"A model writes {count} tokens, one after the other, from a first one that is given, and reads its own text "
        "again for each. How many tokens does it read in all, without a cache?",
        count * (count + 1) // 2,
        f"1 for the first, 2 for the second, … {count} for the last: {count} x {count + 1} / 2",
        {
            count: "so it is with a cache",
            count**2: "at first the text is short: it is half of that",
        },
    )


def window_pairs(random: Random) -> Question:
    length, size = random.randint(10, 20), random.randint(2, 5)
    positions = torch.arange(length)
    count = int(visible(positions, positions, causal=True, window=size).sum())
    return Question(
        f"A text of {length} tokens, causal attention with a window of {size}: a token sees itself and the {size - 1} "
        "before it. How many pairs is that?",
        count,
        f"{size} for each token, but less for the first {size - 1}, which have not so many before them",
        {
            length * size: f"the first {size - 1} tokens have fewer before them",
            length * (length + 1) // 2: "so it is without a window",
            int(visible(positions, positions, causal=True, window=size + 1).sum()): "the token itself is one of them",
            int(visible(positions, positions, causal=False, window=size).sum()): "no token sees those after it",
        },
    )


def how_far(random: Random) -> Question:
    layers, size = random.choice([2, 4, 6]), random.choice([64, 128, 256])
    return Question(
        f"{layers} layers have a window of {size}: a token sees itself and the {size - 1} before it. From how many "
        "tokens back can something reach the last layer's output?",
        layers * (size - 1),
        f"each layer passes on what the one below found, {size - 1} tokens further",
        {
            size - 1: "so it is with one layer; the next passes on what it found",
            layers * size: "a window counts the token itself",
            (size - 1) ** layers: "distances add up; they do not multiply",
        },
    )


def fused(random: Random) -> Question:
    times = random.choice([2, 4, 8])
    return Question(
        f"A fused kernel never writes the scores to memory. A text becomes {times} times as long. Attention alone "
        "takes about …",
        f"{times**2} times the time",
        "it spares memory, and the ways to it; pairs are as many as they were",
        {
            f"{times} times the time": "it needs less memory, but computes as many pairs",
            "as much time as before": "each token still looks at each other one",
            f"{2**times if times < 8 else 512} times the time, and more": "pairs grow with the square of the length",
        },
    )


def rescaled(random: Random) -> Question:
    old, new = random.sample([1, 2, 3, 4, 5], 2)
    old, new = min(old, new), max(old, new)
    factor = float(torch.tensor(float(old - new)).exp())
    return Question(
        f"Attention goes over keys in blocks. The largest score so far was {old}, and a block comes with a score of "
        f"{new}. By which number is the sum so far multiplied, to three decimals?",
        round(factor, 3),
        f"e to {old} - {new}: all powers before were taken against {old}",
        {
            round(
                1 / factor, 3
            ): "the powers were taken against a smaller number, so they are too large, and are made smaller",
            1.0: "it only stays as it is where the largest score does",
            round(old / new, 3): "scores stand in an exponent",
        },
    )


def what_sharing_saves(random: Random) -> Question:
    heads = random.choice([8, 16, 32])
    groups = random.choice([1, 2, 4])
    return Question(
        f"{heads} heads share {groups} key/value head{'s' * (groups > 1)}, in place of {heads}. What does writing "
        "text gain?",
        f"{heads // groups} times less memory for keys and values",
        "keys and values are what is kept of each token, and what is read for each new one",
        {
            f"{heads // groups} times fewer scores to be computed": "each head still looks at each token",
            "keys and values that are half as wide": "they are fewer, and each is as wide as it was",
            "a model with fewer heads that look": "the heads are as many as before",
        },
    )


QUESTIONS = [
    scores_in_memory,
    padding,
    pairs_of_padding,
    cache_size,
    who_shares,
    without_a_cache,
    window_pairs,
    how_far,
    fused,
    rescaled,
    what_sharing_saves,
]

# %% [markdown]
# # Lab 1: attention
#
# You write attention in six steps, have each one checked, and put it to work in a language model.
# Read [reading.md](reading.md) first: 10 minutes. The lab takes about an hour, of which the machine needs half a minute.
#
# How it goes: a cell says `lab.todo("…")` where something is to be written. Replace that line, run the cell, and run
# the check below it. A check compares what you have written with the framework's own on random inputs, and where it is
# not right it says what it is instead. What has passed is used further down, under `lab.`; until then the framework's
# own stands there, so that you can look ahead.

# %%
import torch
from torch import Tensor, nn

import transformer_lab as tl
from transformer_lab.course.pictures import curves, looks

lab = tl.lab("attention")
lab

# %% [markdown]
# ## 1. Scores
#
# Each token has a **query**, what it looks for, and a **key**, what it is found by: rows of numbers, `q` (T, K) and
# `k` (S, K). T tokens look, S tokens are looked at, K is the width of a query and of a key. The **score** of a pair is
# the dot product of query and key, divided by the root of K:
#
# $$\text{scores} = \frac{q\, k^\top}{\sqrt{K}} \qquad (T, S)$$
#
# Why the root? Independent numbers with mean 0 and variance 1 give dot products of variance K. Divided by the root of K they have variance 1
# again, whatever K is. The next cell shows it.

# %%
for width in (4, 64, 1024):
    q, k = torch.randn(500, width), torch.randn(500, width)
    print(
        f"K = {width:4}: standard deviation of dot products {(q @ k.T).std():5.1f}, of scores {(q @ k.T / width**0.5).std():.2f}"
    )


# %%
def scores(q: Tensor, k: Tensor) -> Tensor:
    """(T, K), (S, K) -> (T, S)"""
    # BLANK q times the transpose of k, divided by the root of K
    return q @ k.T / q.shape[-1] ** 0.5
    # END


# %%
lab.check(scores)

# %% [markdown]
# ## 2. Softmax
#
# Scores become **weights**: positive, and 1 together in each row. e is raised to the power of each score, and
# this is divided by the sum of its row:
#
# $$\text{weights}_{ij} = \frac{e^{s_{ij}}}{\sum_k e^{s_{ik}}} \qquad (T, S)$$
#
# A score of 1000 is too much for that: $e^{1000}$ is infinite on a computer. But a row in which the same number is
# taken from all scores has the same weights. So the largest one of the row is taken away first.

# %%
row = torch.tensor([1.0, 2.0, 3.0])
print(row.softmax(-1), (row + 1000).softmax(-1), (row + 1000).exp())


# %%
def softmax(scores: Tensor) -> Tensor:
    """(T, S) -> (T, S); each row sums to 1"""
    # BLANK take the largest of each row away, exp, divide by the sum of the row; without .softmax
    powers = (scores - scores.max(-1, keepdim=True).values).exp()
    return powers / powers.sum(-1, keepdim=True)
    # END


# %%
lab.check(softmax)

# %% [markdown]
# ## 3. Masking
#
# Not every token may be looked at: a language model must not see the word that it is to guess. `keep` (T, S) is True
# where a query may look at a key. What is not kept gets the score minus infinity before softmax, as $e^{-\infty} = 0$:
# its weight is exactly 0, and the others still sum to 1.


# %%
def weights(scores: Tensor, keep: Tensor) -> Tensor:
    """(T, S), (T, S) of True and False -> (T, S); each row sums to 1"""
    # BLANK minus infinity where keep is False, then softmax: your own, or .softmax(-1)
    return lab.softmax(scores.masked_fill(~keep, float("-inf")))
    # END


# %%
lab.check(weights)

# %% [markdown]
# ## 4. One head
#
# Each token that is looked at has a **value**, `v` (S, V): what it has to say. Attention mixes the values of each row
# by its weights:
#
# $$\text{attention}(q, k, v) = \text{softmax}\left(\frac{q\,k^\top}{\sqrt{K}} \text{, kept}\right) v \qquad (T, V)$$


# %%
def attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """(T, K), (S, K), (S, V), (T, S) -> (T, V)"""
    # BLANK the scores, their weights, and the values mixed by these; lab.scores and lab.weights are yours
    return lab.weights(lab.scores(q, k), keep) @ v
    # END


# %%
lab.check(attention)

# %% [markdown]
# ## 5. Many heads
#
# In **self-attention** a text looks at itself: queries, keys and values are made of the same tokens `x` (T, D), by
# three matrices. D is the width of the model. They are cut into H **heads** of K = D / H numbers, each of which looks
# by itself; what they found is laid side by side again, and a fourth matrix, `out`, mixes it.
#
# The cut is where most mistakes are made. `query(x)` is (T, D): the H heads of a token stand side by side in its row.
# So `.view(T, H, K)` parts them, and `.transpose(0, 1)` brings H to the front: (H, T, K). On the way back T has to come
# to the front again before the heads are joined.
#
# Every token sees the whole text here. The names of the four layers have to be as they stand, so that the check can
# give them the weights of the framework's layer.


# %%
class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D) -> (T, D)"""
        # BLANK split queries, keys and values into heads, let each look, join them, and out
        q, k, v = (
            layer(x).view(len(x), self.num_heads, -1).transpose(0, 1)  # (H, T, K)
            for layer in (self.query, self.key, self.value)
        )
        shares = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)  # (H, T, T)
        return self.out((shares @ v).transpose(0, 1).flatten(1))
        # END


# %%
lab.check(SelfAttention)

# %% [markdown]
# ## 6. Two texts in one batch
#
# Texts of different lengths are often filled up to the longest one with tokens that mean nothing: **padding**. Here
# they are **packed** instead, laid end to end: texts of 3 and 2 tokens are a batch of N = 5 tokens. Nothing is wasted,
# but one text must not see the other. And in a language model no token may see those after it (**causal** attention).


# %%
def sees(lengths: list[int]) -> Tensor:
    """[3, 2] -> (5, 5): True where a token may look at another one: of the same text, and not after it"""
    # BLANK which text each token is of, and its place; torch.repeat_interleave and torch.arange help
    text = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))  # (N,)
    place = torch.arange(len(text))
    return (text[:, None] == text) & (place[:, None] >= place)
    # END


# %%
lab.check(sees)

# %%
lab.sees([3, 2]).int()

# %% [markdown]
# ## Put it to work
#
# The framework's models take any function for the looking: a **kernel**. Yours gets all heads of a packed batch, q, k
# and v of (N, H, K), and lets `lab.attention` look for each head. The model is a small language model: it reads the
# documentation of Python's own library, byte by byte, and guesses the next byte. It is trained twice from the same
# start: once with your kernel, once with the framework's.

# %%
import argparse, builtins, inspect, random, statistics


def kernel(q: Tensor, k: Tensor, v: Tensor, *, queries: tl.Layout, **rules: object) -> Tensor:
    """(N, H, K) three times -> (N, H, K)"""
    keep = lab.sees(queries.lengths.tolist())
    heads = [lab.attention(q[:, h], k[:, h], v[:, h], keep) for h in range(q.shape[1])]
    return torch.stack(heads, dim=1)


docs = [inspect.getdoc(thing) for module in (builtins, random, statistics, argparse) for thing in vars(module).values()]
texts = sorted({doc.encode() for doc in docs if doc and len(doc) > 40})
print(f"{len(texts)} texts, {sum(map(len, texts)):,} bytes; one of them: {texts[0].decode()[:60]!r}")


# %%
def train(steps: int, **parts) -> tuple[tl.Decoder, list[float]]:
    """A decoder of two layers, and its losses"""
    torch.manual_seed(0)
    order = random.Random(0)
    model = tl.Decoder(vocab_size=256, dim=64, num_layers=2, num_heads=4, **parts)
    head = nn.Linear(64, 256)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(steps):
        chosen = [text[:49] for text in order.sample(texts, 12)]
        read = torch.tensor([byte for text in chosen for byte in text[:-1]])  # (N,)
        guessed = torch.tensor([byte for text in chosen for byte in text[1:]])  # (N,): the next of each
        hidden = model(read, tl.Layout.of([len(text) - 1 for text in chosen]))
        loss = nn.functional.cross_entropy(head(hidden), guessed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


steps = lab.steps(150)
yours, your_losses = train(steps, attention=kernel)
_, its_losses = train(steps)
curves(yours=your_losses, framework=its_losses)

# %% [markdown]
# The two curves lie on each other: the same sums, in another order. Both began near $\ln 256 = 5.5$, the loss of a
# model that holds all 256 bytes for equally likely.
#
# And this is what your model looks at. A row is a token that looks; a column is one that is looked at. Above the
# diagonal all is empty, as `sees` has it.

# %%
text = b"Return the sum of all values"
layout = tl.Layout.of([len(text)])
layer = yours.blocks[1].attention.layer
with torch.no_grad():
    x = yours.blocks[0](yours.embedding(torch.tensor(list(text))), layout, yours.position)  # what layer 1 reads
    x = yours.blocks[1].attention.norm(x)
    q, k = layer.queries(x, layout, yours.position), layer.keys(x, layout, yours.position)
    shares = [lab.weights(lab.scores(q[:, h], k[:, h]), lab.sees([len(text)])) for h in range(4)]
looks(torch.stack(shares), [chr(byte) for byte in text])

# %% [markdown]
# ## What next
#
# Three experiments with the framework, in a terminal. Each takes a minute or two; `plan=true` says how long first.
#
# | type | and expect |
# | --- | --- |
# | `python train.py model.num_heads=1 max_steps=200` | about the loss of 4 heads: in so few steps one head does as well |
# | `python train.py position=none max_steps=200` | a higher loss: without positions the words before are a heap (lab 2) |
# | `python train.py model.window=8 max_steps=200` | a lower loss, after so few steps: most of what helps is near (lab 1b) |
#
# Then the practice quiz. `quiz.grade(…)` marks your answers, one for each question in their order.

# %%
quiz = lab.quiz(seed=1)
quiz

# %%
# YOURS quiz.grade("b", 12, …)
quiz.grade(*quiz.solved())
# END

# %%
lab
